"""Steps of data synthesis, one file each, named as in the papers' figures; what a step is, and what it gives back.

A file `data_pipeline/steps/NAME.py` declares `STEP = Step(...)`: what it takes and makes, whom it asks, its settings
with their bounds, and how many calls it can make. No other code names it; a recipe puts it into a pipeline.

A *row step* is a function of one row. It may run in processes, on a cluster, and while other rows are still being read.
A *set step* sees all rows: deduplication, review. They may lie in a file and be parsed each time that it looks at one,
so it holds what it compares, and says by place what becomes of which. Both leave their rows as they were.
"""

import dataclasses
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import Question, Reject


class StepSettings(BaseModel):
    """A step's settings: each a field with its bounds and, in a comment beside it, its source."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass
class Outcome:
    """What became of one row: it is among `rows` (itself, or what names it in meta["parents"]), or among `rejects`."""

    rows: list = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    files: dict[str, list[dict]] = field(default_factory=dict)  # further tables: edits, traces, what people look at
    counts: Counter = field(default_factory=Counter)  # for the report: additive, keyed by a name or a tuple


@dataclass
class SetOutcome:
    """What became of all rows in a set step, by their places from 0; those that it does not name go on as they are.

    `changed` gives (place, new record) in the order of places, which may be made as they are written, `files` further
    tables likewise. `report` holds figures and examples for people; `told` is said while it runs.
    """

    rejects: Mapping[int, Reject] = field(default_factory=dict)
    merged: Container[int] = ()  # another row stands for them now
    changed: Iterable[tuple[int, Any]] = ()
    report: dict = field(default_factory=dict)
    files: Mapping[str, Iterable[dict]] = field(default_factory=dict)
    told: str = ""


@dataclass
class Result:
    """What a step gives back for all rows, in memory. `merged`: ids that another row stands for now, once for each row
    that was merged. `report` holds figures and examples for people, `files` further tables.
    """

    rows: list
    rejects: list[Reject] = field(default_factory=list)
    report: dict = field(default_factory=dict)
    files: dict[str, list[dict]] = field(default_factory=dict)
    merged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Size:
    """How much comes in, for the plan of calls: rows, characters and counselor turns of all of them together."""

    rows: float
    chars: float = 0
    turns: float = 0


@dataclass(frozen=True)
class Calls:
    """How often a step asks: as a rule, and at most whatever the models reply; and what then goes on."""

    expected: float
    most: float
    out: Size  # as a rule
    most_out: Size
    prompt_chars: float  # of one call, without what the prompt's own file says
    reply_chars: float  # of one reply, as a rule; ours


def passes_on(size: Size) -> "Calls":
    """Returns the plan of a step that asks nobody and lets every row pass."""
    return Calls(0, 0, size, size, 0, 0)


@dataclass(frozen=True)
class Parted:
    """How a set step may be done group by group, on a cluster: rows that share a key, directly or through others, are a
    group, and what becomes of a row does not depend on rows of other groups.
    """

    keys: Callable[[Sequence, Any], tuple[Sequence[int], Any]]  # (rows, settings) -> (places with keys, these)
    decide: Callable[[Sequence, Sequence[int], Any], dict]  # (rows of whole groups, their places, settings) -> JSON
    outcome: Callable[[Sequence, Iterable[dict], Any], SetOutcome]  # (all rows, what was decided, settings)


@dataclass(frozen=True)
class Step:
    """What a step says of itself. Exactly one of `row` and `rows` is given.

    `row(record, settings)`, a coroutine function `row(record, settings, ask)` where it asks; `rows(records, settings)`
    of a sequence of records. What it `needs` comes as a keyword: `needs=("passages",)` gets {id: record} of the
    passages that came before.
    """

    takes: tuple[type, ...]
    settings: type[StepSettings]
    row: Callable[..., Any] | None = None
    rows: Callable[[Sequence, Any], SetOutcome] | None = None
    many: Callable[[list, Any], list[Outcome]] | None = None  # as `row` of each record, where together takes less
    parted: Parted | None = None  # of a set step that can be done group by group
    makes: type | None = None  # the kind of record that it gives; None: the kind that it took
    asks: Literal["", "model", "selectors"] = ""  # one model, or each of several under its name
    needs: tuple[str, ...] = ()
    calls: Callable[[Any, Size, int], Calls] | None = None  # (settings, size, selectors); where it asks
    report: Callable[[Counter, Any], dict] | None = None  # of a row step: from the counts of all rows
    files: tuple[str, ...] = ()  # further tables that are written even when they are empty
    sheets: Callable[[Path], object] | None = None  # writes what people fill in, beside the tables in the folder
    people: str = ""  # the setting that lists files which people fill in; its settings may then change within a run

    def __post_init__(self) -> None:
        if (self.row is None) == (self.rows is None):
            raise TypeError("a step declares either row= or rows=")
        if self.asks and (self.row is None or self.calls is None):
            raise TypeError("a step that asks declares row= and calls=, the most calls that it can make")
        if self.row is not None and self.report is None:
            raise TypeError("a row step declares report=, which makes its figures of the counts of all rows")


def step_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def find_step(name: str, where: str) -> Step:
    """Returns what data_pipeline/steps/NAME.py declares; raises BadInput, opening with `where`, without one."""
    if name not in step_names():
        there = step_names()
        raise BadInput(f"{where}: no step {name!r}; there is {', '.join(there)}{did_you_mean(name, there)}")
    try:
        declared = getattr(importlib.import_module(f"data_pipeline.steps.{name}"), "STEP", None)
    except TypeError as error:
        raise BadInput(f"data_pipeline/steps/{name}.py: {error}") from None
    if not isinstance(declared, Step):
        raise BadInput(
            f"data_pipeline/steps/{name}.py declares no STEP = Step(takes=..., settings=..., row=... or rows=...); "
            "CONTRIBUTING.md shows one"
        )
    return declared


def check_balance(name: str, ids: Iterable[str], result: Result) -> None:
    """Raises AssertionError unless in = out + rejected + merged, counted by occurrence.

    A row counts each time that it, or one that names it in meta["parents"], is among the rows, that it stands among
    the rejects, or that it was merged.
    """
    incoming = Counter(iter(ids))
    out = Counter([row.id for row in result.rows] + [reject.id for reject in result.rejects] + result.merged)
    made_from = Counter(id for row in result.rows for id in {*row.meta.get("parents", ())} - {row.id})
    if lost := incoming - (out + made_from):
        raise AssertionError(f"{name}: {lost.total()} rows were lost, first {', '.join(list(lost)[:5])}")
    if twice := [id for id, number in incoming.items() if out[id] > number]:
        raise AssertionError(f"{name}: {len(twice)} rows came out more often than in, first {', '.join(twice[:5])}")


def counts_under(counts: Counter, name: str) -> Counter:
    """Returns what a row step counted under a name: {"solved": 3} of {("why", "solved"): 3, ...}."""
    return Counter({key[1]: number for key, number in counts.items() if key[0] == name})


def open_question(question: Question) -> Reject:
    """Returns the reject of an open question: without a key no step can tell a right answer."""
    where = question.meta.get("where", question.id)
    return Reject(question.id, where, "an open question", "no key to check an answer against")


def tidy(record):
    """Returns a copy of the record whose meta, trail and turns are its own, so that the step may change them."""
    meta = dict(record.meta)
    if "trail" in meta:
        meta["trail"] = list(meta["trail"])
    turns = {"turns": [dataclasses.replace(turn) for turn in record.turns]} if hasattr(record, "turns") else {}
    return dataclasses.replace(record, meta=meta, **turns)
