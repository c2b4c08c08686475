"""SFT files for LLaMA-Factory: `<name>.jsonl` of messages, and `dataset_info.json` that describes it.

LLaMA-Factory drops rows with a wrong role or order with a warning, and trains on an empty response; both are refused
here, with file and row, so that its converter keeps every row that is written.

Thoughts of a dialogue, as `thoughts` says:

- "every": in every counselor turn, one row per dialogue. PsyLLM's published way, which shows the model a history of
  thoughts that Qwen3's chat template takes out at inference.
- "last": one row per counselor turn, with the thought of that turn only, as Qwen3 infers; of a dialogue that has
  thoughts in some turns only, one for each of these. Train with LLaMA-Factory's
  `mask_history: true`: without it the replies of the history are trained too, and with the template qwen3 each of them
  after an empty thought.
- "none": no thoughts, one row per dialogue.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipeline import dialogues as checks
from data_pipeline.errors import BadInput
from data_pipeline.export import exportable, exportable_dialogues
from data_pipeline.prompts import answer_text, question_messages
from data_pipeline.records import LETTERS, Dialogue, Fault, Question, Turn, write_jsonl, write_text
from data_pipeline.safety.shown import NO_TEXT
from reward.thought import stray_mark

THOUGHTS = ("every", "last", "none")
# `sharegpt` with OpenAI-style tags. Every entry must be listed: LLaMA-Factory sets those left out to nothing.
# Not `formatting: openai`, which appends "detailed thinking off" to the system prompt.
_CONCLUDES = re.compile(  # the last words of a rationale: 故选A。
    r"(?:故|因此|所以|综上|答案|[Aa]nswer)[^。\n不非'’]{0,6}?(?:选|答案[为是:：]?|为|是|is|:)?\s*"
    r"([A-Z](?:[、,，\s]*[A-Z])*)\s*(?:项|选项)?(?:正确)?\s*[。.]?\s*$"
)
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


def _texts(row: Question | Dialogue) -> Iterator[str]:
    if isinstance(row, Question):
        yield from (row.context, row.stem, *row.options, row.rationale, row.reference)
    else:
        yield from (text for turn in row.turns for text in (turn.content, turn.thought))


def unfit(row: Question | Dialogue, thoughts: str = "every") -> Fault | None:
    """Returns the Fault for which a question's or dialogue's SFT rows would teach something wrong, or None."""
    whole = " ".join(_texts(row))
    if not whole.isprintable() and (sign := NO_TEXT.search(whole)):
        around = whole[max(0, sign.start() - 20) : sign.start() + 21]
        detail = f"U+{ord(sign[0]):04X}, a control character or a mark of direction, in {around!r}"
        return Fault("a character that is no text", detail)
    if isinstance(row, Question):
        if mark := stray_mark(whole):
            return Fault("a mark of a model's turn or thought", f"{mark!r}; take it out")
        said = _CONCLUDES.search(row.rationale[-60:])
        letters = [letter for letter in said[1] if letter in LETTERS] if said else []
        named = set(letters) <= {*LETTERS[: len(row.options)]} and len(set(letters)) == len(letters)  # CBT is a therapy
        if said and row.answer and named and sorted(letters) != sorted(row.answer):
            return Fault("a rationale that ends in another answer", f"{said[0]!r}; the key is {row.answer}")
        return None
    if fault := checks.fault(row.turns):
        return fault
    replies = [turn for turn in row.turns if turn.role == "counselor"]
    bare = [number for number, turn in enumerate(replies, 1) if not turn.thought]
    if thoughts == "every" and 0 < len(bare) < len(replies):
        cure = "thoughts=last trains those turns that have one, thoughts=none all of them without"
        return Fault("thoughts in some counselor turns only", f"none in counselor turn {bare[0]}; {cure}")
    return None


def question_row(question: Question) -> dict:
    """Returns {"id", "messages"}: the question, then its rationale in <think></think> and its answer."""
    where = question.meta.get("where", question.id)
    if not question.rationale.strip():
        raise BadInput(f"{where}: {question.id!r} has no rationale; only questions with one can be SFT rows")
    if fault := unfit(question):
        raise BadInput(f"{where}: {question.id!r} cannot be trained on: {fault.reason}")
    return {
        "id": question.id,
        "messages": [*question_messages(question), {"role": "assistant", "content": answer_text(question)}],
    }


def dialogue_rows(dialogue: Dialogue, system: str, thoughts: str = "every") -> list[dict]:
    """Returns the {"id", "messages"} rows of a dialogue; those of "last" are called ID/1, ID/2, ...

    A thought stands in <think></think> before its reply. `system`, if not empty, is used where the dialogue has no
    system turn; a client's last words without an answer are left out, since nothing can be learnt from them. Raises
    BadInput, naming row and turn, for what is no usable dialogue, and for thoughts in some counselor turns only.
    """
    where = dialogue.meta.get("where", dialogue.id)
    if thoughts not in THOUGHTS:
        raise BadInput(f"thoughts={thoughts}: must be one of {', '.join(THOUGHTS)}")
    if fault := unfit(dialogue, thoughts):
        raise BadInput(f"{where}: {dialogue.id!r} cannot be trained on: {fault.reason}")
    turns = dialogue.turns
    if system and turns[0].role != "system":
        turns = [Turn("system", system), *turns]
    replies = [number for number, turn in enumerate(turns) if turn.role == "counselor"]
    bare = [Turn(turn.role, turn.content) for turn in turns]
    if thoughts == "last":
        return [
            {"id": f"{dialogue.id}/{place}", "messages": checks.messages([*bare[:number], turns[number]])}
            for place, number in enumerate(replies, 1)
            if turns[number].thought or not any(turn.thought for turn in turns)
        ]
    kept = (turns if thoughts == "every" else bare)[: replies[-1] + 1]
    return [{"id": dialogue.id, "messages": checks.messages(kept)}]


def write(
    folder: Path,
    questions: Iterable[Question],
    dialogues: Iterable[Dialogue] = (),
    name: str = "sft",
    train_on_benchmark: bool = False,
    thoughts: str = "every",
    system: str = "",
) -> int:
    """Writes `<name>.jsonl` and `dataset_info.json` into `folder`; returns the number of rows.

    `thoughts` and `system` are those of `dialogue_rows`. Raises BadInput for what LLaMA-Factory would drop or
    train wrongly: see `exportable`, `exportable_dialogues`, `dialogue_rows` and `check_messages`.
    """

    def rows():
        for question in exportable(questions, train_on_benchmark):
            row = question_row(question)
            check_messages(row["messages"], question.meta.get("where", question.id))
            yield row
        for dialogue in exportable_dialogues(dialogues, train_on_benchmark):
            for row in dialogue_rows(dialogue, system, thoughts):
                check_messages(row["messages"], dialogue.meta.get("where", dialogue.id))
                yield row

    count = write_jsonl(folder / f"{name}.jsonl", rows())
    info = {name: {"file_name": f"{name}.jsonl", **DATASET}}
    write_text(folder / "dataset_info.json", json.dumps(info, indent=2) + "\n")
    return count
