"""CounselBench (arXiv 2506.08584, ICLR 2026): single replies to people's posts, on six scales of its experts' sheet.

The table of CounselBench-Eval is read: questionID, questionTitle, questionText; the rows of one question are one item,
and the ratings of its experts are not. CounselBench-Adv's questions are asked the same way once they stand under these
columns. The released judge gives all six scores in one call without evidence; here it is one call a scale, with
evidence, and in words of our own. "I am not sure" is counted and shown beside, not dropped.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.prompts import render_file
from data_pipeline.records import Dialogue, Post, Reject, Turn
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring
from eval.judging.turns import history

HERE = Path(__file__).parent
COLUMNS = {"id": "questionID", "title": "questionTitle", "text": "questionText"}
SAME = "the id stands already"  # of a row that rates another reply to a question
DEPARTURES = (
    "one call a scale with evidence, in words of our own; the released judge gives all six in one call. Published "
    "means are of other replies by other judges, and known here at second hand only, so none stand beside"
)


def load(path: str | Path) -> Loaded:
    """Returns an item for each question, in the order of the table; raises BadInput for one without its columns."""
    try:
        records = list(sources.read("posts", path, columns=COLUMNS))
    except BadInput as error:
        told = f"CounselBench's table has the columns {', '.join(COLUMNS.values())}"
        raise BadInput(f"{told}: {error}") from None
    rejects = [r for r in records if isinstance(r, Reject) and r.code != SAME]
    items = []
    for post in (r for r in records if isinstance(r, Post)):
        text = post.text if post.title in ("", post.text) else f"{post.title} {post.text}"
        items.append(Item(Dialogue(post.id, "counselbench", [Turn("client", text)], post.meta), "posts"))
    return Loaded(items, rejects, [DEPARTURES])


def requests(item: Item) -> list[dict]:
    return [
        {"role": "system", "content": render_file(HERE / "ask.jinja")},
        {"role": "user", "content": item.dialogue.turns[0].content},
    ]


def judge(item: Item) -> Sequence[Judge]:
    return rubric.calls(SIX, lambda item: {"history": history(item)})


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [rubric.scores(SIX, one) for one in answered]


SIX = rubric.read_rubric(HERE / "rubric.yaml")
BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=rubric.report_tables,
    judge=judge,
    about="CounselBench-Eval and -Adv (hub: izi-ano/CounselBench-Eval, -Adv; see their cards for the licence): 100 and "
    "120 questions",
)
