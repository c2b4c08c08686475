"""What a benchmark declares: what it asks, how it scores, what its report shows, and who judges.

A file `eval/benchmarks/NAME.py`, or `benchmark.py` in a folder `eval/benchmarks/NAME/` with its own prompts, holds
`BENCHMARK = Benchmark(...)`. No other code names it; a recipe puts it under `sets`. CONTRIBUTING.md shows one.
"""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import BadInput, check_options, did_you_mean
from data_pipeline.records import Dialogue, Question, Reject, Response
from eval import benchmarks
from eval.figures import Cell, SetMetrics
from eval.metrics import Score

if TYPE_CHECKING:
    from eval.judging.profiles import Sitting


@dataclass(slots=True)
class Item:
    """One thing that is asked: a question, or a dialogue that ends in the client's words."""

    record: Question | Dialogue
    cell: str  # the column of the published table: "case_single", "KG_multi", "QA_knowledge"...
    shots: tuple[Question, ...] = ()  # answered examples that stand before the question
    facts: Mapping[str, Any] = field(default_factory=dict)  # what its benchmark notes for itself

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def kind(self) -> str:
        """ "single", "multi", "open" or "dialogue": the first two have letters to read."""
        return self.record.kind if isinstance(self.record, Question) else "dialogue"

    @property
    def question(self) -> Question:
        if not isinstance(self.record, Question):
            raise TypeError(f"item {self.record.id} is a dialogue")
        return self.record

    @property
    def dialogue(self) -> Dialogue:
        if not isinstance(self.record, Dialogue):
            raise TypeError(f"item {self.record.id} is a question")
        return self.record

    @property
    def has_letters(self) -> bool:
        return self.kind in ("single", "multi")


@dataclass(slots=True)
class Loaded:
    items: list[Item]
    rejects: list[Reject]  # what cannot be asked or has no usable key
    notes: list[str]  # what a reader of the numbers has to know: what is missing, what fell back


@dataclass(frozen=True)
class Scoring:
    """How responses are read and intervals drawn."""

    elastic_rule: str = "subset"
    think_prefilled: bool = False  # the chat template has opened the thought
    resamples: int = 1000
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Vote:
    """What one judge said of one response, when it was asked one thing once."""

    judge: str
    repeat: int
    scores: dict[str, float | None]  # None: missing, or, where NAME_unsure is 1, the judge says that it cannot tell
    state: str  # "read", "unreadable", "refused" (by a filter), "failed" (no reply came)
    quotes: tuple[str, ...] = ()  # the words of the response that it names as evidence
    tokens: int = 0  # of prompts and replies, those that could not be read among them
    cost: float | None = None  # of these tokens; None without prices


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judges said of one response: each of its scores, None where it is missing."""

    scores: dict[str, float | None]
    failed: bool = False  # no reply came; it is asked again
    votes: tuple[Vote, ...] = ()  # of which the scores are made

    @property
    def missing(self) -> int:
        """How much is missing: votes, or without votes the judgement."""
        return sum(vote.state != "read" for vote in self.votes) if self.votes else int(None in self.scores.values())

    @property
    def lost(self) -> int:
        """How much of it because no reply came."""
        return sum(vote.state == "failed" for vote in self.votes) if self.votes else int(self.failed)


@dataclass(slots=True)
class Answered:
    """An item with its responses and what is known of each, in their order."""

    item: Item
    responses: list[Response]
    readings: list[Score]
    judgements: list[Judgement | None] | None  # None: of a response that is not judged; no list without a judge


@dataclass(frozen=True)
class Judge:
    """What a judge model is asked, in one call, of each response that has an answer part, and how its reply is read."""

    scores: tuple[str, ...]  # their names; a NAME_unsure that is 1 says that the judge cannot tell NAME
    messages: Callable[[Item, str], list[dict]]  # of an item and the answer part of a response to it
    read: Callable[[str], Mapping[str, float | None]]  # a reply; None: this score cannot be read
    wants: Callable[[Item], bool] = lambda item: not item.has_letters
    params: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 1024})
    quotes: Callable[[str], Sequence[str]] | None = None  # the words of the response that a readable reply names
    shape: type | None = None  # pydantic model of a JSON reply, for servers with `json_schema`


def judge_calls(benchmark: "Benchmark", item: Item) -> list[Judge]:
    """Returns what the judge is asked about a response to the item: one call, several, or none.

    Raises BadInput where two calls give one score.
    """
    declared = benchmark.judge
    calls = [declared] if isinstance(declared, Judge) else list(declared(item)) if declared else []
    calls = [call for call in calls if call.wants(item)]
    names = [name for call in calls for name in call.scores]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"benchmark {benchmark.name}: two calls of the judge give {twice}; each score is of one call")
    return calls


@dataclass(frozen=True)
class Published:
    """Published rows to stand beside ours: recipes/published/FILE, {"results": [{"model": ..., COLUMN: 0..100}]}."""

    file: str
    columns: Mapping[str, str]  # column -> its heading, as the paper prints it
    averages: Mapping[str, str]  # our own figure in [0, 1] -> its column; the first is drawn over model size
    warning: str = ""  # where ours are another quantity


@dataclass
class Figures:
    """What a benchmark adds to the common figures of a set."""

    own: dict[str, Any] = field(default_factory=dict)  # averages; `NAME_ci` the interval of NAME
    published_columns: dict[str, float | None] = field(default_factory=dict)  # 0..100
    notes: list[str] = field(default_factory=list)


@dataclass
class Table:
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def no_scores(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    """The `score` of a benchmark whose letters say all."""
    return [[{} for _ in one.responses] for one in answered]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a benchmark says of itself. `load`, `requests`, `score` and `tables` are all that most need."""

    load: Callable[..., Loaded]  # (path, **options)
    requests: Callable[[Item], list[dict]]  # the messages that ask an item, without anything of its key
    # The benchmark's own scores of every response, {} where there are none, None where one is missing: a list for each
    # item, in it a dict for each response. Letters are read, and accuracies counted, without it.
    score: Callable[[list[Answered], Scoring], list[list[dict[str, float | None]]]]
    tables: Callable[[dict[str, SetMetrics]], list[Table]]  # of {checkpoint: figures}; the first is printed
    figures: Callable[[list[Answered], dict[str, Cell], Scoring], Figures] | None = None
    cells: Mapping[str, int | None] = field(default_factory=dict)  # always shown, with the items of the full release
    published: Published | None = None
    judge: Judge | Callable[[Item], Sequence[Judge]] | None = None  # one call; or, by item, several
    # Of an item that is a session: the simulated client that the model talks with, in place of one reply. `requests`
    # then give what opens it, the client's first words last; a response is a transcript (eval/judging/transcripts.py).
    session: Callable[[Item], "Sitting"] | None = None
    shown: Callable[[str], str] = str  # an answer part as people read it, and as a judge may quote it
    unjudged: str = ""  # what is said of responses that no judge has seen
    submission: Callable[[list[Answered]], dict | None] | None = None  # for the site that holds withheld answers
    about: str = ""  # of the released data: where it is, its licence and size; a dry run says it
    reads_own_files: bool = False  # what sets.NAME.file= means
    name: str = ""  # its file's


