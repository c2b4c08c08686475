"""Filter quality: a model's verdict on each question; only one that is good in every respect goes on.

Psyche-R1, figure 2: an "LLM Filter" for quality after the duplicates are gone and before people review. Its model,
prompt and criteria are unpublished: the five here and the rule that all must hold are ours.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json
from data_pipeline.prompts import prompt_hash, question_messages, render
from data_pipeline.records import Ask, Passage, Question, Reject, Request, note
from data_pipeline.steps import Result

STEP = "filter_quality"

# What a rejected question's reason says of a criterion that does not hold.
CRITERIA = {
    "answerable": "cannot be answered from its passage or common knowledge",
    "correct": "the key is wrong",
    "exact": "the key is not exactly the right options",
    "no_leak": "the wording gives the answer away",
    "fluent": "not fluent",
}


@dataclass(frozen=True)
class Settings:
    params: dict = field(default_factory=dict)  # of the request: temperature, max_tokens...; ours, the server's own


class Verdict(BaseModel):
    answerable: bool
    correct: bool
    exact: bool
    no_leak: bool
    fluent: bool
    reasons: str | list[str]


def run(rows: list[Question], settings: Settings, ask: Ask, passages: Iterable[Passage] = ()) -> Result:
    """Returns the questions that pass, their verdicts in meta["quality"]; the others are rejects with the verdict's
    reasons. The report has how often each criterion failed, and by subject how many passed.

    `passages` are those the questions were made from (meta["passage"]). Without any, common knowledge has to do;
    raises BadInput when some are given but a question's is not among them.
    """
    texts = {passage.id: passage.text for passage in passages}
    result, faults, passed = Result([], open_questions(rows)), Counter(), {}
    keyed = [q for q in rows if q.kind != "open"]
    requests = [Request(STEP, q.id, 0, _messages(q, texts), settings.params) for q in keyed]
    verdicts, calls = ask_json(ask, requests, Verdict)
    for question, verdict in zip(keyed, verdicts, strict=True):
        where = question.meta.get("where", question.id)
        if isinstance(verdict, Failure):
            result.rejects.append(Reject(question.id, where, f"no verdict: {verdict.reason}"))
            continue
        counts = passed.setdefault(question.subject, {"in": 0, "passed": 0})
        counts["in"] += 1
        told = verdict.reasons if isinstance(verdict.reasons, str) else "；".join(verdict.reasons)
        failed = [name for name in CRITERIA if not getattr(verdict, name)]
        faults.update(failed)
        if failed:
            named = ", ".join(CRITERIA[name] for name in failed)
            result.rejects.append(Reject(question.id, where, f"quality: {named} ({told.strip()})"))
            continue
        counts["passed"] += 1
        question.meta["quality"] = {name: True for name in CRITERIA} | {"reasons": told.strip()}
        note(question, STEP, row=question.id, sample=0, prompt=prompt_hash(STEP))
        result.rows.append(question)
    result.report = {
        "in": len(rows),
        "passed": len(result.rows),
        "no_verdict": len(keyed) - sum(counts["in"] for counts in passed.values()),
        "with_passage": sum(q.meta.get("passage") in texts for q in rows),
        "faults": {name: faults[name] for name in CRITERIA},
        "subjects": passed,
        "calls": calls,
    }
    return result


def open_questions(rows: list[Question]) -> list[Reject]:
    """Returns a Reject for each open question: without a key no step can tell a right answer."""
    return [
        Reject(q.id, q.meta.get("where", q.id), "an open question: no key to check an answer against")
        for q in rows
        if q.kind == "open"
    ]


def _messages(question: Question, texts: dict[str, str]) -> list[dict]:
    passage = question.meta.get("passage", "")
    if texts and passage and passage not in texts:
        raise BadInput(
            f"{STEP}: the question {question.id!r} was made from the passage {passage!r}, which is not among the "
            f"{len(texts)} given; give the passages of the same run"
        )
    asked = question_messages(question)[-1]["content"]
    text = render(STEP, kind=question.kind, question=asked, answer=question.answer, passage=texts.get(passage, ""))
    return [{"role": "user", "content": text}]
