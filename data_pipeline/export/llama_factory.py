"""SFT files for LLaMA-Factory: `<name>.jsonl` of messages, and `dataset_info.json` that describes it.

LLaMA-Factory drops rows with a wrong role or order with a warning, and trains on an empty response; both are refused
here, with file and row, so that its converter keeps every row that is written.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.export import exportable
from data_pipeline.prompts import answer_text, question_messages
from data_pipeline.records import BadInput, Question, write_jsonl

# `sharegpt` with OpenAI-style tags. Every entry must be listed: LLaMA-Factory sets those left out to nothing.
# Not `formatting: openai`, which appends "detailed thinking off" to the system prompt.
DATASET = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def check_messages(messages: object, where: str) -> None:
    """Raises BadInput unless `messages` is an optional system message, then user and assistant in turn, none empty."""
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"{where}: messages is not a list of messages")
    turns = messages[1:] if messages[0].get("role") == "system" else messages
    if not turns or len(turns) % 2:
        raise BadInput(f"{where}: {len(turns)} messages after the system message; user and assistant must alternate")
    for number, message in enumerate(turns):
        role, expected = message.get("role"), ("user", "assistant")[number % 2]
        if role != expected:
            raise BadInput(f"{where}: message {number + 1} has the role {role!r}, expected {expected!r}")
    for message in messages:
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise BadInput(f"{where}: the {message.get('role')} message is empty; LLaMA-Factory would train on nothing")


def question_row(question: Question) -> dict:
    """Returns {"id", "messages"}: the question, then its rationale in <think></think> and its answer."""
    where = question.meta.get("where", question.id)
    if not question.rationale.strip():
        raise BadInput(f"{where}: {question.id!r} has no rationale; only questions with one can be SFT rows")
    if "<think>" in question.rationale or "</think>" in question.rationale:
        raise BadInput(f"{where}: the rationale of {question.id!r} itself holds a <think> tag; take it out")
    return {
        "id": question.id,
        "messages": [*question_messages(question), {"role": "assistant", "content": answer_text(question)}],
    }


def write(folder: Path, questions: Iterable[Question], name: str = "sft", train_on_benchmark: bool = False) -> int:
    """Writes `<name>.jsonl` and `dataset_info.json` into `folder`; returns the number of rows.

    Raises BadInput for what LLaMA-Factory would drop or train wrongly: see `exportable` and `check_messages`.
    """

    def rows():
        for question in exportable(questions, train_on_benchmark):
            row = question_row(question)
            check_messages(row["messages"], question.meta.get("where", question.id))
            yield row

    count = write_jsonl(folder / f"{name}.jsonl", rows())
    info = {name: {"file_name": f"{name}.jsonl", **DATASET}}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return count
