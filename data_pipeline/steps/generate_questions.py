"""Generate questions: each book passage becomes several single- and multi-answer questions with distractors.

Psyche-R1, figure 2: from the cleaned texts of each subject one model makes questions of four options with answer and
answer text. How many a passage gives, and the prompt, are unpublished: ours.

The reply says each answer twice, by letter and by text. A question whose two answers differ is rejected: the model
had lost its own place, and a wrong key costs more than a lost question.
"""

import re
import unicodedata
from collections import Counter
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from data_pipeline.llm.structured import Failure, ask_json, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import LETTERS, Ask, Fault, Passage, Question, Reject, Request, check_question, note
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under

NAME = "generate_questions"

_BLANKS = re.compile(r"\s+")
_SEPARATORS = re.compile(r"[\s,、;/|]+")  # NFKC has made ， and ； to , and ;


class Settings(StepSettings):
    single: int = Field(default=3, ge=0, le=len(LETTERS))  # single-answer questions per passage; ours, unpublished
    multi: int = Field(default=2, ge=0, le=len(LETTERS))  # multi-answer questions per passage; ours, unpublished
    options: int = Field(default=4, ge=2, le=len(LETTERS))  # of a question; published: A to D
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Settings":
        if self.single + self.multi == 0:
            raise ValueError("single=0 and multi=0 ask for no question; raise one of them")
        return self


class Made(BaseModel):
    kind: Literal["single", "multi"]
    stem: str
    options: list[str]
    answer: str  # "B", "ACD"
    answer_text: list[str] | str


class Reply(BaseModel):
    questions: list[Made]


async def row(passage: Passage, settings: Settings, ask: Ask) -> Outcome:
    """Returns the questions of the passage, ids "<passage>/q1" and on in the order of the reply; rejects are single
    questions under their own ids, and the passage when it gave none. Of each kind no more are taken than were asked
    for, so that the most that can come is known.
    """
    outcome = Outcome(counts=Counter(passages=1))
    request = Request(NAME, passage.id, 0, _messages(passage, settings), settings.params)
    reply, calls = await ask_json(ask, request, Reply)
    outcome.counts += under("calls", calls)
    where = passage.meta.get("where", passage.id)
    questions = [] if isinstance(reply, Failure) else reply.questions
    asked_for, seen = {"single": settings.single, "multi": settings.multi}, Counter()
    for number, made in enumerate(questions, 1):
        seen[made.kind] += 1
        if seen[made.kind] > asked_for[made.kind]:
            question = Fault("more questions than asked for", f"{asked_for[made.kind]} {made.kind}")
        else:
            question = _question(passage, number, made, settings)
        if isinstance(question, Fault):
            outcome.rejects.append(Reject(f"{passage.id}/q{number}", where, question.code, question.detail))
            outcome.counts["fault", question.code] += 1
        else:
            outcome.rows.append(question)
            told = {"subject": question.subject, "kind": question.kind, "key": question.answer}
            outcome.counts.update(["questions", *told.items()])
    if not outcome.rows:
        none = f"none of its {len(questions)} questions can be used" if questions else "an empty list"
        why = reply.reason if isinstance(reply, Failure) else none
        outcome.rejects.append(Reject(passage.id, where, "no questions", why))
        outcome.counts["passages_without_questions"] += 1
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how many questions there are by subject, kind and key, and why others cannot be used."""
    return {
        "passages": counts["passages"],
        "passages_without_questions": counts["passages_without_questions"],
        "questions": counts["questions"],
        "asked_for": (settings.single + settings.multi) * counts["passages"],
        "faults": dict(counts_under(counts, "fault").most_common()),
        "subjects": dict(counts_under(counts, "subject").most_common()),
        "kinds": dict(counts_under(counts, "kind").most_common()),
        "keys": dict(sorted(counts_under(counts, "key").items())),  # a lopsided one teaches a letter
        "calls": calls_report(counts),
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    each = settings.single + settings.multi
    questions = Size(each * size.rows, chars=100 * each * size.rows)  # stem and options; ours
    return Calls(
        expected=size.rows,
        most=2 * size.rows,  # each reply repaired once
        out=questions,
        most_out=questions,
        prompt_chars=size.chars / (size.rows or 1),
        reply_chars=200 * each,  # with the keys of JSON and the answer's text
    )


def _messages(passage: Passage, settings: Settings) -> list[dict]:
    text = render(
        NAME,
        subject=passage.subject,
        text=passage.text,
        single=settings.single,
        multi=settings.multi,
        letters=LETTERS[: settings.options],
    )
    return [{"role": "user", "content": text}]


def _question(passage: Passage, number: int, made: Made, settings: Settings) -> Question | Fault:
    """Returns the question, or the fault for which it is not trusted."""
    options, told = made.options, [made.answer_text] if isinstance(made.answer_text, str) else made.answer_text
    if all(_own_letter(i).match(text) for i, text in enumerate(options)):  # "A. 甲": the letter is no part of the text
        told = [re.sub(r"^\s*[A-Z][.．、:：)）]\s*", "", text) for text in told]
        options = [_own_letter(i).sub("", text) for i, text in enumerate(options)]
    if len(options) != settings.options:
        return Fault("another number of options", f"{len(options)}, {settings.options} were asked for")
    if empty := [LETTERS[i] for i, text in enumerate(options) if not text.strip()]:
        return Fault("an empty option", "".join(empty))
    if len({_plain(text) for text in options}) < len(options):
        return Fault("two options are the same", " | ".join(options))
    checked = check_question(made.kind, made.stem, dict(zip(LETTERS, options, strict=False)), made.answer)
    if isinstance(checked, Fault):
        return checked
    options, answer = checked
    if made.kind == "multi" and len(answer) < 2:
        return Fault("a single letter on a multi-answer question", answer)
    expected = [options[LETTERS.index(letter)] for letter in answer]
    joined = len(told) == 1 and _joined(told[0]) == _joined("".join(expected))  # "甲、乙" for two options
    if not joined and sorted(map(_plain, told)) != sorted(map(_plain, expected)):
        detail = f"{answer} is {'；'.join(expected)}, told {'；'.join(told)}"
        return Fault("the answer text does not match the letters", detail)
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
    note(question, NAME, row=passage.id, sample=0, prompt=prompt_hash(NAME))
    return question


def _own_letter(place: int) -> re.Pattern:
    return re.compile(rf"^\s*{LETTERS[place]}[.．、:：)）]\s*")


def _plain(text: str) -> str:
    return _BLANKS.sub("", unicodedata.normalize("NFKC", text)).rstrip("。.;").lower()


def _joined(text: str) -> str:
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text)).rstrip("。.;").lower()


STEP = Step(
    takes=(Passage,),
    settings=Settings,
    row=row,
    makes=Question,
    asks="model",
    calls=calls,
    report=report,
)
