"""How fast tables of questions, and dialogues, are read and exported (bar: 0.85 of an earlier version's rate).

python -m tests.benchmarks.tables [CHECKOUT]

The questions of CPsyExam, or without them our own samples many times over, each made another, as CSV with a column for
each option, as JSONL with objects of options, and as Parquet; and dialogues of
SMILECHAT, or of our samples, as JSONL of messages. Processor time of whole processes' reading and of writing
both training files, after a first table that compiles the rules. With a CHECKOUT both versions work in turn, in ROUNDS
pairs, and the ratio is that of their medians. An earlier version that did not clean what tables hold is compared with
this one with and without cleaning.
"""

import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from data_pipeline.dialogues import messages
from data_pipeline.records import Dialogue, Question
from data_pipeline.sources import read
from tests.conftest import DATA, REPOSITORY

ROUNDS, FIRST, COUNT = 5, 300, 6000
WORK = """
import pathlib, sys, time
from data_pipeline.export import llama_factory, verl
from data_pipeline.sources import messages, table
first, second, out, columns, options = *map(pathlib.Path, sys.argv[1:4]), eval(sys.argv[4]), eval(sys.argv[5])

def read(path):
    found = list(messages.read(path) if columns is None else table.read(path, columns, **options))
    return found, [record for record in found if hasattr(record, "meta")]

def write(rows):
    if columns is None:
        return llama_factory.write(out, [], rows)
    llama_factory.write(out, rows)
    if hasattr(verl, "question_rows"):
        verl.write(out / "train.parquet", verl.question_rows(rows, "train"))
    else:
        verl.write(out / "train.parquet", rows, "train")

write(read(first)[1])
started = time.process_time()
records, rows = read(second)
done = time.process_time()
write(rows)
assert len(rows) > 0.9 * len(records), records[:3]
print(done - started, time.process_time() - done, len(records))
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


def dialogues() -> list[dict]:
    """Returns FIRST + COUNT dialogues as messages, no two alike."""
    if (DATA / "smile").exists():
        found = list(read("smilechat", DATA / "smile"))
    else:
        found = list(read("messages", REPOSITORY / "data_pipeline/samples/corpus/dialogues.jsonl"))
    given = [messages(one.turns) for one in found if isinstance(one, Dialogue)]
    draw, made = random.Random(0), []
    while len(made) < FIRST + COUNT:
        one, other = draw.choice(given), draw.choice(given)
        made.append({"messages": [{**one[0], "content": other[0]["content"][:20] + one[0]["content"]}, *one[1:]]})
    return made


def write_dialogues(folder: Path, name: str, rows: list[dict]) -> Path:
    """Writes the dialogues as JSONL; returns the file."""
    file = folder / f"{name}.messages.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def seconds(checkout: Path, first: Path, file: Path, columns: dict | None, options: dict) -> tuple[float, float]:
    """Returns seconds of processor time a row, of reading and of exporting, of a process in the checkout."""
    words = [sys.executable, "-c", WORK, str(first), str(file), str(file.parent), repr(columns), repr(options)]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True, env={"PYTHONPATH": "."})
    read, wrote, count = done.stdout.split()
    return float(read) / int(count), float(wrote) / int(count)


def main(earlier: Path | None) -> None:
    ways = {"cleaned": (REPOSITORY, {}), "not cleaned": (REPOSITORY, {"clean": False})}
    ways |= {"earlier": (earlier, {})} if earlier else {}
    with tempfile.TemporaryDirectory() as folder:
        rows = questions()
        firsts = write(Path(folder), "first", rows[:FIRST])
        said = dialogues()
        tables: dict[str, tuple[Path, dict | None]] = {**write(Path(folder), "table", rows[FIRST:])}
        tables["messages"] = write_dialogues(Path(folder), "said", said[FIRST:]), None
        firsts["messages"] = write_dialogues(Path(folder), "first", said[:FIRST]), {}
        for kind, (file, columns) in tables.items():
            taken = {name: [] for name in ways if columns is not None or name != "not cleaned"}
            for _ in range(ROUNDS):
                for name in taken:
                    checkout, options = ways[name]
                    taken[name].append(seconds(checkout, firsts[kind][0], file, columns, options))
            medians = {
                name: [statistics.median(both) for both in zip(*pairs, strict=True)] for name, pairs in taken.items()
            }
            for name, (read, wrote) in medians.items():
                told = f"{kind}, {name}: read {read * 1e6:.0f}, exported {wrote * 1e6:.0f} microseconds a row"
                if earlier and name != "earlier":
                    old_read, old_wrote = medians["earlier"]
                    told += f"; of the earlier rate: reading {old_read / read:.2f}, exporting {old_wrote / wrote:.2f}, "
                    told += f"both {(old_read + old_wrote) / (read + wrote):.2f}"
                print(told, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
