"""Any dialogues or utterances by any rubric in YAML (`rubric.py` beside): one call of the judge a dimension.

PsyCrisis-Bench's five items (arXiv 2508.08236) are a rubric here, `psycrisis`: single utterances of people in crisis,
0 or 1 each, their sum made here and not by the judge. Its released script asks for all five in one call at temperature
0.7 and stores what comes unread; wording and anchors are ours.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import Dialogue, Post, Reject, Turn
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring
from eval.judging.turns import client_turns, history, messages

RUBRICS = Path(__file__).parent / "rubrics"


def load(
    path: str | Path,
    rubric: str = "psycrisis",
    source: str = "messages",
    turns: str = "last",
    columns: dict | None = None,
) -> Loaded:
    """Returns the items of any table of dialogues or utterances, in order.

    `rubric` is the name of one in eval/benchmarks/rubric/rubrics, or the path of a YAML file. `source` is the reader:
    messages and the others of dialogues, or posts, each of which is one utterance. `turns` is last, the client's last
    turn alone, or all. `columns` maps those of posts, {text: 正文}; null takes title and text. Raises BadInput for a
    rubric that there is not, and for records of another kind.
    """
    place = _place(rubric)
    found = _read(place)
    if turns not in ("last", "all"):
        raise BadInput(f"options.turns={turns}: there is last, all")
    items, rejects = [], []
    for record in sources.read(source, path, **({"columns": columns} if columns else {})):
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        if isinstance(record, Post):
            parts = [Dialogue(record.id, record.source, [Turn("client", record.text)], record.meta)]
        elif isinstance(record, Dialogue):
            parts = [part for part, _ in client_turns(record)]
        else:
            raise BadInput(f"options.source={source}: reads {type(record).__name__}, not dialogues or posts")
        items += [Item(part, "replies", facts={"rubric": place}) for part in (parts if turns == "all" else parts[-1:])]
    notes = [f"rubric {found.title}: {found.source}"]
    notes += [f"{len(rejects)} records are left out, first {rejects[0].reason}"] if rejects else []
    return Loaded(items, rejects, notes)


def _place(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    names = sorted(file.stem for file in RUBRICS.glob("*.yaml"))
    if name not in names:
        raise BadInput(f"options.rubric={name}: there is {', '.join(names)}, or a .yaml{did_you_mean(name, names)}")
    return RUBRICS / f"{name}.yaml"


_read = rubric.read_rubric  # by another name, since an option of `load` is called as the module


def requests(item: Item) -> list[dict]:
    return messages(item.dialogue.turns)


def judge(item: Item) -> Sequence[Judge]:
    return rubric.calls(_read(item.facts["rubric"]), lambda item: {"history": history(item)})


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [rubric.scores(_read(one.item.facts["rubric"]), one) for one in answered]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=rubric.report_tables,
    judge=judge,
    about="your own files; of PsyCrisis-Bench (mental-health-llm-safety-eval/psycrisis-bench): CC BY-NC 4.0, 608 posts",
)
