"""The records of a data stage: where they lie, what became of one and what was made of it, however many there are.

Files are looked through by their bytes and never held; a record is parsed when it is shown.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from data_pipeline import prompts
from data_pipeline.errors import BadInput
from data_pipeline.llm.ledger import Call, Ledger, is_there
from data_pipeline.records import Reject
from data_pipeline.synthesis.files import StepFiles, step_folders
from launch.running.folder import ledger_of
from launch.running.lines import Lines, find_id, lines_of, mentions

ROWS, REJECTS = "rows.jsonl", "rejects.jsonl"
STEPLESS = "training files"
TRAINING = {  # the files behind the steps, and what stands in them
    "questions.jsonl": "questions",
    "dialogues.jsonl": "dialogues",
    "questions.rejects.jsonl": "left out",
    "heldout.jsonl": "held out for evaluation",
    "grpo.jsonl": "GRPO prompts",
    "grpo_dialogues.jsonl": "GRPO prompts, cut before one reply",
    "overlaps.jsonl": "overlaps with benchmarks",
}
ENDS = {  # where a row may stand in the end; questions.jsonl and dialogues.jsonl hold those of the others too
    "heldout.jsonl": "held out for evaluation",
    "grpo.jsonl": "a GRPO prompt",
    "grpo_dialogues.jsonl": "a GRPO prompt, cut before one reply",
    "questions.jsonl": "an SFT row",
    "dialogues.jsonl": "an SFT dialogue",
}
NAMING = ("id", "row", "row_id", "kept", "merged", "first", "second")  # keys of the steps' tables that name a row


@dataclass(frozen=True)
class Table:
    """A file of records."""

    place: str  # "questions/1_clean", or STEPLESS
    name: str  # of the file
    path: Path
    size: int
    count: int | None = None  # of lines, where a step has said so

    @property
    def key(self) -> str:
        """Returns what names it in an address."""
        return self.name if self.place == STEPLESS else f"{self.place}/{self.name}"


def tables(data: Path) -> dict[str, list[Table]]:
    """Returns {step: its files of records} in the order of the pipeline, rows first, those without a line left out;
    then the training files.
    """
    found: dict[str, list[Table]] = {}
    for place in step_folders(data / "steps"):
        name, state = f"{place.parent.name}/{place.name}", StepFiles(place).state()
        counts = {ROWS: state.counts.out, REJECTS: state.counts.rejected} if state else {}
        files = sorted(place.glob("*.jsonl"), key=lambda p: (p.name != ROWS, p.name != REJECTS, p.name))
        made = [Table(name, file.name, file, file.stat().st_size, counts.get(file.name)) for file in files]
        found[name] = [table for table in made if table.size or table.name == ROWS]
    files = [data / name for name in TRAINING if (data / name).is_file() and (data / name).stat().st_size]
    if files:
        found[STEPLESS] = [Table(STEPLESS, file.name, file, file.stat().st_size) for file in files]
    return found


def table_of(data: Path, key: str) -> Table | None:
    """Returns the table of that key, None for a key that names none: an address opens no other file."""
    return next((table for of in tables(data).values() for table in of if table.key == key), None)


def path_of(data: Path, key: str) -> Path:
    """Returns where the table of that key lies, there or not; raises BadInput for a way out of the run."""
    if ".." in key.split("/") or key.startswith("/"):
        raise BadInput(f"{key}: no file of records of a run")
    return data / "steps" / key if "/" in key else data / key


@dataclass(frozen=True)
class Version:
    """A record as it stands in one file."""

    table: Table
    number: int  # of its line, from 0
    record: dict[str, Any]

    @property
    def near(self) -> float | None:
        """Returns in which part of the file it stands, from 0 to 1."""
        lines = lines_of(self.table.path)
        return lines.begins[self.number] / lines.size if lines and self.number < len(lines.begins) else None


def versions(data: Path, version: Version) -> list[Version]:
    """Returns a record as every step has left it, then as it stands in a training file."""
    found, id, near = [], str(version.record.get("id", "")), version.near
    for place, of in tables(data).items():
        for table in of:
            if table.name not in (ROWS, *ENDS) or not _may_hold(place, version.record):
                continue
            if (number := find_id(table.path, id, near)) is not None:
                found.append(_version(table, number))
                if place == STEPLESS:
                    break
    return found


def last_version(data: Path, id: str) -> Version | None:
    """Returns the last version of a record, None for an id that the run does not have: the training files first."""
    for of in reversed(list(tables(data).values())):
        for table in of:
            if table.name in (ROWS, "questions.jsonl", "dialogues.jsonl", "heldout.jsonl"):
                if (number := find_id(table.path, id)) is not None:
                    return _version(table, number)
    return None


def _may_hold(place: str, record: dict[str, Any]) -> bool:
    """Returns whether a step of that place may hold a record of that kind, or what it was made from."""
    pipeline = place.split("/")[0]
    if pipeline == "questions":
        return "turns" not in record and "replies" not in record
    return place == STEPLESS or "turns" in record or "replies" in record


def _version(table: Table, number: int) -> Version:
    lines = lines_of(table.path)
    return Version(table, number, (lines.record(number) if lines else None) or {})


def facts(data: Path, ids: set[str]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Yields what steps wrote down of these ids beside their rows: rejects, merges, edits, crisis flags, traces."""
    for of in tables(data).values():
        for table in of:
            if table.name in (ROWS, *ENDS):
                continue
            for id in sorted(ids):
                yield from ((table, record) for record in mentioning(table.path, id) if _names(record, {id}))


