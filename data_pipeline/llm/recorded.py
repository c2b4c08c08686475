"""Hand-written replies in place of a model's: a demo corpus goes through every step without a server or a payment.

A folder of JSONL files, one reply per line: {"step", "row", "sample", "text"} and, if there is one, "reasoning". They
are looked up by step, row and sample, never by the prompt, so that a prompt can be edited. Best one file per step,
STEP.jsonl; the repair of a reply (`structured.ask_json`) is a step of its own, STEP.repair1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.records import Request, Response, read_jsonl

_NEEDED = {"step": str, "row": str, "sample": int, "text": str}

Key = tuple[str, str, int]  # step, row, sample


@dataclass(frozen=True)
class Recorded:
    """A folder of replies that stands in for a server."""

    replies: str
    model: str  # what a report calls it

    def cost(self, prompt_tokens: int, tokens: int) -> None:
        """Nothing was paid."""


def load(folder: Path) -> dict[Key, Response]:
    """Returns the replies by (step, row, sample); tokens are 0, for nothing was counted.

    Raises BadInput with file and line for a reply of another form and for one whose key an earlier line has.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise BadInput(f"{folder}: no recorded replies, for there is no .jsonl file; correct llm.replies")
    replies, places = {}, {}
    for file in files:
        for number, row in read_jsonl(file):
            where = f"{file} line {number}"
            _check(row, where)
            key = (row["step"], row["row"], row["sample"])
            if key in places:
                raise BadInput(f"{where}: step {key[0]}, row {key[1]}, sample {key[2]} stands at {places[key]} already")
            places[key] = where
            replies[key] = Response(row["text"], "stop", 0, row.get("reasoning", ""))
    return replies


def asker(folder: Path) -> Callable[[list[Request]], list[Response]]:
    """Returns the function by which a step asks the recorded replies, as `llm.asker` does for a server.

    It raises BadInput, with the line to add, for requests that have none.
    """
    replies = load(folder)

    def ask(requests: list[Request]) -> list[Response]:
        missing = [r for r in requests if (r.step, r.row, r.sample) not in replies]
        if missing:
            first = missing[0]
            line = orjson.dumps({"step": first.step, "row": first.row, "sample": first.sample, "text": "..."}).decode()
            more = f" (and {len(missing) - 1} further requests have none)" if len(missing) > 1 else ""
            file = Path(folder, f"{first.step.replace('/', '.')}.jsonl")
            raise BadInput(
                f"no recorded reply for step {first.step}, row {first.row}, sample {first.sample}{more}: add the line "
                f"{line} to {file}, or ask a model in their place (data stage: llm=openai, deepseek or vllm)"
            )
        return [replies[r.step, r.row, r.sample] for r in requests]

    return ask


def _check(row: dict, where: str) -> None:
    if missing := [name for name in _NEEDED if name not in row]:
        raise BadInput(f"{where}: {', '.join(missing)} missing; a reply has step, row, sample and text")
    if unknown := [name for name in row if name not in _NEEDED and name != "reasoning"]:
        raise BadInput(f"{where}: unknown key {', '.join(unknown)}; a reply has step, row, sample, text, reasoning")
    for name, kind in {**_NEEDED, "reasoning": str}.items():
        if name in row and type(row[name]) is not kind:
            wanted = "a whole number" if kind is int else "text"
            raise BadInput(f"{where}: {name}: {row[name]!r} is not {wanted}")
    if not row["text"].strip():
        raise BadInput(f"{where}: text: it is empty; a model's reply never is")
