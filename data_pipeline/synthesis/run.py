"""Data synthesis inside the data stage: the steps of the papers in order (`pipelines`), each in a folder of its own.

Passages become questions, posts and existing dialogues become dialogues. runs/NAME/data/steps/PIPELINE/N_STEP/ holds
rows.jsonl, rejects.jsonl, report.json, what else the step tells, and step.json: counts, and the hash of all that went
in (`keys.py`). A step whose hash is the same is not run again; calls are in runs/NAME/data/ledger.sqlite, so that none
is paid for twice. Rows go from file to file: a row step holds a window of them in memory, a set step what it compares.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_pipeline import sources
from data_pipeline.counts import StepCounts
from data_pipeline.errors import BadInput
from data_pipeline.records import (
    Dialogue,
    Passage,
    Post,
    Question,
    RecordFile,
    Reject,
    read_lines,
    read_records,
)
from data_pipeline.steps import Outcome, Step, find_step
from data_pipeline.synthesis.apply import (
    Bound,
    Executor,
    OneMachine,
    check_chain,
    in_rounds,
    on_its_way,
    what_became,
)
from data_pipeline.synthesis.configuration import READS, Configuration, Source
from data_pipeline.synthesis.files import StepFiles, Writer, step_folders
from data_pipeline.synthesis.keys import code_hash, step_key
from data_pipeline.synthesis.models import Models, find_models
from data_pipeline.synthesis.progress import Following
from data_pipeline.synthesis.splits import count_reasons

PIECE = 2000  # rows that are asked about together where replies are recorded, or a budget is spent in order
KINDS = {"passages": Passage, "posts": Post, "questions": Question, "dialogues": Dialogue}


@dataclass
class Synthesised:
    """What synthesis gives the data stage; `finished` is False when `steps=` named a part only."""

    questions: list[Question] = field(default_factory=list)
    dialogues: list[Dialogue] = field(default_factory=list)
    counts: dict[str, StepCounts] = field(default_factory=dict)  # {"questions/1_clean": ...}
    finished: bool = True

    @property
    def failed(self) -> dict[str, int]:
        """Returns {step: requests that brought no reply, and may bring one when they are asked again}."""
        return {name: counts.failed for name, counts in self.counts.items() if counts.failed}


def run(
    config: Configuration,
    folder: Path,
    say: Callable[[str], None],
    before_asking: Callable[[dict[str, int]], None] = lambda rows: None,
    executor: Executor | None = None,
) -> Synthesised:
    """Runs what is not done yet and tells `say` of each step; `before_asking` is given the number of rows of each
    pipeline when all sources have been read, and nobody has been asked. `executor` applies the steps that ask nobody;
    the others ask from this process, which alone writes the ledger.

    Raises BadInput for settings and sources, BudgetSpent when the budget is spent, and what `before_asking` raises.
    """
    models = find_models(config, config.ledger_at(folder))
    for name in config.wanted():
        code_hash(f"data_pipeline.steps.{name}")  # as it is now: people edit files while this runs
    result, found = Synthesised(finished=config.steps is None), config.sources()
    pipelines = [
        _Pipeline(name, in_order, config, folder / "steps" / name, models, say, executor or OneMachine())
        for name, in_order in config.active().items()
    ]
    for pipeline in pipelines:
        pipeline.read(found[pipeline.name])
    before_asking({pipeline.name: pipeline.counts[f"{pipeline.name}/0_read"].out for pipeline in pipelines})
    for pipeline in pipelines:
        for row in pipeline.run():
            if isinstance(row, Question):
                result.questions.append(row)
            else:
                result.dialogues.append(row)
        result.counts |= pipeline.counts
    return result


def read_source(config: Configuration, pipeline: str, source: Source) -> Iterator:
    """Yields the records and Rejects of a pipeline's source, at most `limit` records."""
    read = sources.read(source.source, source.path, f"{READS[pipeline]}.source", **source.options)
    taken = 0
    for record in read:
        if not isinstance(record, Reject):
            if taken == config.limit:
                return
            taken += 1
        yield record


def none_usable(path: str, codes: Counter[str], where: str = "") -> str:
    """Returns what is said of a source in which only rejects are, or nothing."""
    why = ", ".join(f"{n} x {code}" for code, n in codes.most_common(5))
    return f"{path}: no usable record in it" + (f" of {codes.total()} ({why}){where}" if why else "")


