"""Filter quality: a model's verdict on each question; only one that is good in every respect goes on.

Psyche-R1, figure 2: an "LLM Filter" for quality after the duplicates are gone and before people review. Its model,
prompt and criteria are unpublished: the five here and the rule that all must hold are ours.
"""

from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json, calls_report, under
from data_pipeline.prompts import prompt_hash, question_messages, render
from data_pipeline.records import Ask, Passage, Question, Reject, Request, note
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, open_question, tidy

NAME = "filter_quality"

# What a rejected question's reason says of a criterion that does not hold.
CRITERIA = {
    "answerable": "cannot be answered from its passage or common knowledge",
    "correct": "the key is wrong",
    "exact": "the key is not exactly the right options",
    "no_leak": "the wording gives the answer away",
    "fluent": "not fluent",
}


class Settings(StepSettings):
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own


class Verdict(BaseModel):
    answerable: bool
    correct: bool
    exact: bool
    no_leak: bool
    fluent: bool
    reasons: str | list[str]


async def row(question: Question, settings: Settings, ask: Ask, passages: Mapping[str, Passage]) -> Outcome:
    """Returns the question when it passes, the verdict in meta["quality"]; else a reject with the verdict's reasons.

    `passages` are those that questions were made from (meta["passage"]). Without any, common knowledge has to do;
    raises BadInput when some are given but the question's is not among them.
    """
    outcome = Outcome(counts=Counter({"in": 1, "with_passage": question.meta.get("passage") in passages}))
    if question.kind == "open":
        outcome.rejects.append(open_question(question))
        return outcome
    request = Request(NAME, question.id, 0, _messages(question, passages), settings.params)
    verdict, calls = await ask_json(ask, request, Verdict)
    outcome.counts += under("calls", calls)
    where = question.meta.get("where", question.id)
    if isinstance(verdict, Failure):
        outcome.counts["no_verdict"] += 1
        outcome.rejects.append(Reject(question.id, where, "no verdict", verdict.reason))
        return outcome
    told = verdict.reasons if isinstance(verdict.reasons, str) else "；".join(verdict.reasons)
    failed = [name for name in CRITERIA if not getattr(verdict, name)]
    outcome.counts["subject", question.subject, "in"] += 1
    outcome.counts["subject", question.subject, "passed"] += not failed
    outcome.counts.update(("fault", name) for name in failed)
    if failed:
        named = ", ".join(CRITERIA[name] for name in failed)
        outcome.rejects.append(Reject(question.id, where, "quality", f"{named} ({told.strip()})"))
        return outcome
    question = tidy(question)
    question.meta["quality"] = {name: True for name in CRITERIA} | {"reasons": told.strip()}
    note(question, NAME, row=question.id, sample=0, prompt=prompt_hash(NAME))
    outcome.rows.append(question)
    outcome.counts["passed"] += 1
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how often each criterion failed, and by subject how many passed."""
    subjects = list(counts_under(counts, "subject"))
    return {
        "in": counts["in"],
        "passed": counts["passed"],
        "no_verdict": counts["no_verdict"],
        "with_passage": counts["with_passage"],
        "faults": {name: counts["fault", name] for name in CRITERIA},
        "subjects": {name: {key: counts["subject", name, key] for key in ("in", "passed")} for name in subjects},
        "calls": calls_report(counts),
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    return Calls(
        expected=size.rows,
        most=2 * size.rows,  # each reply repaired once
        out=size,
        most_out=size,
        prompt_chars=size.chars / (size.rows or 1) + 400,  # the question, and as a rule half a passage; ours
        reply_chars=150,
    )


def _messages(question: Question, passages: Mapping[str, Passage]) -> list[dict]:
    passage = question.meta.get("passage", "")
    if passages and passage and passage not in passages:
        raise BadInput(
            f"{NAME}: the question {question.id!r} was made from the passage {passage!r}, which is not among the "
            f"{len(passages)} given; give the passages of the same run"
        )
    asked, text = question_messages(question)[-1]["content"], passages[passage].text if passage in passages else ""
    prompt = render(NAME, kind=question.kind, question=asked, answer=question.answer, passage=text)
    return [{"role": "user", "content": prompt}]


STEP = Step(
    takes=(Question,),
    settings=Settings,
    row=row,
    asks="model",
    needs=("passages",),
    calls=calls,
    report=report,
)
