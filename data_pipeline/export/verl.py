"""GRPO files for verl: parquet with an explicit schema, so that an empty option list never changes a column's type."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from data_pipeline.export import exportable
from data_pipeline.prompts import question_messages
from data_pipeline.records import Question

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
                "options": pyarrow.list_(_TEXT),
                "split": _TEXT,
                "index": pyarrow.int64(),
            }
        ),
    }
)


def _for_judge(question: Question) -> str:
    """Returns what reward/judge.py gets: verl hands a reward no prompt, so the question stands before its reference."""
    asked = "\n".join(filter(None, (question.context, question.stem)))
    return f"问题：{asked}\n\n参考答案：{question.reference}"


def question_row(question: Question, split: str, index: int) -> dict:
    """Returns the row that verl's dataset reads; `reward/psyche.py` gets `ground_truth` and `extra_info` from it."""
    return {
        "data_source": f"psyforge/{question.source}",
        "prompt": question_messages(question),
        "ability": "psychology",
        "reward_model": {
            "style": "model" if question.kind == "open" else "rule",
            "ground_truth": _for_judge(question) if question.kind == "open" else question.answer,
        },
        "extra_info": {
            "id": question.id,
            "kind": question.kind,
            "subject": question.subject,
            "options": question.options,
            "split": split,
            "index": index,
        },
    }


def write(
    path: Path,
    questions: Iterable[Question],
    split: str,
    train_on_benchmark: bool = False,
    open_questions: bool = False,
) -> int:
    """Writes the parquet file in one move and returns its number of rows; raises BadInput as `exportable` does."""
    rows = [question_row(q, split, i) for i, q in enumerate(exportable(questions, train_on_benchmark, open_questions))]
    partial = path.with_name(path.name + ".partial")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), partial)
    os.replace(partial, path)
    return len(rows)
