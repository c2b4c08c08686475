"""PsyLLM's evaluation (arXiv 2505.15715), as far as it is known: the four dimensions of CPsyCounE, turn by turn.

The authors say that it follows CPsyCoun's notebook; judge, prompts, number of dialogues and table are unpublished.
Here: OpenR1-Psy's test dialogues, or CPsyCounE's, the gold history before each client turn, and per dimension the
rubric of `cpsycoune`. All of it is ours but the names of the dimensions."""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import render
from data_pipeline.records import Dialogue, Reject
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring
from eval.judging.turns import client_turns, history, messages

RUBRICS = Path(__file__).parent.parent / "cpsycoune"
READERS = {"openr1_psy": {"split": "test"}, "cpsycoun": {}}
OURS = (
    "PsyLLM's judge, prompts, number of dialogues and results are unpublished: rubric, prompts and choice of turns are "
    "ours, and nothing published can stand beside"
)


def load(path: str | Path, source: str = "openr1_psy", language: str = "en") -> Loaded:
    """Returns an item for each client turn that the dialogues answer, in order.

    `source` is openr1_psy, whose test split is read, or cpsycoun. `language` is that of the prompts, en or zh. Raises
    BadInput for another one.
    """
    rubric.check_language(language)
    if source not in READERS:
        raise BadInput(f"options.source={source}: there is {', '.join(READERS)}{did_you_mean(source, READERS)}")
    records = list(sources.read(source, path, **READERS[source]))
    rejects = [r for r in records if isinstance(r, Reject)]
    items = [
        Item(part, "replies", facts={"language": language})
        for record in records
        if isinstance(record, Dialogue)
        for part, gold in client_turns(record)
        if gold
    ]
    notes = [f"{len(rejects)} dialogues are left out, first {rejects[0].reason}"] if rejects else []
    return Loaded(items, rejects, [OURS, *notes])


def requests(item: Item) -> list[dict]:
    system = {"role": "system", "content": render(f"chat_psyllm.{item.facts['language']}")}
    return [system, *messages([turn for turn in item.dialogue.turns if turn.role != "system"])]


def _rubric(item: Item) -> rubric.Rubric:
    return rubric.read_rubric(RUBRICS / f"rubric.{item.facts['language']}.yaml")


def judge(item: Item) -> Sequence[Judge]:
    return rubric.calls(_rubric(item), lambda item: {"history": history(item)})


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [rubric.scores(_rubric(one.item), one) for one in answered]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=rubric.report_tables,
    judge=judge,
    about="OpenR1-Psy test (hub: GMLHUHE/OpenR1-Psy, about 443 dialogues, see its card for the licence) or CPsyCounE",
)
