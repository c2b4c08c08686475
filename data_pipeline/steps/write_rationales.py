"""Write rationales: a chain-of-thought answer per question, then T rounds of prompt-rationale optimisation.

Psyche-R1, figure 2: question q_i is answered with prompt P, giving rationale r_i and answer â_i; if â_i is the key,
(P, q_i, r_i) is the initial instance. In each of T rounds a candidate prompt P_i* is derived from the instance and q_i
is answered with it; if that answer is the key, (P_i*, q_i, r_i*) takes the instance's place, else nothing changes.
So every question ends with a prompt of its own. T, P and the prompt that derives P_i* are unpublished: ours.

Also ours: a candidate that gives the answer away changes nothing, since its author has seen the key in r_i; the output
format stays outside the prompt that is rewritten. A question that P does not get right has no instance and no rounds.
It goes on **without a rationale**: it cannot be an SFT row, and selection, the next step, may send it to GRPO.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from data_pipeline.llm.structured import Failure, ask_json, calls_report, under
from data_pipeline.prompts import prompt_hash, question_messages, render
from data_pipeline.records import LETTERS, Ask, Fault, Question, Reject, Request, Response, note
from data_pipeline.safety.cleaning import checked_reply
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, open_question, tidy
from reward.answer import read_answer
from reward.thought import split_thought, template_opened

NAME, OPTIMISE, COMPARE = "write_rationales", "optimise_prompt", "compare_rationales"
NO_ANSWER = "no answer"  # a failed request, asked again by the next run
QUOTE = 4  # characters of a right option's text from which on a candidate prompt that holds it quotes it; ours

# An option by its letter: "答案是A", "排除 B", "C项", "选项D正确".
_NAMED = re.compile(
    r"(?:答案|选项?|排除|正确|错误)[^，。；\nA-Za-z]{0,6}(?<![A-Za-z])(?P<letter>[A-Z])(?=[A-Z]*(?![A-Za-z]))"
    r"|(?<![A-Za-z])(?P<second>[A-Z])\s*(?:选?项|正确|错误|不?对|不?成立)"
)


class Settings(StepSettings):
    rounds: int = Field(default=2, ge=0)  # T, of optimising the prompt; ours, unpublished. 0: the first answers alone
    judge: bool = False  # ours: a right answer also has to be the better rationale, else nothing changes
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own


class Candidate(BaseModel):
    prompt: str


class Preference(BaseModel):
    better: Literal["甲", "乙", "相当"]
    reasons: str


@dataclass
class _Instance:
    """The current (P_i, q_i, r_i)."""

    question: Question
    prompt: str
    rationale: str
    round: int = 0


class _Answer(NamedTuple):
    rationale: str = ""
    letters: str | None = None
    fault: Fault | None = None  # why it cannot be an instance
    passing: bool = False  # no reply came, and one may come when it is asked again

    @property
    def why(self) -> str:
        """For people: the fault, or ""."""
        return self.fault.reason if self.fault else ""


async def row(question: Question, settings: Settings, ask: Ask) -> Outcome:
    """Returns the question if its model answered: with a rationale and meta["rationale"] {"prompt", "round"}, or
    without where P was never right, listed in files["unsolved"]. A failed request and an open question are rejects. A
    question that brings a rationale keeps it and is not asked. files["traces"] has one dict per round.
    """
    outcome = Outcome(counts=Counter({"in": 1}))
    if question.kind == "open":
        outcome.rejects.append(open_question(question))
        return outcome
    if question.rationale:
        outcome.counts["brought"] += 1
        outcome.rows.append(question)
        return outcome
    question, where = tidy(question), question.meta.get("where", question.id)
    start = render("rationale_prompt")
    answer = await _answer(question, start, 0, settings, ask)
    if answer.fault and answer.fault.code == NO_ANSWER:
        outcome.counts["failed"] += 1
        outcome.rejects.append(Reject(question.id, where, *answer.fault))
        return outcome
    outcome.rows.append(question)
    traces = [(start, answer)]
    if answer.fault:
        told = {"id": question.id, "where": where, "key": question.answer, "letters": answer.letters}
        outcome.files["unsolved"] = [told | {"why": answer.why}]
        outcome.counts["unsolved"] += 1
    else:
        instance = _Instance(question, start, answer.rationale)
        for number in range(1, settings.rounds + 1):
            traces.append(await _round(instance, number, settings, ask, outcome.counts))
            if traces[-1][1].passing:
                break  # the rounds behind it follow from what it brings when it is asked again
        question.rationale = instance.rationale
        question.meta["rationale"] = {"prompt": instance.prompt, "round": instance.round}
        outcome.counts["final_round", str(instance.round)] += 1
    outcome.files["traces"] = [_trace(question, number, *trace) for number, trace in enumerate(traces)]
    outcome.counts.update(
        ("round", number, answer.fault.code if answer.fault else "taken") for number, (_, answer) in enumerate(traces)
    )
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how many questions got a rationale, in which round it was written, and what became of each round."""
    rounds = [
        Counter({key[2]: count for key, count in counts.items() if key[:2] == ("round", number)})
        for number in range(settings.rounds + 1)
    ]
    final = counts_under(counts, "final_round")
    asked = [OPTIMISE, COMPARE][: 1 + settings.judge] if settings.rounds else []
    return {
        "in": counts["in"],
        "brought_a_rationale": counts["brought"],
        "solved": sum(final.values()),
        "unsolved": counts["unsolved"],
        "failed": counts["failed"],
        "final_round": dict(sorted(final.items())),
        "rounds": {str(number): dict(of.most_common()) for number, of in enumerate(rounds) if of},
        "calls": {f"{name} {key}": count for name in asked for key, count in calls_report(counts, name).items()},
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    return Calls(
        expected=size.rows * (1 + settings.rounds * (3 if settings.judge else 2)),
        most=size.rows * (1 + settings.rounds * (5 if settings.judge else 3)),  # candidate and comparison repaired once
        out=size,
        most_out=size,
        prompt_chars=size.chars / (size.rows or 1) + 400,  # the question; the prompt and mostly a rationale besides
        reply_chars=400,
    )


def read_rationale(response: Response, question: Question) -> _Answer:
    """Returns rationale and letters of an answer, and the fault for which it cannot be an instance (None if it can).

    The thought is what stands in <think></think>, also where the chat template has opened it, or else what the server
    has split off.
    """
    if response.finish == "failed":
        return _Answer(fault=Fault(NO_ANSWER, response.error), passing=response.passing)
    opened = template_opened(response.text)
    thought, _ = split_thought(response.text, opened)
    rationale = (thought or response.reasoning).strip()
    letters = read_answer(response.text, question.options, opened)
    if response.finish == "length":
        fault = Fault("cut", "the answer reached max_tokens")
    elif letters is None:
        fault = Fault("unreadable")
    elif letters != question.answer:
        fault = Fault("wrong", letters)
    elif not rationale:
        fault = Fault("no thought")
    elif "<think>" in rationale or "</think>" in rationale:
        fault = Fault("a tag inside the thought")
    elif isinstance(checked := checked_reply(rationale), Fault):
        fault = checked
    else:
        rationale, fault = checked, None
    return _Answer(rationale, letters, fault)


def gives_away(prompt: str, question: Question) -> Fault | None:
    """Returns the Fault of a candidate prompt that gives the answer away, or None."""
    for match in _NAMED.finditer(prompt):
        if (match["letter"] or match["second"]) in LETTERS[: len(question.options)]:
            return Fault("gives the answer away", f"it names an option ({match[0]})")
    asked = question.context + question.stem
    for letter in question.answer:
        text = question.options[LETTERS.index(letter)]
        if len(text) >= QUOTE and text in prompt and text not in asked:
            return Fault("gives the answer away", f"it quotes {letter}")
    return None


async def _round(
    instance: _Instance, number: int, settings: Settings, ask: Ask, counts: Counter
) -> tuple[str, _Answer]:
    """Returns the candidate prompt and its answer; the two have taken the instance's place unless there is a fault."""
    question = instance.question
    text = render(OPTIMISE, prompt=instance.prompt, question=_asked(question), rationale=instance.rationale)
    request = Request(OPTIMISE, question.id, number, [{"role": "user", "content": text}], settings.params)
    reply, calls = await ask_json(ask, request, Candidate)
    counts.update(under(OPTIMISE, calls))
    if isinstance(reply, Failure):
        return "", _Answer(fault=Fault("no candidate", reply.reason), passing=reply.passing)
    note(question, OPTIMISE, row=question.id, sample=number, prompt=prompt_hash(OPTIMISE))
    prompt = reply.prompt.strip()
    if fault := gives_away(prompt, question) if prompt else Fault("no candidate", "an empty prompt"):
        return prompt, _Answer(fault=fault)
    answer = await _answer(question, prompt, number, settings, ask)
    if settings.judge and not answer.fault:
        request, place = _comparison(instance, answer, number, settings)
        preference, calls = await ask_json(ask, request, Preference)
        counts.update(under(COMPARE, calls))
        passing = isinstance(preference, Failure) and preference.passing
        answer = answer._replace(fault=_not_better(preference, place), passing=passing)
        if not isinstance(preference, Failure):
            note(question, COMPARE, row=question.id, sample=number, prompt=prompt_hash(COMPARE))
    if not answer.fault:
        instance.prompt, instance.rationale, instance.round = prompt, answer.rationale, number
    return prompt, answer


async def _answer(question: Question, prompt: str, sample: int, settings: Settings, ask: Ask) -> _Answer:
    messages = [{"role": "system", "content": render(NAME, prompt=prompt)}, question_messages(question)[-1]]
    response = (await ask([Request(NAME, question.id, sample, messages, settings.params)]))[0]
    if response.finish != "failed":
        note(question, NAME, row=question.id, sample=sample, prompt=prompt_hash(NAME if sample else "rationale_prompt"))
    return read_rationale(response, question)


def _comparison(instance: _Instance, answer: _Answer, number: int, settings: Settings) -> tuple[Request, str]:
    """Returns the request, and where in it the new rationale stands."""
    question = instance.question
    # Judges lean to one side: which one is the new rationale's is drawn from id and round.
    new_first = hashlib.sha256(f"{question.id} {number}".encode()).digest()[0] % 2 == 0
    first, second = (answer.rationale, instance.rationale) if new_first else (instance.rationale, answer.rationale)
    text = render(COMPARE, question=_asked(question), answer=question.answer, first=first, second=second)
    messages = [{"role": "user", "content": text}]
    return Request(COMPARE, question.id, number, messages, settings.params), "甲" if new_first else "乙"


def _not_better(preference: Preference | Failure, place: str) -> Fault | None:
    if isinstance(preference, Failure):
        return Fault("no comparison", preference.reason)
    return None if preference.better == place else Fault("not better", preference.reasons.strip())


def _asked(question: Question) -> str:
    return question_messages(question)[-1]["content"]


def _trace(question: Question, number: int, prompt: str, answer: _Answer) -> dict:
    return {
        "id": question.id,
        "round": number,
        "prompt": prompt,
        "rationale": answer.rationale,
        "letters": answer.letters,
        "taken": not answer.fault,
        "why": answer.why,
    }


STEP = Step(
    takes=(Question,),
    settings=Settings,
    row=row,
    asks="model",
    calls=calls,
    report=report,
    files=("traces", "unsolved"),
)
