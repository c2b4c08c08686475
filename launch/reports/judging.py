"""What stored evaluations say together: models by their scores and in blind pairs, judges against people.

`python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT`, `rank RUN/CHECKPOINT RUN/CHECKPOINT`, `agreement FILES`.
"""

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.records import Fault, write_jsonl
from data_pipeline.tables.rows import Layout, table_rows
from eval import report, responses
from eval.contract import Table
from eval.differences import differences
from eval.figures import ACCURACY
from eval.judging import comparison, pairs, ratings
from eval.judging.pairs import Outcome, Pair
from eval.settings import settings
from launch.cli.arguments import Command
from launch.cli.configuration import as_dict, load_config
from launch.cli.entry import StageFailed, console, print_table
from launch.running.compared import answered, pairs_on, set_of_all
from launch.running.folder import ledger_of

SHEET = ("pair", "history", "A", "B", "better", "rater", "comment")
BETTER = {"a": "A", "b": "B", "tie": "tie", "甲": "A", "乙": "B", "平": "tie"}


def agreement(command: Command) -> None:
    """`agreement FILE [FILE ...]`: how far the raters of these files agree; raises BadInput for what is no rating."""
    if not command.positional:
        raise BadInput("agreement of which files? python -m launch.eval agreement SCORES.csv JUDGEMENTS.jsonl")
    read = ratings.of_rows(_rows(command.positional))
    for note in comparison.check(read):
        console.print(f"  {note}")
    for table in comparison.compared(read):
        print_table(table.caption, table.head, table.rows)


def _rows(files: Sequence[str]) -> list[tuple[str, Mapping]]:
    """Returns (file and row, values) of all files, of any kind of table; raises BadInput for a row that is none."""
    rows = []
    for file in files:
        for row in table_rows(file, Layout()):
            if isinstance(row.values, Fault):
                raise BadInput(f"{row.where}: {row.values.reason}")
            rows.append((row.where, row.values))
    return rows


def compare(command: Command) -> None:
    """`compare RUN[/CHECKPOINT] RUN[/CHECKPOINT]`: the paired difference on every set that both have answered."""
    if len(command.positional) != 2 or command.words:
        raise BadInput("compare takes two runs: python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT")
    (name_a, sets_a), (name_b, sets_b) = (answered(word) for word in command.positional)
    common = [name for name in sets_a if name in sets_b]
    if not common:
        raise BadInput(f"{name_a} has answered {', '.join(sets_a)}, {name_b} {', '.join(sets_b)}: no set of both")
    lines, notes = [], []
    for name in common:
        (path_a, a), (path_b, b) = sets_a[name], sets_b[name]
        if a.fingerprint != b.fingerprint:
            raise BadInput(f"set {name}: {path_a} and {path_b} answer different versions of the questions")
        if a.version != b.version:
            old = min((name_a, a), (name_b, b), key=lambda side: int(side[1].version))[0]
            raise BadInput(
                f"set {name}: {name_a} is scored by version {a.version} of the metrics, {name_b} by {b.version}, and "
                f"their figures mean different things; evaluate {old} again under another run=NAME"
            )
        rows_a, rows_b = responses.read_rows(path_a), responses.read_rows(path_b)
        of_set = differences(rows_a, rows_b, cells=True)
        if a.judge != b.judge and any(d.score != ACCURACY for d in of_set):
            notes.append(f"{name}: judged by {a.judge} and by {b.judge}, whose scores are not of one kind; left out")
            of_set = [d for d in of_set if d.score == ACCURACY]
        elif not of_set:
            notes.append(f"{name}: no score that both have: no key, and no judge has judged both (judge.base_url)")
        lines += [
            [name if d.cell is None else f"  {d.cell}", d.score, str(d.items), d.told(d.before, False),
             d.told(d.after, False), d.told(d.gain), d.interval, d.verdict]
            for d in of_set
        ]  # fmt: skip
    if not lines:
        raise BadInput(f"{name_a} and {name_b} cannot be compared; {'; '.join(notes)}")
    head = ("set", "score", "items", name_a, name_b, "difference", "95 % interval", "")
    print_table(f"{name_b} against {name_a}", head, lines)
    for note in notes:
        console.print(f"  {note}")


