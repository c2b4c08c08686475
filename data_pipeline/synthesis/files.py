"""The files of a step: rows.jsonl, rejects.jsonl, its tables, report.json, and at last step.json: all are whole."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

import orjson

from data_pipeline.records import Reject
from data_pipeline.steps import Outcome, Result

FIELDS = ("in", "out", "rejected", "merged", "seconds")


class StepFiles:
    """A step's folder. What is in it counts only once step.json is there, which is written last."""

    def __init__(self, place: Path) -> None:
        self.place, self.rows = place, place / "rows.jsonl"

    def state(self) -> dict:
        """Returns {"key", "counts", "settings"} of a finished step, {} of any other."""
        try:
            return json.loads((self.place / "step.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def remove(self) -> None:
        """Says that the step is not done: its files are about to be written."""
        (self.place / "step.json").unlink(missing_ok=True)

    @contextmanager
    def writing(self, tables: tuple[str, ...] = ()) -> Iterator["Writer"]:
        """Gives the writer of rows, rejects and tables, `tables` also when nothing comes; they appear at the end."""
        self.place.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writer = Writer(self.place, stack)
            for name in ("rows", "rejects", *tables):
                writer.file(name)
            yield writer
        for name in writer.files:
            (self.place / f"{name}.jsonl.partial").replace(self.place / f"{name}.jsonl")

    def finish(self, key: str, writer: "Writer", report: dict, settings: dict, seconds: float) -> dict:
        """Writes report and state; returns the counts."""
        counts = {name: writer.counts[name] for name in FIELDS[:-1]} | {"seconds": round(seconds, 2)}
        text = json.dumps(report, ensure_ascii=False, indent=2)
        (self.place / "report.json").write_text(text + "\n", encoding="utf-8")
        state = json.dumps({"key": key, "counts": counts, "settings": settings}, ensure_ascii=False, indent=2)
        partial = self.place / "step.partial"
        partial.write_text(state + "\n", encoding="utf-8")
        partial.replace(self.place / "step.json")
        return counts


class Writer:
    """Takes what a step gives, row by row; `counts` are rows in, out, rejected and merged, `tally` is the report's."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self.stack = place, stack
        self.files: dict[str, IO[bytes]] = {}
        self.counts, self.tally = Counter(), Counter()

    def file(self, name: str) -> IO[bytes]:
        if name not in self.files:
            self.files[name] = self.stack.enter_context((self.place / f"{name}.jsonl.partial").open("wb"))
        return self.files[name]

    def row(self, record: object) -> None:
        self.counts["out"] += 1
        self.files["rows"].write(orjson.dumps(record) + b"\n")

    def reject(self, reject: Reject) -> None:
        self.counts["rejected"] += 1
        self.files["rejects"].write(orjson.dumps(asdict(reject)) + b"\n")

    def outcome(self, outcome: Outcome | Result) -> None:
        """Writes what became of one row, or of all."""
        for record in outcome.rows:
            self.row(record)
        for reject in outcome.rejects:
            self.reject(reject)
        for name, table in outcome.files.items():
            file = self.file(name)
            for entry in table:
                file.write(orjson.dumps(entry) + b"\n")
        if isinstance(outcome, Outcome):
            self.tally.update(outcome.counts)
        else:
            self.counts["merged"] += len(outcome.merged)
