"""Applies row steps to rows: step by step with all rows of one moment asked together, or each row on its own way.

`in_rounds` needs no event loop: it asks what all rows wait for in one call, in their order (recorded replies, a budget
that is spent in the order of the steps). `on_its_way` takes each row through several steps by itself, so that it waits
for no other row: a step over all rows ends with its slowest row, and those ends are most of the time
(`tests/benchmarks/dialogue.py`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.errors import BadInput
from data_pipeline.parallel import in_processes
from data_pipeline.records import Ask, RecordFile, Request, Response, line_of, parse_record, read_lines
from data_pipeline.steps import Outcome, Result, SetOutcome, Step, StepSettings, check_balance, find_step

WINDOW = 4  # rows held for each that is on its way
AskAll = Callable[[list[Request]], list[Response]]  # blocks until all are answered


@dataclass(frozen=True)
class Bound:
    """A step with all that it is given but its rows and whom it asks."""

    name: str
    step: Step
    settings: StepSettings
    tables: Mapping[str, Mapping[str, Any]]  # {"passages": {id: record}} of what it needs

    def outcome(self, record: Any, ask: Any = None) -> Any:
        """Returns the Outcome of one row; where the step asks, the coroutine that comes to it."""
        assert self.step.row is not None  # a row step
        given = (record, self.settings, ask) if self.step.asks else (record, self.settings)
        return self.step.row(*given, **self.tables)

    def outcomes(self, records: list) -> list[Outcome]:
        """Returns the Outcome of each row, of a step that asks nobody."""
        return self.step.many(records, self.settings) if self.step.many else [self.outcome(one) for one in records]


class Executor(Protocol):
    """Where steps that ask nobody are applied; `key` is the step's own, by which finished pieces are found again."""

    def lines(self, bound: Bound, kind: type, path: Path, key: str) -> Iterator[tuple[int, Outcome]]:
        """Yields (number of rows, their outcome, its rows as lines) of pieces of a file of records, in order."""
        ...

    def select(self, bound: Bound, rows: RecordFile, key: str) -> SetOutcome:
        """Returns what a set step makes of all rows."""
        ...

    def finished(self, key: str) -> None:
        """Is told that what came of the step is written and its pieces are no longer needed."""


class OneMachine:
    """The processes of this machine."""

    def lines(self, bound: Bound, kind: type, path: Path, key: str) -> Iterator[tuple[int, Outcome]]:
        return lines_on_all_cores(bound, kind, path)

    def select(self, bound: Bound, rows: RecordFile, key: str) -> SetOutcome:
        assert bound.step.rows is not None  # a set step
        return bound.step.rows(rows, bound.settings)

    def finished(self, key: str) -> None:
        pass


def check(bound: Bound, record: Any, outcome: Outcome) -> Outcome:
    """Returns the outcome; raises AssertionError unless the row went on or was rejected, and not both."""
    rejected = any(reject.id == record.id for reject in outcome.rejects)
    if rejected == bool(outcome.rows):
        what = "was lost" if not rejected else "goes on and is rejected too"
        raise AssertionError(f"{bound.name}: row {record.id!r} {what}")
    return outcome


def run(name: str, records: Sequence, settings: Any = None, ask: Any = None, **tables: Iterable) -> Result:
    """Returns what a step makes of all `records`, in memory: for notebooks and tests; `run.py` streams the same.

    `settings` are the step's own, its defaults without; `ask` answers a list of requests (for selectors, {name: ask}),
    `tables` are the records that the step needs. Raises BadInput for records of a kind that the step does not take.
    """
    step = find_step(name, "step")
    settings = settings or step.settings()
    check_kinds(name, step, records)
    if step.rows is not None:
        result = selected(name, records, step.rows(records, settings))
        check_balance(name, [record.id for record in records], result)
        return result
    needed = {need: {record.id: record for record in tables.get(need, ())} for need in step.needs}
    bound = Bound(name, step, settings, needed)
    if step.asks:
        whole = merged(in_rounds(bound, records, ask))
    else:
        whole = merged(on_all_cores(bound, records))
    files = {name: whole.files.get(name, []) for name in (*step.files, *whole.files)}
    assert step.report is not None  # a row step
    return Result(whole.rows, whole.rejects, step.report(whole.counts, settings), files)


def kinds(step: Step) -> str:
    """Returns what the step takes, in words: "posts, passages and dialogues"."""
    *first, last = (f"{kind.__name__.lower()}s" for kind in step.takes)
    return f"{', '.join(first)} and {last}" if first else last