def mentioning(path: Path, id: str, most: int = 50) -> Iterator[dict[str, Any]]:
    """Yields records of the file in which the id stands, of at most twenty times `most` lines."""
    lines = lines_of(path)
    for number in islice(mentions(path, id), 20 * most):
        if lines and (record := lines.record(number)):
            yield record


def _names(record: dict[str, Any], ids: set[str]) -> bool:
    return bool(ids & {record[key] for key in NAMING if isinstance(record.get(key), str)})


def children(data: Path, record: dict[str, Any], most: int = 50) -> list[str]:
    """Returns the ids of rows that were made from the record, at most so many."""
    found: dict[str, None] = {}
    id = str(record.get("id", ""))
    for place, of in tables(data).items():
        rows = [table for table in of if table.name == ROWS and _may_hold(place, record)]
        for one in mentioning(rows[0].path, id, most) if rows else ():
            if id in (one.get("meta") or {}).get("parents", ()) and one.get("id") != id:
                found[str(one["id"])] = None
            if len(found) >= most:
                return list(found)
    return list(found)


def last_before(data: Path, version: Version, id: str) -> Version | None:
    """Returns the last version of what a record was made from; of its own id, as it was while it was another kind."""
    found = None
    for place, of in tables(data).items():
        rows = [table for table in of if table.name == ROWS and _may_hold(place, version.record)]
        if rows and (number := find_id(rows[0].path, id, version.near)) is not None:
            one = _version(rows[0], number)
            if id != version.record.get("id") or one.record.keys() != version.record.keys():
                found = one
    return found


def endings(data: Path, id: str) -> list[str]:
    """Returns where a row stands now: rejected and why, in a training file, or merged into another row; [] where no
    file says.
    """
    found, merged = [], []
    for table, fact in facts(data, {id}):
        if table.name.endswith(REJECTS) and fact.get("id") == id:
            of = "the training files" if table.place == STEPLESS else table.place
            found.append(f"rejected by {of}: {Reject(**fact).reason} ({fact['where']})")
        elif table.name == "clusters.jsonl" and fact.get("merged") == id:
            merged.append(f"merged into {fact['kept']} by {table.place}")
    for file, what in ENDS.items():
        if find_id(data / file, id) is not None:
            found.append(f"{what} ({file})")
            break  # the first that has it is the narrowest
    return found + merged


@dataclass(frozen=True)
class Asked:
    """One entry of a record's trail, with the calls behind it."""

    step: str
    facts: dict[str, Any]
    calls: list[Call] = field(default_factory=list)


def trail(data: Path, record: dict[str, Any]) -> Iterator[Asked]:
    """Yields what each step did to a record, with the model's replies where there is a ledger."""
    ledger = ledger_of(data)
    entries = (record.get("meta") or {}).get("trail", [])
    opened = None
    try:
        opened = Ledger(ledger) if is_there(ledger) and any("row" in entry for entry in entries) else None
        for entry in entries:
            facts = {key: value for key, value in entry.items() if key != "step"}
            calls = (
                opened.calls(entry["step"], entry["row"], entry.get("sample", 0)) if opened and "row" in entry else []
            )
            yield Asked(entry["step"], facts, calls)
    except (BadInput, sqlite3.Error) as error:
        yield Asked("ledger", {"error": str(error)})
    finally:
        if opened:
            opened.__exit__()


def text_of(record: dict[str, Any]) -> str:
    """Returns what a record says, in one line for a list."""
    if record.get("turns"):
        return " / ".join(str(turn.get("content", "")) for turn in record["turns"])
    for keys in (("stem",), ("title", "text"), ("text",), ("excerpt",), ("detail",), ("question",)):
        if said := " ".join(str(record[key]) for key in keys if record.get(key)):
            return said
    return orjson.dumps({key: value for key, value in record.items() if key not in ("id", "meta")}).decode()


def search(lines: Lines, text: str, first: int, most: int) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
    """Returns ([(number, record)] of at most so many lines from `first` on that hold the text, whether more do)."""
    found: list[tuple[int, dict[str, Any]]] = []
    for number in lines.find(text, first):
        if len(found) == most:
            return found, True
        found.append((number, lines.record(number) or {}))
    return found, False


@cache
def prompt_names() -> dict[str, str]:
    """Returns {hash: name} of the prompts as they are now."""
    files = Path(prompts.__file__).parent.glob("*.jinja")
    return {prompts.prompt_hash(file.stem): file.stem for file in files}
