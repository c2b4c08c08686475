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
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json
from data_pipeline.prompts import prompt_hash, question_messages, render
from data_pipeline.records import LETTERS, Ask, Question, Reject, Request, Response, note
from data_pipeline.steps import Result
from data_pipeline.steps.filter_quality import open_questions
from reward.answer import read_answer
from reward.thought import split_thought

STEP, OPTIMISE, COMPARE = "write_rationales", "optimise_prompt", "compare_rationales"
QUOTE = 4  # characters of a right option's text from which on a candidate prompt that holds it quotes it; ours

# An option by its letter: "答案是A", "排除 B", "C项", "选项D正确".
_NAMED = re.compile(
    r"(?:答案|选项?|排除|正确|错误)[^，。；\nA-Za-z]{0,6}(?<![A-Za-z])(?P<letter>[A-Z])(?=[A-Z]*(?![A-Za-z]))"
    r"|(?<![A-Za-z])(?P<second>[A-Z])\s*(?:选?项|正确|错误|不?对|不?成立)"
)


@dataclass(frozen=True)
class Settings:
    rounds: int = 2  # T; ours, unpublished. 0: the first answers alone
    judge: bool = False  # ours: a right answer also has to be the better rationale, else nothing changes
    params: dict = field(default_factory=dict)  # of the request: temperature, max_tokens...; ours, the server's own

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or self.rounds < 0:
            raise BadInput(f"{STEP}: rounds={self.rounds!r}; a whole number from 0 (2 is the default)")
        if type(self.judge) is not bool:
            raise BadInput(f"{STEP}: judge={self.judge!r}; true or false")


class Candidate(BaseModel):
    prompt: str


class Preference(BaseModel):
    better: Literal["甲", "乙", "相当"]
    reasons: str


@dataclass
class _Instance:
    """The current (P_i, q_i, r_i), and a candidate on its way."""

    question: Question
    prompt: str
    rationale: str
    round: int = 0


@dataclass
class _Answer:
    rationale: str
    letters: str | None
    why: str  # not usable, or ""


def run(rows: list[Question], settings: Settings, ask: Ask) -> Result:
    """Returns every question whose model answered: with a rationale and meta["rationale"] {"prompt", "round"}, or
    without where P was never right, listed in files["unsolved"]. Rejects are failed requests and open questions. A
    question that brings a rationale keeps it and is not asked. files["traces"] has one dict per question and round.
    """
    result = Result([], open_questions(rows))
    asked = [q for q in rows if q.kind != "open" and not q.rationale]
    brought = sum(q.kind != "open" for q in rows) - len(asked)
    start = render("rationale_prompt")
    traces, unsolved, failed, instances, calls = [], [], {}, [], Counter()
    for question, response in zip(asked, ask(_requests(asked, [start] * len(asked), 0, settings)), strict=True):
        if response.finish == "failed":
            failed[id(question)] = Reject(question.id, _where(question), f"no answer: {response.error}")
            continue
        answer = read_rationale(response, question)
        _note_answer(question, 0)
        traces.append(_trace(question, 0, start, answer, not answer.why))
        if answer.why:
            told = {"id": question.id, "where": _where(question), "key": question.answer, "letters": answer.letters}
            unsolved.append(told | {"why": answer.why})
        else:
            instances.append(_Instance(question, start, answer.rationale))
    for number in range(1, settings.rounds + 1):
        traces += _round(instances, number, settings, ask, calls)
    for instance in instances:
        instance.question.rationale = instance.rationale
        instance.question.meta["rationale"] = {"prompt": instance.prompt, "round": instance.round}
    result.rejects += failed.values()
    result.rows = [q for q in rows if q.kind != "open" and id(q) not in failed]
    order = {q.id: place for place, q in enumerate(rows)}
    result.files = {"traces": sorted(traces, key=lambda t: (order[t["id"]], t["round"])), "unsolved": unsolved}
    result.report = {
        "in": len(rows),
        "brought_a_rationale": brought,
        "solved": len(instances),
        "unsolved": len(unsolved),
        "failed": len(failed),
        "final_round": dict(sorted(Counter(str(i.round) for i in instances).items())),
        "rounds": {
            str(number): dict(Counter("taken" if t["taken"] else t["why"].split(":")[0] for t in of).most_common())
            for number in range(settings.rounds + 1)
            if (of := [t for t in traces if t["round"] == number])
        },
        "calls": dict(calls),
    }
    return result


def read_rationale(response: Response, question: Question) -> _Answer:
    """Returns rationale and letters of an answer, and why it cannot be an instance ("" if it can).

    The thought is what stands in <think></think>, or else what the server has split off.
    """
    thought, _ = split_thought(response.text)
    rationale = (thought or response.reasoning).strip()
    letters = read_answer(response.text, question.options)
    if response.finish == "length":
        why = "cut: the answer reached max_tokens"
    elif letters is None:
        why = "unreadable"
    elif letters != question.answer:
        why = f"wrong: {letters}"
    elif not rationale:
        why = "no thought"
    elif "<think>" in rationale or "</think>" in rationale:
        why = "a tag inside the thought"
    else:
        why = ""
    return _Answer(rationale, letters, why)