def check_kinds(name: str, step: Step, records: Iterable) -> None:
    """Raises BadInput for a record that the step does not take."""
    for number, record in enumerate(records, 1):
        if not isinstance(record, step.takes):
            raise BadInput(f"{name}: row {number} is a {type(record).__name__}; it takes {kinds(step)}")


def check_chain(pipeline: str, steps: Sequence[str], kind: type) -> None:
    """Raises BadInput for a step of the pipeline that does not take what the steps before make of such records."""
    for name in steps:
        step = find_step(name, f"pipelines.{pipeline}")
        if not issubclass(kind, step.takes):
            raise BadInput(f"pipelines.{pipeline}: {name} takes {kinds(step)}, not {kind.__name__.lower()}s")
        kind = step.makes or kind


# --- without asking ---------------------------------------------------------------------------------------------------


def on_all_cores(bound: Bound, records: Iterable) -> Iterator[Outcome]:
    """Yields the outcomes of pieces of the records, in order, of a step that asks nobody."""
    given = bound.name, bound.settings, dict(bound.tables)
    for piece, outcome in in_processes(partial(_of_records, *given), records):
        outcome.rows = [piece[row] if type(row) is int else row for row in outcome.rows]
        yield outcome


def lines_on_all_cores(bound: Bound, kind: type, path: Path) -> Iterator[tuple[int, Outcome]]:
    """Yields (number of rows, their outcome) of pieces of a file of records, in order, of a step that asks nobody.

    The outcome's rows are lines: records are parsed and written where the step runs.
    """
    given = bound.name, bound.settings, dict(bound.tables), kind, path
    for piece, outcome in in_processes(partial(of_lines, *given), read_lines(path)):
        outcome.rows = [piece[row][1] if type(row) is int else row for row in outcome.rows]
        yield len(piece), outcome


def _of_records(name: str, settings: StepSettings, tables: dict, records: list) -> Outcome:
    """Returns the outcome of a piece; a row that came out as it went in is its place in the piece, which is there."""
    bound = Bound(name, find_step(name, "step"), settings, tables)
    parts = bound.outcomes(records)
    for place, (record, part) in enumerate(zip(records, parts, strict=True)):
        check(bound, record, part).rows = [place if row == record else row for row in part.rows]
    return merged(parts)


def of_lines(name: str, settings: StepSettings, tables: dict, kind: type, path: Path, lines: list) -> Outcome:
    """Returns the outcome of some (number, line) of a file; of a row that came out as it went in its place in them."""
    bound = Bound(name, find_step(name, "step"), settings, tables)
    records = [parse_record(kind, path, number, line) for number, line in lines]
    parts = bound.outcomes(records)
    for place, (record, part) in enumerate(zip(records, parts, strict=True)):
        written = map(line_of, check(bound, record, part).rows)
        part.rows = [place if line == lines[place][1] else line for line in written]
    return merged(parts)


# --- all at once ------------------------------------------------------------------------------------------------------


def what_became(name: str, total: int, outcome: SetOutcome) -> Iterator[tuple[str, Any]]:
    """Yields, for each of `total` rows, what became of it in a set step: ("merged", None), ("rejected", Reject),
    ("changed", record) or ("same", None). Raises AssertionError unless each is at most one of these.
    """
    changes = iter(outcome.changed)
    at, record = next(changes, (total, None))
    for place in range(total):
        became = [("merged", None)] if place in outcome.merged else []
        became += [("rejected", outcome.rejects[place])] if place in outcome.rejects else []
        if place == at:
            became.append(("changed", record))
            at, record = next(changes, (total, None))
        if len(became) > 1:
            raise AssertionError(f"{name}: the row at place {place} was {' and '.join(what for what, _ in became)}")
        yield became[0] if became else ("same", None)
    if at != total:
        raise AssertionError(f"{name}: a changed row at place {at}, of {total} or behind a later one")


def selected(name: str, records: Sequence, outcome: SetOutcome) -> Result:
    """Returns the outcome of a set step with its rows."""
    result = Result([], report=outcome.report)
    for given, (what, new) in zip(records, what_became(name, len(records), outcome), strict=True):
        if what == "merged":
            result.merged.append(given.id)
        elif what == "rejected":
            result.rejects.append(new)
        else:
            result.rows.append(new if what == "changed" else given)
    result.files = {table: list(rows) for table, rows in outcome.files.items()}
    return result


