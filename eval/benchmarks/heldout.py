"""A run's own questions: the held-out ones, or the fixed set of GRPO prompts, as the data stage wrote them."""

from dataclasses import asdict
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.prompts import question_messages
from data_pipeline.records import read_questions
from eval import metrics, tables
from eval.contract import Answered, Benchmark, Figures, Item, Loaded, Scoring, Table, no_scores
from eval.figures import Cell, SetMetrics
from eval.measure import choice


def load(path: str | Path) -> Loaded:
    """Returns the questions of a JSONL file in file order; raises BadInput for a missing or empty one."""
    questions = list(read_questions(Path(path)))
    if not questions:
        raise BadInput(f"{path} holds no question; were split.heldout and split.grpo 0 in the data stage?")
    return Loaded([Item(q, q.kind) for q in questions], [], [])


def requests(item: Item) -> list[dict]:
    return question_messages(item.question)


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns accuracy, elastic accuracy, format and pass@k over all questions with letters, and `readable_rate`."""
    readable = metrics.mean(metrics.per_item([one.readings for one in answered], "readable"))
    return Figures({**asdict(choice(answered, scoring)), "readable_rate": readable})


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    return [tables.exam_overview(results), tables.by_cell(results), tables.by_subject(results)]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=no_scores,
    tables=report_tables,
    figures=figures,
    cells={"single": None, "multi": None},
    reads_own_files=True,
)
