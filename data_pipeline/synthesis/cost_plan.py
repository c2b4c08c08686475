"""What a synthesis would ask and pay, before anything is: `python -m launch.data ... dry_run=true`.

*Expected* is what the steps ask as a rule, *at most* what they ask whatever the models write. Neither counts what is
asked again because no reply came: after a fault of the server, or an empty reply. Tokens are guessed from lengths. One
pass of reading gives the size of what comes in, and tells what cannot be read or split; no step is run.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.export import exportable_dialogues
from data_pipeline.export.selection import Selection, benchmarks_there
from data_pipeline.llm import Server
from data_pipeline.records import Dialogue, Passage, Post, Question, Reject
from data_pipeline.steps import Calls, Size, Step, StepSettings, find_step
from data_pipeline.synthesis.apply import check_chain
from data_pipeline.synthesis.configuration import Configuration, Source
from data_pipeline.synthesis.keys import prompt_bytes
from data_pipeline.synthesis.models import Models, base_settings, find_models
from data_pipeline.synthesis.run import none_usable, read_source
from data_pipeline.synthesis.splits import check_reach, count_reasons

BYTES_PER_TOKEN = 4  # as budgets count a prompt before it is sent
BYTES_PER_CHARACTER = 3  # of Chinese in UTF-8
BYTES_PER_ROW = 120  # of a row beside its texts: ids, where it stood, its trail; measured on posts
BYTES_PER_CALL = 500  # of a call in the ledger beside its reply; derived, of its columns


@dataclass(frozen=True)
class StepPlan:
    """Calls and tokens of one step, all 0 where it asks nobody; `cost`, of what is expected, is None without prices."""

    pipeline: str
    step: str
    expected: float = 0
    most: float = 0
    expected_tokens: float = 0  # prompts and replies
    most_tokens: float | None = 0  # None: a reply has no max_tokens
    cost: float | None = 0
    written: float = 0  # bytes of its rows and calls, as a rule


@dataclass(frozen=True)
class Incoming:
    """What a source holds; `size` is None while it is not there."""

    pipeline: str
    path: str
    size: Size | None = None
    rejects: Counter[str] = field(default_factory=Counter)
    first: str = ""  # where the first of these is, and why
    benchmark: Dialogue | None = None  # one of an evaluation set

    @property
    def line(self) -> str:
        if self.size is None:
            why = ": a dry run fetches nothing" if "://" in self.path else " is not there"
            return f"{self.pipeline}: rows unknown, {self.path}{why}"
        told = ", ".join(f"{n} x {code}" for code, n in self.rejects.most_common(5))
        rejected = f", {self.rejects.total():,} rejected ({told}; the first is {self.first})" if told else ""
        return f"{self.pipeline}: {self.size.rows:,.0f} rows, {self.size.chars:,.0f} characters{rejected}"


def notes(config: Configuration, asked: Selection, speed: tuple[float, str]) -> list[str]:
    """Returns what a dry run tells, its hours at `speed`, (tokens a second, whence).

    Raises BadInput for sources and benchmarks that cannot be read, settings that cannot be, and splits that cannot be
    reached.
    """
    said, _ = benchmarks_there(asked)
    entries = list(plan(config))
    sizes = {entry.pipeline: entry.size for entry in entries if isinstance(entry, Incoming)}
    held = [entry.benchmark for entry in entries if isinstance(entry, Incoming) and entry.benchmark]
    deque(exportable_dialogues(held, asked.train_on_benchmark), maxlen=0)
    rows = {name: round(size.rows) for name, size in sizes.items() if size}
    if config.steps is None and len(rows) == len(sizes):
        check_reach(asked, reach(config, rows), rows.get("questions", 0))
    return [*said, *lines(entries), *scale(entries, speed)]


def scale(entries: Iterable[StepPlan | Incoming], speed: tuple[float, str]) -> list[str]:
    """Returns what the whole takes of a machine: rows, calls, tokens, hours of a server at `speed`, disk; nothing where
    no row is known.
    """
    sizes = [entry.size for entry in entries if isinstance(entry, Incoming) and entry.size]
    steps, rate = [entry for entry in entries if isinstance(entry, StepPlan)], speed[0]
    if not sizes:
        return []
    tokens, disk = sum(step.expected_tokens for step in steps), [_bytes(size) for size in sizes]
    disk = (sum(disk) + sum(step.written for step in steps)) / 2**30
    return [
        f"scale: {sum(size.rows for size in sizes):,.0f} rows, {sum(step.expected for step in steps):,.0f} calls, "
        f"{tokens:,.0f} tokens: {tokens / rate / 3600:,.1f} GPU hours at {rate:,.0f} tokens/s a server ({speed[1]}); "
        f"{disk:,.2f} GiB of disk (docs/scale.md)"
    ]


def reach(config: Configuration, rows: Mapping[str, int]) -> dict[str, float]:
    """Returns how many rows come at most of each pipeline, whatever the models write."""
    found = {}
    for name, number in rows.items():
        size = Size(number)
        for step_name in config.active()[name]:
            step = find_step(step_name, f"pipelines.{name}")
            if step.calls is not None:
                size = step.calls(config.settings(step_name, step), size, len(config.selectors)).most_out
        found[name] = size.rows
    return found


def plan(config: Configuration) -> Iterator[StepPlan | Incoming]:
    """Yields, by pipeline, what comes in, then the plan of each wanted step; of a source that is not there only the
    former. Raises BadInput for a source that cannot be read and for settings of a step or server that cannot be.
    """
    base, wanted = base_settings(config), config.wanted()
    models = find_models(config, Path()) if base and "replies" not in base else None
    for name, source in config.sources().items():
        if not Path(source.path).exists():
            yield Incoming(name, source.path)
            continue
        incoming = measure(config, name, source)
        yield incoming
        assert incoming.size is not None  # it is there
        usual = most = incoming.size
        for step_name in config.active()[name]:
            step = find_step(step_name, f"pipelines.{name}")
            settings = config.settings(step_name, step)
            if step.calls is None:  # it asks nobody, and lets at most pass what comes in
                planned = StepPlan(name, step_name, written=_bytes(usual))
            else:
                servers = _servers(models, step_name, step)
                expected = step.calls(settings, usual, len(servers) or len(config.selectors))
                worst = step.calls(settings, most, len(config.selectors))
                planned = _planned(name, step_name, settings, expected, worst, servers)
                usual, most = expected.out, worst.most_out
            if step_name in wanted:
                yield planned


def _servers(models: Models | None, name: str, step: Step) -> list[Server]:
    """Returns the servers that the step asks: of selectors with the same model one, for equal requests are asked once;
    none where nobody is named yet or replies are recorded.
    """
    servers = models.servers(name, step).values() if models else ()
    return list({repr((server.model, server.extra_body)): server for server in servers if server}.values())


def measure(config: Configuration, pipeline: str, source: Source) -> Incoming:
    """Returns how much a pipeline's source holds, from one pass of reading; raises BadInput where nothing is usable,
    and where the pipeline's steps do not take such records.
    """
    rows = chars = turns = 0
    kind, rejects, benchmark = None, [], None
    for record in read_source(config, pipeline, source):
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        kind = kind or type(record)
        if isinstance(record, Dialogue) and record.meta.get("benchmark"):
            benchmark = benchmark or record
        rows += 1
        chars += sum(map(len, _texts(record)))
        turns += sum(turn.role == "counselor" for turn in record.turns) if isinstance(record, Dialogue) else 0
    codes = count_reasons(rejects)
    if kind is None:
        raise BadInput(none_usable(source.path, codes))
    check_chain(pipeline, config.active()[pipeline], kind)
    first = f"{rejects[0].where}: {rejects[0].reason}" if rejects else ""
    return Incoming(pipeline, source.path, Size(rows, chars, turns), codes, first, benchmark)


def _texts(record: Passage | Post | Question | Dialogue) -> list[str]:
    if isinstance(record, Passage):
        return [record.text]
    if isinstance(record, Post):
        return [record.title, record.text, *record.replies[:1]]
    if isinstance(record, Question):
        return [record.context, record.stem, *record.options]
    return [turn.content for turn in record.turns]


def _planned(
    pipeline: str, name: str, settings: StepSettings, usual: Calls, worst: Calls, servers: list[Server]
) -> StepPlan:
    params = getattr(settings, "params", {})
    limit = params.get("max_tokens") or params.get("max_completion_tokens")

    def prompt(calls: Calls) -> float:
        return (prompt_bytes(name) + calls.prompt_chars * BYTES_PER_CHARACTER) / BYTES_PER_TOKEN

    reply = usual.reply_chars * BYTES_PER_CHARACTER / BYTES_PER_TOKEN
    reply = min(reply, limit) if limit else reply
    asked, told = usual.expected * prompt(usual), usual.expected * reply
    most = worst.most * (prompt(worst) + 2 * limit) if limit else None  # a repair is shown the reply that it repairs
    costs = [server.cost(round(asked / len(servers)), round(told / len(servers))) for server in servers]
    cost = None if None in costs or not costs else sum(cost for cost in costs if cost)
    written = _bytes(usual.out) + usual.expected * BYTES_PER_CALL + told * BYTES_PER_TOKEN
    return StepPlan(pipeline, name, usual.expected, worst.most, asked + told, most, cost, written)


def _bytes(size: Size) -> float:
    return size.chars * BYTES_PER_CHARACTER + size.rows * BYTES_PER_ROW


def lines(plans: Iterable[StepPlan | Incoming]) -> list[str]:
    """Returns the plan in words: a line for each source and step, and the sum of the steps at the end."""
    told, steps, known = [], [], True
    for entry in plans:
        if isinstance(entry, Incoming):
            told.append(entry.line)
            known = known and entry.size is not None
        else:
            steps.append(entry)
            told.append(f"  {entry.step}: {_in_words(entry) if entry.most else 'asks nobody'}")
    if not steps:
        return told
    tokens, costs = ([getattr(step, name) for step in steps] for name in ("most_tokens", "cost"))
    whole = StepPlan(
        pipeline="",
        step="all steps" if known else "all steps whose rows are known",
        expected=sum(step.expected for step in steps),
        most=sum(step.most for step in steps),
        expected_tokens=sum(step.expected_tokens for step in steps),
        most_tokens=None if None in tokens else sum(tokens),
        cost=None if None in costs else sum(costs),
    )
    cost = "cost unknown without prices" if whole.cost is None else "in the currency of the prices"
    return [
        *told,
        f"{whole.step}: {_in_words(whole)}, {cost}",
        "what is in the ledger is free; what brings no reply is asked again on top, up to attempts= times",
    ]


def _in_words(plan: StepPlan) -> str:
    most = "unbounded without max_tokens" if plan.most_tokens is None else f"at most {plan.most_tokens:,.0f}"
    cost = "" if plan.cost is None else f", cost {plan.cost:,.4f}"
    return (
        f"expected {plan.expected:,.0f} calls, at most {plan.most:,.0f}; "
        f"expected {plan.expected_tokens:,.0f} tokens, {most}{cost}"
    )
