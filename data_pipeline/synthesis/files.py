"""The files of a step: rows.jsonl, rejects.jsonl, its tables, report.json, and at last step.json: all are whole."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_pipeline.counts import StepCounts
from data_pipeline.records import Reject, line_of, write_text
from data_pipeline.steps import Outcome
from data_pipeline.synthesis.configuration import READS


def step_folders(steps: Path) -> list[Path]:
    """Returns the folders of what was read, 0_read, and of the steps, pipeline by pipeline in their order."""
    found = [place for place in steps.glob("*/*_*") if place.name.split("_")[0].isdigit()]
    return sorted(found, key=lambda place: (list(READS).index(place.parent.name), int(place.name.split("_")[0])))


def told_by_steps(steps: Path) -> dict[str, str]:
    """Returns {"questions/5_review": what its report tells people} of the steps that tell something."""
    said = {}
    for place in step_folders(steps):
        if (file := place / "report.json").is_file():
            told = json.loads(file.read_text(encoding="utf-8")).get("told")
            said |= {f"{place.parent.name}/{place.name}": told} if told else {}
    return said


@dataclass(frozen=True)
class StepState:
    """What step.json says of a finished step."""

    key: str
    counts: StepCounts
    settings: dict  # the step's own


class StepFiles:
    """A step's folder. What is in it counts only once step.json is there, which is written last."""

    def __init__(self, place: Path) -> None:
        self.place, self.rows = place, place / "rows.jsonl"

    def state(self) -> StepState | None:
        """Returns the state of a finished step, None of any other."""
        try:
            state = json.loads((self.place / "step.json").read_text(encoding="utf-8"))
            return StepState(state["key"], StepCounts.model_validate(state["counts"]), state["settings"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

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

    def finish(self, key: str, counts: StepCounts, report: dict, settings: dict) -> None:
        """Writes report and state."""
        text = json.dumps(report, ensure_ascii=False, indent=2)
        write_text(self.place / "report.json", text + "\n")
        state = {"key": key, "counts": counts.as_json(), "settings": settings}
        state = json.dumps(state, ensure_ascii=False, indent=2)
        write_text(self.place / "step.json", state + "\n")


class Writer:
    """Takes what a step gives, row by row, and counts it; `tally` is for the report of a row step."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self.stack = place, stack
        self.files: dict[str, IO[bytes]] = {}
        self.into = self.out = self.rejected = self.merged = 0
        self.tally = Counter()

    def counted(self, seconds: float, failed: int) -> StepCounts:
        rows = {"out": self.out, "rejected": self.rejected, "merged": self.merged}
        rows |= {"failed": failed} if failed else {}
        return StepCounts(into=self.into, **rows, seconds=round(seconds, 2))

    def file(self, name: str) -> IO[bytes]:
        if name not in self.files:
            self.files[name] = self.stack.enter_context((self.place / f"{name}.jsonl.partial").open("wb"))
        return self.files[name]

    def row(self, record: object) -> None:
        """Writes a record, or the line that holds it."""
        self.out += 1
        self.files["rows"].write(record if isinstance(record, bytes) else line_of(record))

    def reject(self, reject: Reject) -> None:
        self.rejected += 1
        self.files["rejects"].write(line_of(reject))

    def table(self, name: str, entries: Iterable[dict]) -> None:
        file = self.file(name)
        for entry in entries:
            file.write(line_of(entry))

    def outcome(self, outcome: Outcome) -> None:
        """Writes what became of one row, or of several."""
        for record in outcome.rows:
            self.row(record)
        for reject in outcome.rejects:
            self.reject(reject)
        for name, table in outcome.files.items():
            self.table(name, table)
        self.tally.update(outcome.counts)
