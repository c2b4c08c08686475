"""How fast tables of questions are read (bar: 0.85 of the rate of an earlier version of this repository).

python -m tests.benchmarks.tables [CHECKOUT]

The questions of CPsyExam, or without them our own samples many times over, each made another, as CSV with a column for
each option, as JSONL with objects of options, and as Parquet. Processor time of whole processes' reading, after a first
table that compiles the rules. With a CHECKOUT both versions read in turn, in ROUNDS pairs, and the ratio is that of
their medians; texts are cleaned by this version alone where the earlier one did not.
"""

import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from data_pipeline.records import Question
from data_pipeline.sources import read
from tests.conftest import DATA, REPOSITORY

ROUNDS, FIRST, COUNT = 5, 300, 6000
READ = """
import sys, time
from data_pipeline.sources import table
columns = eval(sys.argv[3])
first = list(table.read(sys.argv[1], columns))
started = time.process_time()
records = list(table.read(sys.argv[2], columns))
taken = time.process_time() - started
assert sum(hasattr(record, "stem") for record in records) > 0.9 * len(records), records[:3]
print(taken, len(records))
"""


def questions() -> list[dict]:
    """Returns FIRST + COUNT questions of four options, no two alike."""
    if (DATA / "cpsyexam").exists():
        found = list(read("cpsyexam", DATA / "cpsyexam"))
    else:
        found = list(read("table", REPOSITORY / "data_pipeline/samples/questions.jsonl"))
    given = [q for q in found if isinstance(q, Question) and len(q.options) == 4]
    draw, made = random.Random(0), []
    while len(made) < FIRST + COUNT:
        one, other = draw.choice(given), draw.choice(given)
        row = dict(zip("ABCD", one.options, strict=True))
        stem = f"{one.stem}{other.stem[: draw.randrange(8)]}"
        made.append(row | {"stem": stem, "answer": one.answer, "rationale": f"{one.rationale}{other.options[0]}"})
    return made


def write(folder: Path, name: str, rows: list[dict]) -> dict[str, tuple[Path, dict]]:
    """Writes the rows in each format; returns {format: (file, its columns)}."""
    import pyarrow
    import pyarrow.parquet

    files = {kind: folder / f"{name}.{kind}" for kind in ("csv", "jsonl", "parquet")}
    with files["csv"].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    nested = [
        {key: row[key] for key in ("stem", "answer", "rationale")} | {"options": {a: row[a] for a in "ABCD"}}
        for row in rows
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in nested]
    files["jsonl"].write_text("".join(lines), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested), files["parquet"])
    return {kind: (file, {"options": list("ABCD")} if kind == "csv" else {}) for kind, file in files.items()}


def rate(checkout: Path, first: Path, file: Path, columns: dict) -> float:
    """Returns the rows a second of processor time that a process reads in the checkout."""
    words = [sys.executable, "-c", READ, str(first), str(file), repr(columns)]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True, env={"PYTHONPATH": "."})
    taken, count = done.stdout.split()
    return int(count) / float(taken)


def main(earlier: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = questions()
        firsts = write(Path(folder), "first", rows[:FIRST])
        for kind, (file, columns) in write(Path(folder), "table", rows[FIRST:]).items():
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(rate(REPOSITORY, firsts[kind][0], file, columns))
                if earlier:
                    theirs.append(rate(earlier, firsts[kind][0], file, columns))
            told = f"{kind}: {statistics.median(ours):,.0f} rows a second of processor time"
            if earlier:
                told += f", {statistics.median(ours) / statistics.median(theirs):.2f} of the earlier version's rate"
            print(told, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
