"""The few types that every step speaks, and the JSONL files they are kept in.

Readers in `data_pipeline/sources/` yield these records; exporters in `data_pipeline/export/` take them.
"""

import os
import re
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonlines
import orjson

from data_pipeline.errors import BadInput

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The keys of a record's `meta`, and who sets them.
META = (
    # readers
    "where",  # file and row or passage
    "file",  # the file's own name, in its folder or archive
    "released_id",  # the id that the data set gives the row
    "post_id",  # the post that an OpenR1-Psy dialogue is about
    "category",  # CPsyExam's, from its mapping.json: "CA-单项选择题"
    "family",  # CPsyExam's kind of question: "knowledge", "analyse"
    "cell",  # PCEB's section: "cases", "moral", "theory"
    "topic",  # what a dialogue is about, as the data set says
    "benchmark",  # of dialogues: the evaluation set that they are, which is no training data
    "encoding",  # of the text file of a passage
    "heading",  # above a passage
    "merged_turns",  # turns that were joined to the one before, of the same speaker
    # steps
    "trail",  # what each step did: see `note`
    "parents",  # ids of the records that this one was made from
    "passage",  # id of the passage that a question was made from
    "crisis",  # flags of crisis content in what the client or the passage says
    "crisis_replies",  # and in what replies say
    "quality",  # filter_quality's verdict
    "rationale",  # write_rationales: prompt and round
    "selection",  # select_challenging: split, why, counts
    "original",  # the reply before rewrite_empathy
    "check",  # rewrite_empathy's verdict on its rewriting
    "plan",  # plan_dialogue: emotion, rounds, themes; None for a crisis post without one
    "answer",  # of a crisis dialogue: "guidance" or "rewritten"
    "validation",  # validate_dialogue's verdict
)


@dataclass(slots=True)
class Question:
    id: str
    source: str  # reader that made it: "cpsyexam", "pceb", "table"
    subject: str
    kind: str  # "single" | "multi" | "open"
    stem: str
    options: list[str]  # lettered A, B, C... by position; [] for open questions
    answer: str  # sorted letters, "ABD"; "" for open questions
    context: str = ""  # case introduction
    reference: str = ""  # model answer of an open question
    rationale: str = ""
    meta: dict = field(default_factory=dict)  # provenance; its keys are META


@dataclass(slots=True)
class Turn:
    role: str  # "system" | "client" | "counselor"
    content: str
    thought: str = ""


@dataclass(slots=True)
class Dialogue:
    id: str
    source: str
    turns: list[Turn]
    meta: dict = field(default_factory=dict)


@dataclass(slots=True)
class Passage:
    id: str
    source: str
    subject: str  # branch of psychology: "发展心理学"
    text: str
    meta: dict = field(default_factory=dict)


@dataclass(slots=True)
class Post:
    id: str
    source: str
    title: str
    text: str  # what the person seeking help wrote
    replies: list[str]  # of people who answered, best first
    meta: dict = field(default_factory=dict)


BROKEN_JSON = "broken JSON"  # the code of a Fault
REFUSED, TOOL_CALLS = "refused", "tool_calls"
NO_TEXT = {REFUSED: "the model refuses", TOOL_CALLS: "a call of a tool in place of a reply"}


@dataclass(slots=True)
class Response:
    text: str
    finish: str  # "stop" | "length" | "failed", or one of NO_TEXT
    tokens: int  # of the completion
    reasoning: str = ""  # a thought that the server has split off
    prompt_tokens: int = 0
    error: str = ""  # why it failed
    passing: bool = False  # a fault that may pass: asked again it may be answered


@dataclass(slots=True)
class Reject:
    id: str
    where: str  # file and row
    code: str  # why: one of the few phrases that a reader or step has, which are counted
    detail: str = ""  # of this one: what was found, which turn, what a model said

    @property
    def reason(self) -> str:
        """For people: code and detail."""
        return Fault(self.code, self.detail).reason


class Fault(NamedTuple):
    """Why a record cannot be used: code and detail of the Reject that it becomes."""

    code: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """For people: code and detail."""
        return f"{self.code}: {self.detail}" if self.detail else self.code


@dataclass(frozen=True)
class Request:
    """What a step asks a model for one row; named by (step, row, sample) in the ledger and in recorded replies."""

    step: str
    row: str
    sample: int
    messages: list[dict]
    params: dict = field(default_factory=dict)  # temperature, top_p, max_tokens...: sent as they are, without the Nones
    shape: type | None = None  # pydantic model of a JSON reply; its schema is sent where the server has `json_schema`


# Awaited by a step; gives the responses in the order of the requests, a failed one with finish "failed".
Ask = Callable[[list[Request]], Awaitable[list[Response]]]


# Punctuation and blanks that stand between letters of a key, as in "A、B、D" or "ABD\xa0".
_SEPARATORS = re.compile(r"[\s,，、;；./|]+")


def check_question(kind: str, stem: str, options: dict[str, str], key: object) -> tuple[list[str], str] | Fault:
    """Returns (option texts by position, sorted answer letters), or the Fault for which the question is not trusted.

    `options` maps letters to texts; empty texts are options that the paper did not print. Nothing is repaired: only
    blanks and separators between the letters of the key are read over.
    """
    if not stem.strip():
        return Fault("no question text")
    if any([not isinstance(text, str | None) for text in options.values()]):
        odd = next(text for text in options.values() if not isinstance(text, str | None))
        return Fault("an option that is no text", repr(odd)[:80])
    given = {letter.strip().upper(): text.strip() for letter, text in options.items() if text and text.strip()}
    letters = sorted(given)
    if len(letters) < 2:
        return Fault("fewer than two options", "".join(letters) or "none")
    if letters != list(LETTERS[: len(letters)]):
        return Fault("a gap in the option letters", "".join(letters))
    return check_key(kind, [given[letter] for letter in letters], key)