@dataclass
class _Pipeline:
    name: str
    in_order: list[str]
    config: Configuration
    folder: Path
    models: Models
    say: Callable[[str], None]
    executor: Executor
    counts: dict[str, StepCounts] = field(default_factory=dict)
    latest: dict[str, Path] = field(default_factory=dict)  # {"passages": file} of each kind that came so far
    kind: type | None = None  # of the source's records

    def run(self) -> Iterator:
        """Yields the rows after the last step, when they are questions or dialogues; runs what is not done.

        A step in which requests failed is not done: run again, it takes from the ledger what was answered.
        """
        assert self.kind is not None  # the source has been read
        kind, rows = self.kind, StepFiles(self.folder / "0_read").rows
        wanted, ran = self.config.wanted(), 0  # ran: steps that a chain has just run along with its first
        for number, name in enumerate(self.in_order, 1):
            files, key = StepFiles(self.folder / f"{number}_{name}"), self.key(number, rows)
            state = files.state()
            if ran == 0 and (state is None or state.key != key or state.counts.failed):
                if name not in wanted:
                    if any(later in wanted for later in self.in_order[number:]):
                        raise BadInput(f"steps: {self.name} need {name} before; add it to steps=")
                    return
                ran = self.run_from(number, kind, rows, key)
            ran -= ran > 0
            kind, rows = self.step(number).makes or kind, files.rows
            self.latest[_plural(kind)] = rows
            state = files.state()
            assert state is not None  # it has just been finished, or was before
            self.counts[f"{self.name}/{number}_{name}"] = state.counts
        if kind in (Question, Dialogue):
            yield from read_records(rows, kind)

    def step(self, number: int) -> Step:
        return find_step(self.in_order[number - 1], f"pipelines.{self.name}")

    def key(self, number: int, rows: Path) -> str:
        """Returns the hash of all that the step's output for the records of a file depends on."""
        name, step = self.in_order[number - 1], self.step(number)
        asked = self.models.described(name, step) if step.asks else None
        tables = [self.latest[need] for need in step.needs if need in self.latest]
        return step_key(name, step, self.config.settings(name, step), [rows, *tables], asked)

    def read(self, source: Source) -> None:
        """Writes the source's records and rejects; raises BadInput without any record, and for steps that cannot take
        what comes to them.
        """
        files, kind = StepFiles(self.folder / "0_read"), None
        with files.writing() as out:
            for record in read_source(self.config, self.name, source):
                if isinstance(record, Reject):
                    out.reject(record)
                else:
                    kind = kind or type(record)
                    out.row(record)
        if kind is None:
            rejects = files.place / "rejects.jsonl"
            raise BadInput(none_usable(source.path, count_reasons(read_records(rejects, Reject)), f"; see {rejects}"))
        self.latest[_plural(kind)], self.kind = files.rows, kind
        counts = StepCounts(into=out.out + out.rejected, out=out.out, rejected=out.rejected)
        self.counts[f"{self.name}/0_read"] = counts
        check_chain(self.name, self.in_order, kind)

    def bind(self, number: int) -> Bound:
        """Returns the step with its settings and what it needs."""
        name, step = self.in_order[number - 1], self.step(number)
        return Bound(name, step, self.config.settings(name, step), {need: self.table(need) for need in step.needs})

    def table(self, need: str) -> Mapping[str, Any]:
        if need not in self.latest:
            return {}
        return {row.id: row for row in read_records(self.latest[need], KINDS[need])}

    def run_from(self, number: int, kind: type, rows: Path, key: str) -> int:
        """Runs a step of this key, and those behind it that each row can go ahead to by itself; returns how many."""
        chain = [self.bind(number)]
        ahead = chain[0].step.asks and self.models.recorded is None and self.config.budget is None
        for name in self.in_order[number:] if ahead else ():
            step = self.step(number + len(chain))
            if not step.asks or step.needs or name not in self.config.wanted():
                break
            chain.append(self.bind(number + len(chain)))
        files = [StepFiles(self.folder / f"{number + n}_{bound.name}") for n, bound in enumerate(chain)]
        for one in files:
            one.remove()
        started, failed = time.monotonic(), self.models.failed.copy()
        with ExitStack() as stack:
            outs = [stack.enter_context(one.writing(bound.step.files)) for one, bound in zip(files, chain, strict=True)]
            reports = self.apply(chain, kind, rows, outs, key)
        for n, (bound, one, out, report) in enumerate(zip(chain, files, outs, reports, strict=True)):
            if bound.step.sheets:
                bound.step.sheets(one.place)
            key, settings = self.key(number + n, rows) if n else key, bound.settings.model_dump(mode="json")
            counts = out.counted(time.monotonic() - started, self.models.failed[bound.name] - failed[bound.name])
            one.finish(key, counts, report, settings)
            self.executor.finished(key)
            self.say(f"{self.name}: {bound.name}: {_told(counts)}")
            rows = one.rows
        return len(chain)

    def apply(self, chain: list[Bound], kind: type, rows: Path, outs: list[Writer], key: str) -> list[dict]:
        """Applies the steps to the records of a file and writes what comes of them; returns the steps' reports."""
        first, step = chain[0], chain[0].step
        if step.rows is not None:
            return [self.select(first, kind, rows, outs[0], key)]
        records = read_records(rows, kind)
        if len(chain) > 1:
            asyncio.run(self.ahead(chain, records, outs))
        elif step.asks:
            ask = self.models.ask_all(first.name, step)
            assert ask is not None  # the step asks
            while piece := list(islice(records, PIECE)):
                for outcome in in_rounds(first, piece, ask):
                    _write([outcome], outs)
        else:
            for number, outcome in self.executor.lines(first, kind, rows, key):
                outs[0].into += number
                outs[0].outcome(outcome)
        return [
            bound.step.report(out.tally, bound.settings)  # pyright: ignore[reportOptionalCall]  (a row step has one)
            for bound, out in zip(chain, outs, strict=True)
        ]

    def select(self, bound: Bound, kind: type, rows: Path, out: Writer, key: str) -> dict:
        """Writes what a set step makes of a file's records, lines that it leaves as they were; returns its report."""
        with RecordFile(rows, kind) as records:
            outcome = self.executor.select(bound, records, key)
            out.into = len(records)
            became = what_became(bound.name, len(records), outcome)
            for (_, line), (what, new) in zip(read_lines(rows), became, strict=True):
                if what == "merged":
                    out.merged += 1
                elif what == "rejected":
                    out.reject(new)
                else:
                    out.row(line if what == "same" else new)
            for name, table in outcome.files.items():
                out.table(name, table)
        if outcome.told:
            self.say(outcome.told)
        return outcome.report

    async def ahead(self, chain: list[Bound], records: Iterator, outs: list[Writer]) -> None:
        """Takes each row through the chain by itself; shows its progress."""
        title = f"{self.name}: {chain[0].name} to {chain[-1].name}"
        at_work = max(self.models.concurrency(bound.name, bound.step) for bound in chain)
        total = next(reversed(self.counts.values())).out
        with Following(title, total, self.folder / "progress.json") as following:
            try:
                async with AsyncExitStack() as stack:
                    asks = await self.models.connected(stack, chain, following.rates.watch)
                    async for outcomes in on_its_way(list(zip(chain, asks, strict=True)), records, at_work):
                        _write(outcomes, outs)
                        following.advance()
            except BadInput as error:
                raise BadInput(f"{title}: {error}") from None


def _write(outcomes: list[Outcome], outs: list[Writer]) -> None:
    """Writes what became of one row in the steps of a chain."""
    incoming = 1
    for outcome, out in zip(outcomes, outs, strict=False):
        out.into += incoming
        out.outcome(outcome)
        incoming = len(outcome.rows)


def done_steps(folder: Path) -> dict[str, StepCounts]:
    """Returns the counts of the steps that have been run, {"questions/1_clean": ...}, in their order."""
    states = {place: StepFiles(place).state() for place in step_folders(folder)}
    return {f"{place.parent.name}/{place.name}": state.counts for place, state in states.items() if state}


def _plural(kind: type) -> str:
    return f"{kind.__name__.lower()}s"


def _told(counts: StepCounts) -> str:
    parts = [f"{counts.into} in", f"{counts.out} out", f"{counts.rejected} rejected"]
    parts += [f"{counts.merged} merged"] if counts.merged else []
    parts += [f"{counts.failed} requests failed"] if counts.failed else []
    return ", ".join(parts) + f" ({counts.seconds} s)"
