"""What people said of records on the pages, one line for each verdict: runs/NAME/reviews/REVIEWER.jsonl.

A file is only ever added to, and is the one truth: sheets are an export and an import of it, the step `review` reads it
(`verdicts: [runs/NAME/reviews/li.jsonl]`). Of several verdicts of one reviewer on one thing the last one counts. A line
is on disk before anybody is told so; one that was cut off by a crash is taken away before the next is written.
"""

import fcntl
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Dialogue, Fault, Post, Question, check_question, json_or_fault, line_of

DECIDED = ("accepted", "corrected", "rejected")  # the others say nothing of a record
WORDS = (*DECIDED, "unsure", "skipped")
KINDS = ("question", "rationale", "dialogue", "post")  # records that are judged one by one
PAIR = "pair"  # two replies to one history, side by side
BETTER = ("left", "right", "both good", "both bad", "skipped")  # what is said of them
LONGEST = 20_000  # characters of a reason or of an edited text; ours


@dataclass(frozen=True, slots=True)
class Review:
    """One verdict."""

    key: str  # made by the page for this verdict: a second line with it is the same one
    item: str  # id of the record
    kind: str  # one of KINDS, or PAIR
    content: str  # hash of what was seen (data_pipeline/verdicts.py)
    verdict: str  # one of WORDS, of BETTER for a pair
    reason: str = ""
    edits: dict[str, str] = field(default_factory=dict)  # {field: new text}; "turns.3.content" in a dialogue
    seconds: float = 0.0  # that the item was looked at
    at: str = ""  # UTC
    sides: list[str] = field(default_factory=list)  # of a pair: whose reply stood left, whose right


_NAMES = {f.name for f in fields(Review)}


def check_reviewer(name: str) -> str:
    """Returns the name; raises BadInput for one that is no plain name, since it names a file."""
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith(".") or len(name) > 60:
        raise BadInput(f"reviewer {name!r}: letters of any script, digits, '.', '_' and '-' (no slash, no blank)")
    return name


def file_of(folder: Path, reviewer: str) -> Path:
    return folder / f"{check_reviewer(reviewer)}.jsonl"


def reviewers(folder: Path) -> list[str]:
    """Returns who has given a verdict."""
    return sorted(file.stem for file in folder.glob("*.jsonl") if not file.name.startswith("."))


def read(path: Path) -> list[Review]:
    """Returns the verdicts of a file in their order, [] without one; raises BadInput for a line that is none. A last
    line without its end was being written when something crashed: nobody was told that it is kept, so it is none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [_parsed(line, f"{path} line {n}") for n, line in enumerate(content.split(b"\n")[:-1], 1)]


def _parsed(line: bytes, where: str) -> Review:
    row = json_or_fault(line)
    if not isinstance(row, dict) or row.keys() != _NAMES:
        raise BadInput(
            f"{where}: not a verdict; only the pages add to such a file: mend the line or move the file away"
        )
    return Review(**row)


def latest(verdicts: Iterable[Review]) -> dict[tuple[str, str], Review]:
    """Returns {(kind, item): the last verdict on it}."""
    return {(one.kind, one.item): one for one in verdicts}


def append(folder: Path, reviewer: str, review: Review) -> bool:
    """Returns once the verdict is on disk; False where the same one stands there already. Raises BadInput for a name
    that is none, and OSError for a disk that cannot take it.
    """
    path = file_of(folder, reviewer)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)  # people's words
    with open(handle, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(file.fileno(), whole)
        if review.key.encode() in content[:whole] and any(one.key == review.key for one in read(path)):
            return False
        os.write(file.fileno(), line_of(replace(review, at=review.at or _now())))
        os.fsync(file.fileno())
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def check(review: Review, record: Question | Dialogue | Post) -> Review:
    """Returns the verdict with its letters in order; raises BadInput for one that does not fit the record: an unknown
    word, a correction without a change, letters beyond the options, a rejection without a reason.
    """
    if review.verdict not in WORDS or review.kind not in KINDS:
        raise BadInput(f"verdict {review.verdict!r} on {review.kind!r}: {', '.join(WORDS)} on {', '.join(KINDS)}")
    if len(review.reason) > LONGEST or any(len(text) > LONGEST for text in review.edits.values()):
        raise BadInput(f"a text is longer than {LONGEST} characters")
    if review.verdict == "rejected" and not review.reason.strip():
        raise BadInput("a rejection needs its reason")
    if review.verdict != "corrected":
        if review.edits:
            raise BadInput(f"{review.verdict} changes nothing, and yet there are edits; say corrected")
        return review
    edits = {name: _edited(record, name, text.strip()) for name, text in review.edits.items()}
    edits = {name: text for name, text in edits.items() if text != value_of(record, name)}
    if not edits:
        raise BadInput("corrected, and yet nothing is changed; say accepted, or change something")
    return replace(review, edits=edits)


def editable(record: Question | Dialogue | Post) -> list[str]:
    """Returns the fields of a record that people may correct."""
    if isinstance(record, Question):
        return ["reference" if record.kind == "open" else "answer", "rationale"]
    if isinstance(record, Dialogue):
        return [f"turns.{n}.{part}" for n, turn in enumerate(record.turns) if turn.role == "counselor"
                for part in ("thought", "content") if getattr(turn, part) or part == "content"]  # fmt: skip
    return []


def value_of(record: Any, name: str) -> str:
    """Returns the text of a field: "answer", or "turns.3.content" of a dialogue."""
    if name.startswith("turns."):
        _, number, part = name.split(".")
        return getattr(record.turns[int(number)], part)
    return getattr(record, name)


def with_edits(record: Any, edits: dict[str, str]) -> Any:
    """Changes the fields of a record, which is the caller's own copy, and returns it."""
    for name, text in edits.items():
        if name.startswith("turns."):
            _, number, part = name.split(".")
            setattr(record.turns[int(number)], part, text)
        else:
            setattr(record, name, text)
    return record


def _edited(record: Question | Dialogue | Post, name: str, text: str) -> str:
    if name not in editable(record):
        raise BadInput(f"{name}: cannot be corrected here; {', '.join(editable(record)) or 'nothing'} can")
    if not text and not name.endswith((".thought", "rationale")):
        raise BadInput(f"{name}: empty; say rejected where nothing is right")
    if name == "answer" and isinstance(record, Question):
        checked = check_question(record.kind, record.stem, dict(zip(LETTERS, record.options, strict=False)), text)
        if isinstance(checked, Fault):
            last = LETTERS[len(record.options) - 1]
            raise BadInput(f"answer {text!r}: {checked.reason}; letters of A to {last}")
        return checked[1]
    return text
