"""Stored responses of evaluations: which there are, filtered by what is known of each, several models' side by side."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval import report, responses
from eval.contract import find_benchmark
from eval.figures import Measured
from eval.responses import Row
from launch.running.folder import RUNS
from launch.running.lines import Lines, find_id, lines_of

VERDICTS = ("right", "wrong", "answered", "unreadable", "failed")
_FIELDS = {f.name for f in fields(Row)}


@dataclass(frozen=True)
class Stored:
    """A file of responses."""

    run: str
    checkpoint: str
    set: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.run}/{self.checkpoint}"


def stored(run: str) -> list[Stored]:
    """Returns the files of responses of a run's evaluation, in the order in which they were asked for."""
    folder = RUNS / run / "eval"
    files = responses.read_asked(folder)
    made = [Stored(run, about.checkpoint, about.set, folder / name) for name, about in files.items()]
    return [one for one in made if one.path.is_file()]


def of_set(name: str) -> list[Stored]:
    """Returns every run's files of responses to sets of that name."""
    found = []
    for folder in sorted(RUNS.glob("*/eval")):
        try:
            found += [one for one in stored(folder.parent.name) if one.set == name]
        except (ValueError, OSError):
            continue  # of another version: its own page says so
    return found


def shown_by(one: Stored) -> report.ShownBy:
    """Returns how the responses of a file are shown: as its benchmark has people read them."""
    file = one.path.parent / "metrics.json"
    try:
        measured = Measured.read(file)
        benchmark = find_benchmark(measured.sets[one.set][one.checkpoint].benchmark, "benchmark")
    except (OSError, KeyError, ValueError):
        return report.ShownBy()  # it is not scored yet
    return report.ShownBy(benchmark.shown)


@dataclass(frozen=True)
class Filter:
    """What a reader asked for; "" and False let everything through."""

    verdict: str = ""
    subject: str = ""
    cell: str = ""
    cut: bool = False
    differ: bool = False  # strict-match and flexible-extract read something else
    q: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of one response, without its text."""

    verdict: str
    subject: str
    cell: str
    cut: bool
    differ: bool


@dataclass
class Overview:
    """What is known of every response of a file, by its line."""

    known: list[Known]
    verdicts: Counter[str]
    subjects: Counter[str]
    cells: Counter[str]
    cut: int
    differ: int
    odd: int  # lines that are no response of this version


def overview(path: Path) -> Overview:
    state = path.stat()
    return _overview(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _overview(path: Path, size: int, modified: int) -> Overview:
    made = Overview([], Counter(), Counter(), Counter(), 0, 0, 0)
    seen: dict[tuple, Known] = {}  # few differ: 20,000 responses have some hundred kinds
    for _, record in all_of(path):
        if (row := row_of(record)) is None:
            made.odd += 1
            made.known.append(seen.setdefault((), Known("", "", "", False, False)))
            continue
        differ = row.has_letters and (row.read or "") != (row.strict_match or "")
        key = (report.verdict(row), row.subject, row.cell, bool(row.cut), differ)
        made.known.append(seen.setdefault(key, Known(*key)))
        made.verdicts[key[0]] += 1
        made.subjects[row.subject] += 1
        made.cells[row.cell] += 1
        made.cut += key[3]
        made.differ += differ
    return made


def all_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines, first = lines_of(path), 0
    while lines and (part := lines.slice(first, 500)):
        yield from part
        first += len(part)


def row_of(record: dict[str, Any]) -> Row | None:
    """Returns the response of a line, None for one of another version."""
    return Row(**record) if record.keys() == _FIELDS else None


def chosen(path: Path, wanted: Filter, first: int, most: int) -> tuple[list[tuple[int, Row]], int | None, int | None]:
    """Returns ([(line, response)] of at most so many from line `first` on that pass the filter, the line to go on from
    or None, how many pass in all or None where a text was searched for).
    """
    about, lines = overview(path), lines_of(path)
    if lines is None:
        return [], None, 0
    passing = [number for number, one in enumerate(about.known) if _passes(one, wanted)]
    numbers: Iterator[int] | list[int] = [number for number in passing if number >= first]
    total: int | None = len(passing)
    if wanted.q.strip():
        among, total = set(numbers), None
        numbers = (number for number in lines.find(wanted.q.strip(), first) if number in among)
    found: list[tuple[int, Row]] = []
    for number in numbers:
        if len(found) == most:
            return found, number, total
        if row := row_of(lines.record(number) or {}):
            found.append((number, row))
    return found, None, total


def _passes(one: Known, wanted: Filter) -> bool:
    return (
        bool(one.verdict)
        and wanted.verdict in ("", one.verdict)
        and wanted.subject in ("", one.subject)
        and wanted.cell in ("", one.cell)
        and (one.cut or not wanted.cut)
        and (one.differ or not wanted.differ)
    )


def of_item(one: Stored, id: str) -> list[Row]:
    """Returns all samples of a model's response to an item."""
    number, lines = find_id(one.path, id), lines_of(one.path)
    rows: list[Row] = []
    while lines and number is not None and (row := row_of(lines.record(number) or {})) and row.id == id:
        rows.append(row)
        number += 1
    return rows


def neighbours(lines: Lines, path: Path, wanted: Filter, number: int) -> tuple[int | None, int | None]:
    """Returns the lines before and after one that pass the filter, for going on from response to response."""
    known = overview(path).known
    before = next((n for n in range(number - 1, -1, -1) if _passes(known[n], wanted)), None)
    after = next((n for n in range(number + 1, len(known)) if _passes(known[n], wanted)), None)
    return before, after