def rank(command: Command) -> None:
    """`rank RUN/CHECKPOINT RUN/CHECKPOINT [...] [set=NAME] [people=FILE,FILE]`: their replies to the same histories, in
    blind pairs, judged in both orders by the judges of the first run, and by people who filled in the sheet.

    Writes runs/FIRST/eval/ranking.SET/: pairs.csv for people, with pairs.key.json, and report.md, report.html.
    """
    if len(command.positional) < 2:
        raise BadInput("rank takes two runs or more: python -m launch.eval rank RUN/CHECKPOINT RUN/CHECKPOINT")
    sides = dict(map(answered, command.positional))
    if len(sides) < len(command.positional):
        raise BadInput(f"{command.positional[-1]}: stands twice; rank takes different models")
    name = set_of_all(sides, command.words.get("set"))
    first = next(iter(sides.values()))[name][0].parent
    asked = settings(as_dict(load_config(first / "config.yaml")))
    made = pairs_on(sides, name, asked, first.parent / "data")
    folder = first / f"ranking.{name}"
    folder.mkdir(exist_ok=True)
    key = write_sheet(folder, made, asked.seed)
    outcomes, rows, again = pairs.judge_pairs(made, asked.panel, ledger_of(first), name, asked.scoring)
    write_jsonl(folder / "verdicts.jsonl", rows, 0o600)
    notes = [f"{len(made)} pairs of {len({pair.item for pair in made})} histories"]
    notes += [f"judged by {asked.panel.name}"] if asked.judges else ["no judge is named in the first run"]
    if files := [file for file in command.words.get("people", "").split(",") if file]:
        people, empty = read_sheets(files, made, key)
        outcomes += people
        notes += [f"{empty} rows of people's sheets are empty"] if empty else []
    tables = pairs.report(outcomes, len(made))
    if len({one.rater for one in outcomes}) > 1:
        tables += pairs.agreement(outcomes)
    _show(folder, f"Ranking on {name}", notes, tables)
    if again:
        raise StageFailed(f"{again} judgements are missing in {folder}/report.md; the same command asks them again")


def _show(folder: Path, title: str, notes: list[str], tables: list[Table]) -> None:
    for note in notes:
        console.print(f"  {note}")
    for table in tables:
        print_table(table.caption, table.head, table.rows)
    report.write(folder, report.Page(title, [report.Section("pairs", notes, tables)]))
    console.print(f"{folder}/report.html, report.md; a sheet for people: {folder}/pairs.csv")


# --- the sheet for people ---------------------------------------------------------------------------------------------


def write_sheet(folder: Path, made: Sequence[Pair], seed: int) -> dict[str, str]:
    """Writes pairs.csv, which names no model, and pairs.key.json; returns the key, {pair: the system shown as A}.

    Order of pairs and of their replies are drawn by `seed` and content, so that a sheet written again is the same.
    """
    drawn = sorted(made, key=lambda pair: random.Random(f"{seed} {pair.id}").random())
    key = {pair.id: sorted(pair.systems)[random.Random(f"{seed} {pair.id} A").random() < 0.5] for pair in drawn}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(SHEET)
    for pair in drawn:
        a = pair.systems.index(key[pair.id])
        said = "\n".join(f"{'来访者' if role == 'user' else '咨询师'}：{text}" for role, text in pair.history)
        cells = [said, pair.replies[a], pair.replies[1 - a]]
        writer.writerow([pair.id, *(f"'{c}" if c.startswith(("=", "+", "-", "@")) else c for c in cells), "", "", ""])
    for name, content in (
        ("pairs.csv", table.getvalue().encode("utf-8-sig")),  # with its mark, or Excel reads it as GBK
        ("pairs.key.json", (json.dumps(key, indent=1) + "\n").encode()),
    ):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    return key


def read_sheets(files: Sequence[str], made: Sequence[Pair], key: Mapping[str, str]) -> tuple[list[Outcome], int]:
    """Returns what people said, and how many rows nobody filled in.

    A file with one rater's name in it, or none, is all one person's. Raises BadInput, naming file and row, for a pair
    that is not one of these (its words have changed, or it is another ranking's) and a word that is none.
    """
    by_id = {pair.id: pair for pair in made}
    outcomes, empty, stands = [], 0, {}
    for file in files:
        rows = _rows([file])
        named = {str(row.get("rater") or "").strip() for _, row in rows} - {""}
        alone = next(iter(named)) if len(named) == 1 else Path(file).stem
        for where, row in rows:
            word = str(row.get("better") or "").strip()
            pair = by_id.get(str(row.get("pair") or "").strip())
            if not word:
                empty += 1
                continue
            if pair is None:
                raise BadInput(
                    f"{where}: pair={row.get('pair')!r} is none of this ranking: its words have changed since"
                )
            if word.lower() not in BETTER:
                raise BadInput(f"{where}: better={word!r}: takes A, B or tie (甲, 乙, 平); empty where not judged")
            rater = str(row.get("rater") or "").strip() or alone
            if (rater, pair.id) in stands:
                raise BadInput(f"{where}: {rater} has judged {pair.id} already ({stands[rater, pair.id]}); keep one")
            stands[rater, pair.id] = where
            won = {"A": 1.0, "B": 0.0, "tie": 0.5}[BETTER[word.lower()]]
            straight = key[pair.id] == pair.systems[0]
            value = won if straight else 1 - won
            outcomes.append(Outcome(pair, rater, value if straight else None, None if straight else value))
    return outcomes, empty
