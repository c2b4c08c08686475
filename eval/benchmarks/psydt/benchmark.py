"""PsyDT / SoulChat2.0 (arXiv 2412.13660): five judged dimensions on 20 turns of each topic, ROUGE and BLEU on all
turns.

Turns are rows of PsyDTCorpus_test_single_turn_split.json, whose last reply is the reference. The judge sees it and a
"poor answer"; what the paper's poor answer is, is unpublished, so `poor.LANGUAGE.txt` stands in, ours. The paper
decodes with temperature 0.9, top_p 0.75, top_k 20 and averages GPT-4o and Claude 3.5; which turns it drew is
unpublished."""

import random
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.records import Dialogue, Reject
from eval import text_metrics
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Figures, Item, Judge, Loaded, Published, Scoring
from eval.figures import Cell
from eval.items import group_by
from eval.judging.turns import client_turns, history, messages
from eval.metrics import answer_part, mean_of

HERE = Path(__file__).parent
DIMENSIONS = ("emotional_empathy", "cognitive_empathy", "conversation_strategy", "state_and_attitude", "safety")
OURS = (
    "the 'poor answer' that the judge sees is ours (unpublished), as are the drawn turns and the wording; BERTScore is "
    "left out, since its model is unpublished"
)


def load(path: str | Path, judged: int = 20, seed: int = 42, language: str = "zh") -> Loaded:
    """Returns an item for each row that ends in a reply, in order.

    `judged` is how many turns of each topic are drawn for the judge: 20, published. `seed` draws them; ours. `language`
    is that of the judge's prompts, zh or en.
    """
    rubric.check_language(language)
    records = list(sources.read("psydt", path))
    rejects = [r for r in records if isinstance(r, Reject)]
    items = []
    for dialogue in (r for r in records if isinstance(r, Dialogue)):
        part, reference = list(client_turns(dialogue))[-1]
        if reference:
            topic = str(dialogue.meta.get("topic") or "none")
            items.append(Item(part, topic, facts={"reference": reference, "language": language, "judged": False}))
        else:
            rejects.append(Reject(dialogue.id, dialogue.meta["where"], "no reference reply"))
    for topic, of_topic in group_by([item.cell for item in items], items).items():
        for item in random.Random(f"{seed}/{topic}").sample(of_topic, min(judged, len(of_topic))):
            item.facts = {**item.facts, "judged": True}
    drawn = sum(item.facts["judged"] for item in items)
    notes = [f"{drawn} of {len(items)} turns are judged, {judged} of each topic", OURS]
    notes += [f"{len(rejects)} rows are left out, first {rejects[0].reason}"] if rejects else []
    return Loaded(items, rejects, notes)


def requests(item: Item) -> list[dict]:
    return messages(item.dialogue.turns)


def _rubric(item: Item) -> rubric.Rubric:
    return rubric.read_rubric(HERE / f"rubric.{item.facts['language']}.yaml")


def seen(item: Item) -> dict:
    poor = (HERE / f"poor.{item.facts['language']}.txt").read_text(encoding="utf-8").strip()
    return {"history": history(item), "reference": item.facts["reference"], "poor": poor}


def judge(item: Item) -> Sequence[Judge]:
    return rubric.calls(_rubric(item), seen) if item.facts["judged"] else []


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    """Returns ROUGE and BLEU of every response, and of the drawn turns the judges' scores."""
    pairs = [
        (answer_part(response, scoring.think_prefilled), one.item.facts["reference"])
        for one in answered
        for response in one.responses
    ]
    of_pairs = iter(text_metrics.score_texts([a for a, _ in pairs], [b for _, b in pairs]))
    scores = []
    for one in answered:
        judged = rubric.scores(_rubric(one.item), one) if one.item.facts["judged"] else [{} for _ in one.responses]
        scores.append([{**row, **next(of_pairs)} for row in judged])
    return scores


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns the judged means as columns of the published table; which ROUGE and BLEU it has is not known."""
    rows = [rubric.scores(_rubric(one.item), one) for one in answered if one.item.facts["judged"]]
    values = {name: [v for of in rows for row in of if (v := row[name]) is not None] for name in DIMENSIONS}
    return Figures(published_columns={name: mean_of(of) if of else None for name, of in values.items()})


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=rubric.report_tables,
    figures=figures,
    published=Published(
        "psydt.yaml",
        {name: name.replace("_", " ") for name in DIMENSIONS},
        {},
        "the published rows are another quantity: other turns, an unpublished poor answer, other judges",
    ),
    judge=judge,
    about="PsyDTCorpus test (ModelScope YIRONGCHEN/PsyDTCorpus, gated): 4,311 turns, of which 240 are judged",
)