def gives_away(prompt: str, question: Question) -> str:
    """Returns why the candidate prompt gives the answer away, or ""."""
    for match in _NAMED.finditer(prompt):
        if (match["letter"] or match["second"]) in LETTERS[: len(question.options)]:
            return f"gives the answer away: it names an option ({match[0]})"
    asked = question.context + question.stem
    for letter in question.answer:
        text = question.options[LETTERS.index(letter)]
        if len(text) >= QUOTE and text in prompt and text not in asked:
            return f"gives the answer away: it quotes {letter}"
    return ""


def _round(instances: list[_Instance], number: int, settings: Settings, ask: Ask, calls: Counter) -> list[dict]:
    """Runs one round on all instances at once, so that the client stays busy; returns its traces."""
    traces, candidates = [], []
    requests = [Request(OPTIMISE, i.question.id, number, _optimise(i), settings.params) for i in instances]
    replies, counts = ask_json(ask, requests, Candidate)
    calls.update({f"{OPTIMISE} {name}": count for name, count in counts.items()})
    for instance, reply in zip(instances, replies, strict=True):
        question = instance.question
        if isinstance(reply, Failure):
            traces.append(_trace(question, number, "", _Answer("", None, f"no candidate: {reply.reason}"), False))
            continue
        note(question, OPTIMISE, row=question.id, sample=number, prompt=prompt_hash(OPTIMISE))
        prompt = reply.prompt.strip()
        if why := gives_away(prompt, question) if prompt else "no candidate: an empty prompt":
            traces.append(_trace(question, number, prompt, _Answer("", None, why), False))
        else:
            candidates.append((instance, prompt))
    answers = []
    questions, prompts = [i.question for i, _ in candidates], [prompt for _, prompt in candidates]
    responses = ask(_requests(questions, prompts, number, settings))
    for question, response in zip(questions, responses, strict=True):
        if response.finish == "failed":
            answers.append(_Answer("", None, f"no answer: {response.error}"))
        else:
            answers.append(read_rationale(response, question))
            _note_answer(question, number)
    if settings.judge:
        right = [(i, a) for (i, _), a in zip(candidates, answers, strict=True) if not a.why]
        _judge(right, number, settings, ask, calls)
    for (instance, prompt), answer in zip(candidates, answers, strict=True):
        if not answer.why:
            instance.prompt, instance.rationale, instance.round = prompt, answer.rationale, number
        traces.append(_trace(instance.question, number, prompt, answer, not answer.why))
    return traces


def _judge(pairs: list[tuple[_Instance, _Answer]], number: int, settings: Settings, ask: Ask, calls: Counter) -> None:
    """Sets `why` of the answers whose rationale is not the better one."""
    requests, places = [], []
    for instance, answer in pairs:
        question = instance.question
        # Judges lean to one side: which one is the new rationale's is drawn from id and round.
        new_first = hashlib.sha256(f"{question.id} {number}".encode()).digest()[0] % 2 == 0
        shown = (answer.rationale, instance.rationale) if new_first else (instance.rationale, answer.rationale)
        text = render(COMPARE, question=_asked(question), answer=question.answer, first=shown[0], second=shown[1])
        requests.append(Request(COMPARE, question.id, number, [{"role": "user", "content": text}], settings.params))
        places.append("甲" if new_first else "乙")
    replies, counts = ask_json(ask, requests, Preference)
    calls.update({f"{COMPARE} {name}": count for name, count in counts.items()})
    for (instance, answer), place, reply in zip(pairs, places, replies, strict=True):
        if isinstance(reply, Failure):
            answer.why = f"no comparison: {reply.reason}"
            continue
        question = instance.question
        note(question, COMPARE, row=question.id, sample=number, prompt=prompt_hash(COMPARE))
        if reply.better != place:
            answer.why = f"not better: {reply.reasons.strip()}"


def _requests(questions: list[Question], prompts: list[str], sample: int, settings: Settings) -> list[Request]:
    return [
        Request(
            STEP,
            question.id,
            sample,
            [{"role": "system", "content": render(STEP, prompt=prompt)}, question_messages(question)[-1]],
            settings.params,
        )
        for question, prompt in zip(questions, prompts, strict=True)
    ]


def _optimise(instance: _Instance) -> list[dict]:
    asked = _asked(instance.question)
    text = render(OPTIMISE, prompt=instance.prompt, question=asked, rationale=instance.rationale)
    return [{"role": "user", "content": text}]


def _asked(question: Question) -> str:
    return question_messages(question)[-1]["content"]


def _where(question: Question) -> str:
    return question.meta.get("where", question.id)


def _note_answer(question: Question, sample: int) -> None:
    note(question, STEP, row=question.id, sample=sample, prompt=prompt_hash(STEP if sample else "rationale_prompt"))


def _trace(question: Question, number: int, prompt: str, answer: _Answer, taken: bool) -> dict:
    return {
        "id": question.id,
        "round": number,
        "prompt": prompt,
        "rationale": answer.rationale,
        "letters": answer.letters,
        "taken": taken,
        "why": answer.why,
    }
