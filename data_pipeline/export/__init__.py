"""Training files for the two frameworks, and what both refuse."""

from collections.abc import Iterable, Iterator

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question

BENCHMARKS = {"pceb"}


def exportable(
    questions: Iterable[Question], train_on_benchmark: bool, open_questions: bool = False
) -> Iterator[Question]:
    """Yields the questions; raises BadInput for a benchmark's, a repeated id, and an open question.

    Open questions pass with `open_questions` when they have a reference: GRPO with reward/judge.py takes them. A model
    trained on a benchmark's questions has no result on it, so that takes `train_on_benchmark=true`.
    """
    seen = {}
    for question in questions:
        where = question.meta.get("where", question.id)
        if question.source in BENCHMARKS and not train_on_benchmark:
            raise BadInput(
                f"{where}: {question.source} is a benchmark, not training data: a model trained on it has no result "
                "on it. If that is what you want, say train_on_benchmark=true"
            )
        if question.id in seen:
            raise BadInput(f"{where}: the id {question.id!r} stands already at {seen[question.id]}; ids must be unique")
        if question.kind == "open" and not (open_questions and question.reference.strip()):
            cure = "give it a reference" if open_questions else "reward/judge.py asks a model (open_questions=true)"
            raise BadInput(f"{where}: {question.id!r} is an open question, whose answer no rule can check; {cure}")
        seen[question.id] = where
        yield question


def exportable_dialogues(dialogues: Iterable[Dialogue], train_on_benchmark: bool) -> Iterator[Dialogue]:
    """Yields the dialogues; raises BadInput for one of an evaluation set, unless `train_on_benchmark`."""
    for dialogue in dialogues:
        if (benchmark := dialogue.meta.get("benchmark")) and not train_on_benchmark:
            raise BadInput(
                f"{dialogue.meta.get('where', dialogue.id)}: {benchmark} is a benchmark, not training data: a model "
                "trained on it has no result on it. If that is what you want, say train_on_benchmark=true"
            )
        yield dialogue
