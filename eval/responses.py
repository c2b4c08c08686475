"""Responses of a model to a set of items: asked of whatever generates them, stored, and read back to score again."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import prompt_text
from data_pipeline.records import Response, read_jsonl, write_jsonl, write_text
from eval.contract import Answered, Benchmark, Item, Scoring
from eval.items import match
from eval.judging.clients import AskClient
from eval.judging.sessions import hold
from eval.measure import Scores
from eval.metrics import VERSION
from eval.settings import EvaluationSet, SetSettings

# (conversations, ids of their items, how they are asked) -> the samples of each, in order
Generate = Callable[[list[list[dict]], list[str], SetSettings], list[list[Response]]]
ASKED = "asked.json"


@dataclass
class Row:
    """One response as it is stored, with its reading and scores."""

    id: str
    sample: int
    cell: str
    kind: str  # "single", "multi", "open", "dialogue"
    subject: str
    question: str  # the last message
    key: str  # letters, or the model answer of an open question
    response: str
    reasoning: str
    finish: str
    tokens: int
    prompt_tokens: int
    error: str
    read: str | None  # letters by flexible-extract
    strict_match: str | None
    acc: float
    strict_match_acc: float
    elastic: float
    format: float
    readable: float
    failed: float
    cut: float
    scores: dict[str, float | None]  # the benchmark's own; None: missing

    @property
    def has_letters(self) -> bool:
        return self.kind in ("single", "multi")


@dataclass
class Asked:
    """What a stored file of responses is an answer to."""

    checkpoint: str
    set: str
    fingerprint: str  # of the items
    model: Any  # name behind a server, or {"path", "sha256"}
    samples: int
    temperature: float
    top_p: float
    top_k: int | None
    repetition_penalty: float | None
    max_new_tokens: int
    seed: int
    batch_size: int
    engine: str = "transformers"  # in this process; or "vllm", or "endpoint"
    version: str = VERSION  # of the scoring
    judge: str | None = None  # the model that judged the responses
    client: str | None = None  # the model that played the clients of sessions
    system: str | None = None  # in place of the benchmark's own prompt


def file_name(checkpoint: str, name: str) -> str:
    return f"responses.{checkpoint}.{name}.jsonl"


def read_asked(folder: Path) -> dict[str, Asked]:
    """Returns {file of responses: what it answers} of an evaluation, {} without one; BadInput for another version's."""
    file = folder / ASKED
    if not file.is_file():
        return {}
    try:
        return {name: Asked(**about) for name, about in json.loads(file.read_text(encoding="utf-8")).items()}
    except TypeError:
        raise BadInput(f"{file}: of another version of PsyForge; evaluate again under another run=NAME") from None


def write_asked(folder: Path, asked: dict[str, Asked]) -> None:
    content = {name: asdict(about) for name, about in asked.items()}
    write_text(folder / ASKED, json.dumps(content, indent=2) + "\n")


def evaluated(folder: Path, word: str) -> dict[str, Asked]:
    """Returns `read_asked`, of a folder runs/RUN/eval; raises BadInput, opening with `word`, that lists those there."""
    asked = read_asked(folder)
    if not asked:
        there = sorted(file.parent.parent.name for file in folder.parent.parent.glob(f"*/eval/{ASKED}"))
        run = folder.parent.name
        raise BadInput(f"{word}: run {run} has no evaluation; there is {', '.join(there)}{did_you_mean(run, there)}")
    return asked


def ask(
    one: EvaluationSet, generate: Generate, ask_client: AskClient | None = None, scoring: Scoring | None = None
) -> list[list[Response]]:
    """Returns the samples of every item, as `generate` gives them; of sessions, for which the last two are needed, as
    they are held with the clients that `ask_client` plays.
    """
    opened = [(item, _opening(one, item)) for item in one.loaded.items]
    if one.benchmark.session:
        assert ask_client and scoring
        once = one.asked.model_copy(update={"samples": 1})

        def answer(conversations: list[list[dict]], rows: list[str]) -> list[Response]:
            return [reply for (reply,) in generate(conversations, rows, once)]

        step = f"client/{one.name}"
        return hold(one.benchmark.session, opened, one.asked.samples, step, ask_client, answer, scoring)
    return generate([messages for _, messages in opened], [item.id for item, _ in opened], one.asked)


def _opening(one: EvaluationSet, item: Item) -> list[dict]:
    """Returns what asks an item, with the set's own system prompt where it has one."""
    messages = one.benchmark.requests(item)
    if one.asked.system is None:
        return messages
    text = prompt_text(one.asked.system, f"sets.{one.name}.system")
    system = [{"role": "system", "content": text}] if text else []
    return system + [message for message in messages if message["role"] != "system"]


def store(path: Path, benchmark: Benchmark, answered: list[Answered], scores: Scores | None = None) -> list[Row]:
    """Writes one row per response with its reading and, where they are known, scores, for the owner's eyes; returns the
    rows.
    """
    rows = []
    for n, one in enumerate(answered):
        item, last = one.item, benchmark.requests(one.item)[-1]["content"]
        subject, key = (
            (item.question.subject, item.question.answer or item.question.reference)
            if item.kind != "dialogue"
            else ("", "")
        )
        for number, (r, reading) in enumerate(zip(one.responses, one.readings, strict=True)):
            rows.append(Row(item.id, number, item.cell, item.kind, subject, last, key, r.text, r.reasoning, r.finish,
                            r.tokens, r.prompt_tokens, r.error, **asdict(reading),
                            scores=scores[n][number] if scores else {}))  # fmt: skip
    write_jsonl(path, rows, 0o600)
    return rows


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file that `store` wrote; raises BadInput for one of another shape."""
    rows = []
    for number, row in read_jsonl(path):
        if odd := {f.name for f in fields(Row)} ^ set(row):
            raise BadInput(
                f"{path} line {number}: not a response of this version (keys that differ: {', '.join(sorted(odd))})"
            )
        rows.append(Row(**row))
    return rows


def stored(path: Path, one: EvaluationSet) -> list[list[Response]]:
    """Returns the responses of a file that `store` wrote, in the order of the items.

    Raises BadInput for a row of another shape, an id that no item has, and an item without all its responses.
    """
    by_id: dict[str, list[Response]] = {}
    for row in read_rows(path):
        response = Response(row.response, row.finish, row.tokens, row.reasoning, row.prompt_tokens, row.error)
        by_id.setdefault(row.id, []).append(response)
    try:
        return match(one.loaded.items, by_id)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
