"""Validate dialogue: a model looks for four issues; a dialogue without any is kept.

PsyLLM's fourth agent (released Code/, agent4, temperature 0) with its four issues, its JSON of keep, issues and
reason; in the paper's figure it bears Gemini's logo, in the code it asks deepseek-chat. There an unreadable verdict
was a refusal: here it is asked again and then rejected as what it is. The prompt is ours, in Chinese and English.
"""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, model_validator

from data_pipeline.llm.structured import Failure, ask_again, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Fault, Reject, Request, note
from data_pipeline.safety.guidance import crisis_entry
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, tidy

NAME = "validate_dialogue"

ISSUES = {  # published
    1: "incomplete thought",
    2: "incoherent dialogue",
    3: "thought and reply differ",
    4: "no recognised framework",
}


class Settings(StepSettings):
    language: Literal["zh", "en"] = "zh"  # of the prompt; ours, the released data are English
    params: dict = {"temperature": 0.0}  # of the request; released code


class Verdict(BaseModel, extra="forbid"):
    keep: bool
    issues: list[Literal[1, 2, 3, 4]]
    reason: str

    @model_validator(mode="after")
    def _agree(self) -> "Verdict":
        if self.keep == bool(self.issues):
            raise ValueError("keep is true exactly when issues is empty")
        return self


async def row(dialogue: Dialogue, settings: Settings, ask: Ask) -> Outcome:
    """Returns the dialogue without an issue, meta["validation"] {"keep", "issues", "reason"}; else a reject that says
    which issues and why, or that the verdict was unreadable. A crisis dialogue always goes on and stands in
    files["crisis"], with "keep" False when refused and None without a verdict; guidance alone, which has no thought, is
    not asked about.
    """
    outcome = Outcome(counts=Counter({"in": 1}))
    dialogue = tidy(dialogue)
    verdict, sample = None, 0
    if dialogue.meta.get("answer") != "guidance":
        request = Request(NAME, dialogue.id, 0, _messages(dialogue, settings), settings.params)
        verdict, sample, asked = await ask_again(ask, request, Verdict)
        outcome.counts += under("calls", asked)
    end, fault = _judged(verdict)
    outcome.counts[end] += 1
    reject = Reject(dialogue.id, dialogue.meta.get("where", dialogue.id), *fault) if fault else None
    why = reject.reason if reject else ""
    if isinstance(verdict, Verdict):
        issues = sorted(set(verdict.issues))
        outcome.counts.update(("issue", number) for number in issues)
        dialogue.meta["validation"] = verdict.model_dump() | {"issues": issues}
        note(dialogue, NAME, row=dialogue.id, sample=sample, prompt=prompt_hash(f"{NAME}.{settings.language}"))
    else:
        dialogue.meta["validation"] = {"keep": None, "issues": [], "reason": why}
    if dialogue.meta.get("crisis"):
        outcome.files["crisis"] = [crisis_entry(dialogue, why)]
        outcome.counts["crisis"] += 1
    elif reject:
        outcome.rejects.append(reject)
        return outcome
    outcome.rows.append(dialogue)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how many came to which end, and how often each issue was found."""
    return {
        "in": counts["in"],
        **{end: counts[end] for end in ("kept", "refused", "unreadable", "no_reply", "guidance")},
        "issues": {f"{number} {name}": counts["issue", number] for number, name in ISSUES.items()},
        "crisis": counts["crisis"],
        "calls": calls_report(counts),
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    """At most a dialogue is asked about twice, and each verdict repaired once."""
    per_row = size.chars / size.rows if size.rows else 0
    return Calls(expected=size.rows, most=4 * size.rows, out=size, most_out=size, prompt_chars=per_row, reply_chars=100)


def _messages(dialogue: Dialogue, settings: Settings) -> list[dict]:
    crisis = bool(dialogue.meta.get("crisis"))
    return [{"role": "user", "content": render(f"{NAME}.{settings.language}", turns=dialogue.turns, crisis=crisis)}]


def _judged(verdict: Verdict | Failure | None) -> tuple[str, Fault | None]:
    """Returns (the end it comes to, why it is not kept)."""
    if verdict is None:
        return "guidance", Fault("guidance alone, not validated")
    if isinstance(verdict, Failure):
        unreadable = bool(verdict.text)
        code = "verdict unreadable" if unreadable else "no verdict"
        return "unreadable" if unreadable else "no_reply", Fault(code, verdict.reason)
    if verdict.keep:
        return "kept", None
    named = ", ".join(f"issue {number} ({ISSUES[number]})" for number in sorted(set(verdict.issues)))
    return "refused", Fault(named, verdict.reason.strip())


STEP = Step(takes=(Dialogue,), settings=Settings, row=row, asks="model", calls=calls, report=report, files=("crisis",))
