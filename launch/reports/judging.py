"""Judges among themselves and against people: what `python -m launch.eval agreement FILES` reads and prints."""

from collections.abc import Sequence

from data_pipeline.errors import BadInput
from data_pipeline.records import Fault
from data_pipeline.tables.rows import Layout, table_rows
from eval.judging import comparison, ratings
from eval.judging.ratings import Rating
from launch.cli.arguments import Command
from launch.cli.entry import console, print_table


def agreement(command: Command) -> None:
    """`agreement FILE [FILE ...]`: how far the raters of these files agree; raises BadInput for what is no rating."""
    if not command.positional:
        raise BadInput("agreement of which files? python -m launch.eval agreement SCORES.csv JUDGEMENTS.jsonl")
    read = read_ratings(command.positional)
    for note in comparison.check(read):
        console.print(f"  {note}", markup=False)
    for table in comparison.compared(read):
        print_table(table.caption, table.head, table.rows)


def read_ratings(files: Sequence[str]) -> list[Rating]:
    """Returns the ratings of all files, of any kind of table, in order; raises BadInput with file and row."""
    rows = []
    for file in files:
        for row in table_rows(file, Layout()):
            if isinstance(row.values, Fault):
                raise BadInput(f"{row.where}: {row.values.reason}")
            rows.append((row.where, row.values))
    return ratings.of_rows(rows)
