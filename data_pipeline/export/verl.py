"""GRPO files for verl: parquet with an explicit schema, so that an empty option list never changes a column's type."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from data_pipeline.dialogues import MESSAGE_ROLES, fault
from data_pipeline.errors import BadInput
from data_pipeline.export import exportable, exportable_dialogues
from data_pipeline.prompts import question_messages
from data_pipeline.records import Dialogue, Question, Turn

_TEXT = pyarrow.string()
SCHEMA = pyarrow.schema(
    {
        "data_source": _TEXT,
        "prompt": pyarrow.list_(pyarrow.struct({"role": _TEXT, "content": _TEXT})),
        "ability": _TEXT,
        "reward_model": pyarrow.struct({"style": _TEXT, "ground_truth": _TEXT}),
        "extra_info": pyarrow.struct(
            {
                "id": _TEXT,
                "kind": _TEXT,
                "subject": _TEXT,
                "question": _TEXT,  # what a judge reads: case and stem, or the talk
                "options": pyarrow.list_(_TEXT),
                "split": _TEXT,
                "index": pyarrow.int64(),
            }
        ),
    }
)


def question_row(question: Question, split: str, index: int) -> dict:
    """Returns the row that verl's dataset reads; a reward gets `ground_truth` and `extra_info` of it, and no prompt."""
    is_open = question.kind == "open"
    return {
        "data_source": f"psyforge/{question.source}",
        "prompt": question_messages(question),
        "ability": "psychology",
        "reward_model": {
            "style": "model" if is_open else "rule",
            "ground_truth": question.reference if is_open else question.answer,
        },
        "extra_info": {
            "id": question.id,
            "kind": question.kind,
            "subject": question.subject,
            "question": "\n".join(filter(None, (question.context, question.stem))),
            "options": question.options,
            "split": split,
            "index": index,
        },
    }


def dialogue_row(dialogue: Dialogue, split: str, index: int, system: str = "") -> dict:
    """Returns the row by which a dialogue's last reply is written anew and judged (reward/judge.py).

    Its prompt is the talk up to the client's last words that were answered, without thoughts, and `system` where the
    dialogue has none; the reply that stands there is the reference. Raises BadInput for no usable dialogue.
    """
    if reason := fault(dialogue.turns):
        where = dialogue.meta.get("where", dialogue.id)
        raise BadInput(f"{where}: {dialogue.id!r} cannot be a GRPO prompt: {reason.reason}")
    last = max(place for place, turn in enumerate(dialogue.turns) if turn.role == "counselor")
    said = dialogue.turns[:last]
    if system and said[0].role != "system":
        said = [Turn("system", system), *said]
    talk = [turn for turn in said if turn.role != "system"]
    names = {"client": "来访者：", "counselor": "咨询师："} if len(talk) > 1 else {"client": ""}
    return {
        "data_source": f"psyforge/{dialogue.source}",
        "prompt": [{"role": MESSAGE_ROLES[turn.role], "content": turn.content} for turn in said],
        "ability": "counselling",
        "reward_model": {"style": "model", "ground_truth": dialogue.turns[last].content},
        "extra_info": {
            "id": dialogue.id,
            "kind": "dialogue",
            "subject": "",
            "question": "\n".join(names[turn.role] + turn.content for turn in talk),
            "options": [],
            "split": split,
            "index": index,
        },
    }


def write(path: Path, rows: list[dict]) -> int:
    """Writes the parquet file in one move and returns its number of rows."""
    partial = path.with_name(path.name + ".partial")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), partial)
    os.replace(partial, path)
    return len(rows)


def question_rows(
    questions: Iterable[Question], split: str, train_on_benchmark: bool = False, open_questions: bool = False
) -> list[dict]:
    """Returns the rows of the questions; raises BadInput as `exportable` does."""
    allowed = exportable(questions, train_on_benchmark, open_questions)
    return [question_row(question, split, index) for index, question in enumerate(allowed)]


def dialogue_rows(
    dialogues: Iterable[Dialogue], split: str, first: int, system: str = "", train_on_benchmark: bool = False
) -> list[dict]:
    """Returns a row for each dialogue, numbered from `first`; raises BadInput as `exportable_dialogues` and
    `dialogue_row` do.
    """
    allowed = exportable_dialogues(dialogues, train_on_benchmark)
    return [dialogue_row(dialogue, split, index, system) for index, dialogue in enumerate(allowed, first)]