def check_key(kind: str, options: list[str], key: object) -> tuple[list[str], str] | Fault:
    """Returns as `check_question`, of a question whose texts are whole."""
    letters = LETTERS[: len(options)]
    if not isinstance(key, str) or not key.strip():
        return Fault("no answer")
    answer = _SEPARATORS.sub("", key).upper()
    if not (answer.isascii() and answer.isalpha()):
        return Fault("the answer is not letters alone", repr(key.strip()))
    if beyond := sorted(set(answer).difference(letters)):
        detail = f"{''.join(beyond)} of {answer}, options A to {letters[-1]}"
        return Fault("the answer names a letter beyond the options", detail)
    if len(set(answer)) != len(answer):
        return Fault("the answer repeats a letter", answer)
    if kind == "single" and len(answer) > 1:
        return Fault("several letters on a single-answer question", answer)
    return options, "".join(sorted(answer))


def json_or_fault(content: bytes) -> object:
    """Returns the JSON value, or a Fault whose detail is line, column and what is wrong there."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return Fault(BROKEN_JSON, f"line {error.lineno}, column {error.colno}: {error.msg}")


def _dumps(row: dict) -> str:
    return orjson.dumps(row).decode()


def write_jsonl(path: Path, rows: Iterable, mode: int = 0o666) -> int:
    """Writes records or dicts to `path` in one move (never half a file) and returns their number.

    `mode` is the file's, less what the umask takes; 0o600 for what people said.
    """
    rows = list(rows)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a killed run's would keep its mode
    partial.touch(mode)
    with jsonlines.open(partial, "w", dumps=_dumps) as file:
        for row in rows:
            file.write(row if isinstance(row, dict) else asdict(row))
    os.replace(partial, path)
    return len(rows)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Writes a file in one move: a kill or a full disk leaves the one before, never half of it. `mode` as above."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """Yields (line number from 1, object); raises BadInput with file and line for anything that is not an object."""
    try:
        with jsonlines.open(path, loads=orjson.loads) as file:
            yield from ((number, row) for row, number in _numbered(file, path))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from None


def _numbered(file: jsonlines.Reader, path: Path) -> Iterator[tuple[dict, int]]:
    number = 0
    while True:
        number += 1
        try:
            yield file.read(type=dict, skip_empty=False), number
        except EOFError:
            return
        except jsonlines.InvalidLineError as error:
            reason = str(error.__cause__ or error).split("\n")[0]
            raise BadInput(f"{path} line {error.lineno}: not a JSON object ({reason})") from None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line) of a file of records; raises BadInput for one that is not there."""
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None


def line_of(record: object) -> bytes:
    """Returns the line of a file of records, with its end, that holds the record, a dataclass or a dict."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def parse_record(kind: type, path: Path, number: int, line: bytes) -> Any:
    """Returns the record of a line; raises BadInput with file and line for one of another shape."""
    row = json_or_fault(line)
    if not isinstance(row, dict):
        what = row.reason if isinstance(row, Fault) else f"a {type(row).__name__}"
        raise BadInput(f"{path} line {number}: not a JSON object ({what})")
    if row.keys() != _names(kind):
        odd = ", ".join(sorted(row.keys() ^ _names(kind)))
        raise BadInput(f"{path} line {number}: not a {kind.__name__} of this version (keys that differ: {odd})")
    if kind is Dialogue:
        row["turns"] = [Turn(**turn) for turn in row["turns"]]
    return kind(**row)


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))


def read_records(path: Path, kind: type) -> Iterator:
    """Yields the records (Question, Passage, Post, Dialogue or Reject) of a file that `write_jsonl` wrote.

    Raises BadInput with file and line for rows of another shape.
    """
    for number, line in read_lines(path):
        yield parse_record(kind, path, number, line)


class RecordFile(Sequence):
    """The records of a file, each parsed when it is looked at: in memory is only where each line begins.

    `with RecordFile(path, Post) as posts`; raises BadInput as `read_records` does.
    """

    def __init__(self, path: Path, kind: type) -> None:
        self.path, self.kind = path, kind
        self.begins = array("Q", [0])
        for _, line in read_lines(path):
            self.begins.append(self.begins[-1] + len(line))

    def __enter__(self) -> "RecordFile":
        self.file = self.path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.begins) - 1

    def __getitem__(self, place: int) -> Any:
        begin, end = self.begins[place], self.begins[place + 1]
        return parse_record(self.kind, self.path, place + 1, os.pread(self.file.fileno(), end - begin, begin))

    def __iter__(self) -> Iterator:
        return read_records(self.path, self.kind)


def read_questions(path: Path) -> Iterator[Question]:
    """Yields the questions of a file; raises BadInput as `read_records` does."""
    return read_records(path, Question)


def note(record, step: str, **facts) -> None:
    """Appends {"step": step, **facts} to the record's trail; facts of a call are row, sample and prompt (its hash)."""
    record.meta.setdefault("trail", []).append({"step": step, **facts})
