"""Generate questions: each book passage becomes several single- and multi-answer questions with distractors.

Psyche-R1, figure 2: from the cleaned texts of each subject one model makes questions of four options with answer and
answer text. How many a passage gives, and the prompt, are unpublished: ours.

The reply says each answer twice, by letter and by text. A question whose two answers differ is rejected: the model
had lost its own place, and a wrong key costs more than a lost question.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import LETTERS, Ask, Passage, Question, Reject, Request, check_question, note
from data_pipeline.steps import Result

STEP = "generate_questions"

_BLANKS = re.compile(r"\s+")
_SEPARATORS = re.compile(r"[\s,、;/|]+")  # NFKC has made ， and ； to , and ;


@dataclass(frozen=True)
class Settings:
    single: int = 3  # questions per passage; ours, unpublished
    multi: int = 2  # ours, unpublished
    options: int = 4  # the paper: A to D
    params: dict = field(default_factory=dict)  # of the request: temperature, max_tokens...; ours, the server's own

    def __post_init__(self) -> None:
        for name, least in (("single", 0), ("multi", 0), ("options", 2)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= len(LETTERS):
                raise BadInput(f"{STEP}: {name}={value!r}; a whole number from {least} to {len(LETTERS)}")
        if self.single + self.multi == 0:
            raise BadInput(f"{STEP}: single=0 and multi=0 ask for no question; raise one of them")


class Made(BaseModel):
    kind: Literal["single", "multi"]
    stem: str
    options: list[str]
    answer: str  # "B", "ACD"
    answer_text: list[str] | str


class Reply(BaseModel):
    questions: list[Made]


def run(rows: list[Passage], settings: Settings, ask: Ask) -> Result:
    """Returns the questions of all passages, ids "<passage>/q1" and on in the order of the reply; rejects are single
    questions under their own ids, and passages that gave none. The report has the counts by subject, kind and key.
    """
    requests = [Request(STEP, p.id, 0, _messages(p, settings), settings.params) for p in rows]
    result, faults = Result([]), Counter()
    replies, calls = ask_json(ask, requests, Reply)
    for passage, reply in zip(rows, replies, strict=True):
        where = passage.meta.get("where", passage.id)
        if isinstance(reply, Failure):
            result.rejects.append(Reject(passage.id, where, f"no questions: {reply.reason}"))
            continue
        good = 0
        for number, made in enumerate(reply.questions, 1):
            question = _question(passage, number, made, settings)
            if isinstance(question, Question):
                result.rows.append(question)
                good += 1
            else:
                result.rejects.append(Reject(f"{passage.id}/q{number}", where, question))
                faults[question.split(":")[0]] += 1
        if not good:
            told = f"none of its {len(reply.questions)} questions can be used" if reply.questions else "an empty list"
            result.rejects.append(Reject(passage.id, where, f"no questions: {told}"))
    kept = result.rows
    result.report = {
        "passages": len(rows),
        "passages_without_questions": len(rows) - len({q.meta["passage"] for q in kept}),
        "questions": len(kept),
        "asked_for": (settings.single + settings.multi) * len(rows),
        "faults": dict(faults.most_common()),
        "subjects": dict(Counter(q.subject for q in kept).most_common()),
        "kinds": dict(Counter(q.kind for q in kept).most_common()),
        "keys": dict(sorted(Counter(q.answer for q in kept).items())),  # a lopsided one teaches a letter
        "calls": calls,
    }
    return result


def _messages(passage: Passage, settings: Settings) -> list[dict]:
    text = render(
        STEP,
        subject=passage.subject,
        text=passage.text,
        single=settings.single,
        multi=settings.multi,
        letters=LETTERS[: settings.options],
    )
    return [{"role": "user", "content": text}]


def _question(passage: Passage, number: int, made: Made, settings: Settings) -> Question | str:
    """Returns the question, or why it cannot be trusted."""
    options, told = made.options, [made.answer_text] if isinstance(made.answer_text, str) else made.answer_text
    if all(_own_letter(i).match(text) for i, text in enumerate(options)):  # "A. 甲": the letter is no part of the text
        told = [re.sub(r"^\s*[A-Z][.．、:：)）]\s*", "", text) for text in told]
        options = [_own_letter(i).sub("", text) for i, text in enumerate(options)]
    if len(options) != settings.options:
        return f"another number of options: {len(options)}, {settings.options} were asked for"
    if empty := [LETTERS[i] for i, text in enumerate(options) if not text.strip()]:
        return f"an empty option: {''.join(empty)}"
    if len({_plain(text) for text in options}) < len(options):
        return f"two options are the same: {' | '.join(options)}"
    checked = check_question(made.kind, made.stem, dict(zip(LETTERS, options, strict=False)), made.answer)
    if isinstance(checked, str):
        return checked
    options, answer = checked
    if made.kind == "multi" and len(answer) < 2:
        return f"a single letter on a multi-answer question: {answer}"
    expected = [options[LETTERS.index(letter)] for letter in answer]
    joined = len(told) == 1 and _joined(told[0]) == _joined("".join(expected))  # "甲、乙" for two options
    if not joined and sorted(map(_plain, told)) != sorted(map(_plain, expected)):
        return f"the answer text does not match the letters: {answer} is {'；'.join(expected)}, told {'；'.join(told)}"
    meta = {"parents": [passage.id], "passage": passage.id, "trail": list(passage.meta.get("trail", ()))}
    if "where" in passage.meta:
        meta["where"] = passage.meta["where"]
    question = Question(
        id=f"{passage.id}/q{number}",
        source=passage.source,
        subject=passage.subject,
        kind=made.kind,
        stem=made.stem.strip(),
        options=options,
        answer=answer,
        meta=meta,
    )
    note(question, STEP, row=passage.id, sample=0, prompt=prompt_hash(STEP))
    return question


def _own_letter(place: int) -> re.Pattern:
    return re.compile(rf"^\s*{LETTERS[place]}[.．、:：)）]\s*")


def _plain(text: str) -> str:
    return _BLANKS.sub("", unicodedata.normalize("NFKC", text)).rstrip("。.;").lower()


def _joined(text: str) -> str:
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text)).rstrip("。.;").lower()
