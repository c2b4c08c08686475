"""A run's own questions: the held-out ones, or the fixed set of GRPO prompts, as the data stage wrote them.

Open questions are scored by a judge, in 0..100, by the prompt that the reward asks its judge with.
"""

from dataclasses import asdict
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.prompts import question_messages, render
from data_pipeline.records import read_questions
from eval import metrics, tables
from eval.contract import Answered, Benchmark, Figures, Item, Judge, Loaded, Scoring, Table
from eval.figures import Cell, SetMetrics
from eval.judging.judges import judge_scores
from eval.measure import choice
from reward.judge import read_score

SCORE = "judge_score"


def load(path: str | Path) -> Loaded:
    """Returns the questions of a JSONL file in file order; raises BadInput for a missing or empty one."""
    questions = list(read_questions(Path(path)))
    if not questions:
        raise BadInput(f"{path} holds no question; were split.heldout and split.grpo 0 in the data stage?")
    return Loaded([Item(q, q.kind) for q in questions], [], [])


def requests(item: Item) -> list[dict]:
    return question_messages(item.question)


def judge_messages(item: Item, answer: str) -> list[dict]:
    q = item.question
    question = f"{q.context}\n{q.stem}".strip()
    text = render("judge_open_answer", question=question, reference=q.reference, answer=answer)
    return [{"role": "user", "content": text}]


def read_judge(reply: str) -> dict[str, float | None]:
    try:
        return {SCORE: 100 * read_score(reply)}
    except ValueError:
        return {SCORE: None}


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    """Returns the judge's score of every response to an open question, 0 where there is no answer to judge."""
    return [[{} for _ in one.responses] if one.item.has_letters else judge_scores(one, (SCORE,)) for one in answered]


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns accuracy, elastic accuracy, format and pass@k over all questions with letters, and `readable_rate`."""
    readable = metrics.mean(metrics.per_item([one.readings for one in answered], "readable"))
    return Figures({**asdict(choice(answered)), "readable_rate": readable})


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    return [tables.exam_overview(results), tables.by_cell(results), tables.by_subject(results)]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=report_tables,
    figures=figures,
    cells={"single": None, "multi": None},
    judge=Judge((SCORE,), judge_messages, read_judge),
    reads_own_files=True,
)