# --- in rounds --------------------------------------------------------------------------------------------------------


class _Asked:
    """Awaited by a step, it hands its requests to `in_rounds`, which drives the step by hand."""

    def __init__(self, ask_all: AskAll, requests: list[Request]) -> None:
        self.ask_all, self.requests = ask_all, requests

    def __await__(self) -> Generator["_Asked", list[Response], list[Response]]:
        return (yield self)


def by_hand(ask_all: AskAll) -> Ask:
    """Returns the `ask` that a step gets under `in_rounds`."""

    async def ask(requests: list[Request]) -> list[Response]:
        return await _Asked(ask_all, requests) if requests else []

    return ask


def in_rounds(bound: Bound, records: Sequence, ask: AskAll | Mapping[str, AskAll]) -> list[Outcome]:
    """Returns the outcome of every row, in order. Raises what `ask` raises, and AssertionError for a lost row."""
    asks = {name: by_hand(one) for name, one in ask.items()} if isinstance(ask, Mapping) else by_hand(ask)
    running = [bound.outcome(record, asks) for record in records]
    outcomes: dict[int, Outcome] = {}
    answers: dict[int, list[Response] | None] = dict.fromkeys(range(len(running)))
    try:
        while answers:
            waiting: dict[int, _Asked] = {}
            for place, given in answers.items():
                try:
                    waiting[place] = running[place].send(given)
                except StopIteration as end:
                    outcomes[place] = check(bound, records[place], end.value)
            answers = _answers(waiting)
    finally:
        for coroutine in running:
            coroutine.close()
    return [outcomes[place] for place in range(len(running))]


def _answers(waiting: dict[int, _Asked]) -> dict[int, list[Response] | None]:
    """Returns what each waiting row gets; those that ask the same model are asked together."""
    together: dict[AskAll, list[int]] = {}
    for place, asked in waiting.items():
        together.setdefault(asked.ask_all, []).append(place)
    answers = {}
    for ask_all, places in together.items():
        replies = iter(ask_all([request for place in places for request in waiting[place].requests]))
        for place in places:
            answers[place] = [next(replies) for _ in waiting[place].requests]
    return {place: answers[place] for place in waiting}


# --- each on its way --------------------------------------------------------------------------------------------------


async def on_its_way(
    chain: Sequence[tuple[Bound, Ask | Mapping[str, Ask]]], records: Iterable, at_work: int
) -> AsyncIterator[list[Outcome]]:
    """Yields, for each record in order, its outcomes in the steps of the chain, as far as it came.

    A step to which several rows come of one record gives one Outcome for all of them. `at_work` records are on their
    way at once; WINDOW times as many are held, with those that wait for an earlier one. Raises at once what a step or
    its `ask` raises.
    """
    slots = asyncio.Semaphore(at_work)

    async def flow(record: Any) -> list[Outcome]:
        async with slots:
            return await through(record)

    async def through(record: Any) -> list[Outcome]:
        alive, outcomes = [record], []
        for bound, ask in chain:
            if not alive:
                break
            parts = await asyncio.gather(*(bound.outcome(one, ask) for one in alive))
            outcomes.append(merged(check(bound, one, part) for one, part in zip(alive, parts, strict=True)))
            alive = outcomes[-1].rows
        return outcomes

    pending: deque[asyncio.Task] = deque()
    failed = asyncio.get_running_loop().create_future()

    def look(task: asyncio.Task) -> None:
        if not task.cancelled() and task.exception() and not failed.done():
            failed.set_result(task)

    async def first() -> list[Outcome]:
        await asyncio.wait({pending[0], failed}, return_when=asyncio.FIRST_COMPLETED)
        return await (failed.result() if failed.done() else pending.popleft())

    try:
        for record in records:
            pending.append(asyncio.create_task(flow(record)))
            pending[-1].add_done_callback(look)
            await asyncio.sleep(0)  # the tasks go on while this reads
            while len(pending) >= WINDOW * at_work or (pending and pending[0].done()):
                yield await first()
        while pending:
            yield await first()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def merged(outcomes: Iterable[Outcome]) -> Outcome:
    """Returns the outcomes of several rows as one."""
    whole = Outcome()
    for part in outcomes:
        whole.rows += part.rows
        whole.rejects += part.rejects
        for key, number in part.counts.items():  # Counter.update takes ten times as long for a few keys
            whole.counts[key] += number
        for name, table in part.files.items():
            whole.files.setdefault(name, []).extend(table)
    return whole