def benchmark_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]


def find_benchmark(name: str, where: str) -> Benchmark:
    """Returns what eval/benchmarks/NAME declares; raises BadInput, opening with `where`, without one."""
    if name not in benchmark_names():
        names = [n for n in benchmark_names() if not getattr(_declared(n), "reads_own_files", False)]
        raise BadInput(f"{where}={name}: there is {', '.join(names)}{did_you_mean(name, names)}")
    declared = _declared(name)
    if not isinstance(declared, Benchmark):
        raise BadInput(
            f"{_file(name)} declares no BENCHMARK = Benchmark(load=..., requests=..., score=..., tables=...); "
            "CONTRIBUTING.md shows one"
        )
    return replace(declared, name=name)


def benchmark_of_files() -> Benchmark:
    """Returns the benchmark of a run's own files of questions."""
    (name,) = (name for name in benchmark_names() if getattr(_declared(name), "reads_own_files", False))
    return find_benchmark(name, "file")


def load_items(benchmark: Benchmark, path: Path, options: Mapping[str, Any], where: str) -> Loaded:
    """Returns what the benchmark loads; raises BadInput, opening with `where`, for options that it does not take."""
    check_options(benchmark.load, path, options, f"{where}.options", f" ({_file(benchmark.name)})")
    loaded = benchmark.load(path, **options)
    if not isinstance(loaded, Loaded):
        raise BadInput(f"{_file(benchmark.name)}: load gave {type(loaded).__name__}; it gives Loaded(items, ...)")
    if not loaded.items:
        why = f"; all {len(loaded.rejects)} are left out, first {loaded.rejects[0].reason}" if loaded.rejects else ""
        raise BadInput(f"{where}: {path} holds no item to ask{why}")
    if twice := [id for id, number in Counter(item.id for item in loaded.items).items() if number > 1]:
        raise BadInput(f"{where}: {path}: {len(twice)} ids stand more than once, first {twice[0]}; make them unique")
    return loaded


def own_scores(benchmark: Benchmark, answered: list[Answered], scoring: Scoring) -> list[list[dict]]:
    """Returns the benchmark's own scores; raises BadInput unless there is a dict for every response of every item."""
    scores = benchmark.score(answered, scoring)
    cure = f"score in {_file(benchmark.name)} gives a list for each item, in it a dict for each response, {{}} for none"
    if len(scores) != len(answered):
        raise BadInput(f"benchmark {benchmark.name}: {len(scores)} scores for {len(answered)} items; {cure}")
    for one, given in zip(answered, scores, strict=True):
        if len(given) != len(one.responses):
            raise BadInput(
                f"benchmark {benchmark.name}: {len(given)} scores for the {len(one.responses)} responses to "
                f"{one.item.id}; {cure}"
            )
    return scores


def _is_folder(name: str) -> bool:
    return any((Path(folder) / name).is_dir() for folder in benchmarks.__path__)


def _file(name: str) -> str:
    return f"eval/benchmarks/{name}/benchmark.py" if _is_folder(name) else f"eval/benchmarks/{name}.py"


def _declared(name: str) -> object:
    module = f"eval.benchmarks.{name}" + (".benchmark" if _is_folder(name) else "")
    try:
        return getattr(importlib.import_module(module), "BENCHMARK", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None  # a folder without benchmark.py
    except TypeError as error:  # Benchmark() says which part it lacks
        raise BadInput(f"{_file(name)}: {error}; CONTRIBUTING.md shows one") from error
