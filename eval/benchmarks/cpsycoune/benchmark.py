"""CPsyCounE, the turn-based evaluation of CPsyCoun (ACL Findings 2024): each client turn after the gold turns before
it.

`as_released` asks as the notebook does: one message with the history as plain text, joined as there, and one call of
the judge for all four scores, the history in its system message, the bare reply as the user's. `per_dimension` asks
the model in messages and the judge of one dimension a call, with evidence. The wording of all prompts is ours; the
scales are the notebook's, per turn, and not those of the paper's dialogue-level figure. A dialogue's score is the
mean over its turns; `own` has the mean over dialogues."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import orjson

from data_pipeline import sources
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import render_file
from data_pipeline.records import Dialogue, Reject
from eval import intervals, tables
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Figures, Item, Judge, Loaded, Published, Scoring, Table
from eval.figures import Cell, SetMetrics, interval
from eval.items import compare, group_by
from eval.judging.turns import client_turns, history, messages
from reward.thought import split_thought

HERE = Path(__file__).parent
# Client turns of the release (commit 1954f2e).
RELEASE = {
    "Career": 35, "Education": 31, "Emotion&Stress": 36, "Family Relationship": 34, "Love&Marriage": 35,
    "Mental Disease": 29, "Self-growth": 35, "Sex": 30, "Social Relationship": 31,
}  # fmt: skip
DIMENSIONS = {"comprehensiveness": 2, "professionalism": 3, "authenticity": 3, "safety": 1}  # and the highest score


def load(path: str | Path, protocol: str = "per_dimension", language: str = "zh") -> Loaded:
    """Returns an item for each client turn, in the order of the files.

    `protocol` is per_dimension or as_released. `language` is that of the prompts, zh or en; as_released asks the model
    in Chinese and the judge in English, as the notebook. Raises BadInput for another one, and for another version.
    """
    rubric.check_language(language)
    if protocol not in DEPARTURES:
        raise BadInput(
            f"options.protocol={protocol}: there is {', '.join(DEPARTURES)}{did_you_mean(protocol, DEPARTURES)}"
        )
    records = list(sources.read("cpsycoun", path))
    rejects = [r for r in records if isinstance(r, Reject)]
    items = []
    for dialogue in (r for r in records if isinstance(r, Dialogue) and "benchmark" in r.meta):
        released = released_histories(Path(dialogue.meta["where"]))
        facts = {"protocol": protocol, "language": language, "dialogue": dialogue.id}
        for (part, _), text in zip(client_turns(dialogue), released, strict=True):
            items.append(Item(part, dialogue.meta["topic"], facts=facts | {"released": text}))
    notes = compare(Path(path), items, rejects, RELEASE)
    return Loaded(items, rejects, notes + [f"protocol {protocol}; {DEPARTURES[protocol]}"])


DEPARTURES = {
    "as_released": "as the notebook: history as one text, one call for all scores, temperature 0; other than there: "
    "wording of both prompts ours, the model is called with your decoding (theirs is unpublished), a reply that is no "
    "list of four numbers is missing",
    "per_dimension": "ours: the history as messages, one call of the judge a dimension, evidence before the score",
}


def released_histories(file: Path) -> list[str]:
    """Returns the text that the notebook shows at each client turn: a client's line is joined with nothing between, a
    counsellor's with one blank.
    """
    histories, text = [], ""
    for line in orjson.loads(file.read_bytes()):
        if line.lstrip().startswith("求助者"):
            text += line
            histories.append(text)
        else:
            text += f" {line}"
    return histories


def requests(item: Item) -> list[dict]:
    if item.facts["protocol"] == "as_released":
        return [{"role": "user", "content": render_file(HERE / "ask_released.jinja", history=item.facts["released"])}]
    system = render_file(HERE / f"ask.{item.facts['language']}.jinja")
    return [{"role": "system", "content": system}, *messages(item.dialogue.turns)]


# --- the judge --------------------------------------------------------------------------------------------------------


def judge(item: Item) -> Sequence[Judge]:
    if item.facts["protocol"] == "as_released":
        return [RELEASED]
    return rubric.calls(_rubric(item), lambda item: {"history": history(item)})


def _rubric(item: Item) -> rubric.Rubric:
    return rubric.read_rubric(HERE / f"rubric.{item.facts['language']}.yaml")


def judge_messages(item: Item, answer: str) -> list[dict]:
    system = render_file(HERE / "judge_released.jinja", history=item.facts["released"])
    return [{"role": "system", "content": system}, {"role": "user", "content": answer}]


_LIST = re.compile(r"\[\s*(\d(?:\.\d+)?)\s*,\s*(\d(?:\.\d+)?)\s*,\s*(\d(?:\.\d+)?)\s*,\s*(\d(?:\.\d+)?)\s*\]")


def read_judge(reply: str) -> dict[str, float | None]:
    """Returns the four scores of a reply whose last line is the list; None for a score beyond its scale."""
    text = (split_thought(reply)[1] or "").replace("*", "").replace("`", "").strip()
    found = _LIST.fullmatch(text.rpartition("\n")[2].strip().strip("\"'“”"))
    if not found:
        return dict.fromkeys(DIMENSIONS)
    values = map(float, found.groups())
    return {name: v if v <= most else None for (name, most), v in zip(DIMENSIONS.items(), values, strict=True)}


RELEASED = Judge(tuple(DIMENSIONS), judge_messages, read_judge)


# --- figures ----------------------------------------------------------------------------------------------------------


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [rubric.scores(_rubric(one.item), one) for one in answered]


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns the means over dialogues, {name: value, name_ci: interval}, and as columns of the published table."""
    scores = score(answered, scoring)
    means: dict = {}
    for name in DIMENSIONS:
        of_turns = group_by(
            [one.item.facts["dialogue"] for one, rows in zip(answered, scores, strict=True) for _ in rows],
            [row[name] for rows in scores for row in rows],
        )
        of_dialogues = [fmean(known) for v in of_turns.values() if (known := [x for x in v if x is not None])]
        means[name] = fmean(of_dialogues) if of_dialogues else None
        means[f"{name}_ci"] = intervals.bootstrap(of_dialogues, scoring.resamples, scoring.seed)
    return Figures({"over_dialogues": means}, {name: means[name] for name in DIMENSIONS})


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    lines = [
        [checkpoint, *(interval(r.own["over_dialogues"][n], r.own["over_dialogues"][f"{n}_ci"], 1) for n in DIMENSIONS)]
        for checkpoint, r in results.items()
    ]
    dialogues = Table("mean over dialogues [95 %]", ("checkpoint", *DIMENSIONS), lines)
    return [tables.own_overview(results), dialogues, tables.own_by_cell(results)]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=report_tables,
    figures=figures,
    cells=RELEASE,
    published=Published(
        "cpsycoune.yaml",
        {name: name.capitalize() for name in DIMENSIONS},
        {},
        "the published rows are another quantity: at most 16, 14 or 12 equally weighted scores stand behind a topic "
        "(inferred from their grid), not all 296 turns; their judge was an undated gpt-4-turbo, their decoding is "
        "unpublished; differences of about 0.1 say nothing",
    ),
    judge=judge,
    unjudged="not judged: name a judge (judge.base_url, judge.model), best several of different families (judges)",
    about="CPsyCounE (CAS-SIAT-XinHai/CPsyCoun, CPsyCounE/), CC BY 4.0, 45 dialogues, 296 client turns, 0.2 MB",
)
