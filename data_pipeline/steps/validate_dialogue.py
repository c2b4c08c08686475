"""Validate dialogue: a model looks for four issues; a dialogue without any is kept.

PsyLLM's fourth agent (released Code/, agent4, temperature 0) with its four issues, its JSON of keep, issues and
reason; in the paper's figure it bears Gemini's logo, in the code it asks deepseek-chat. There an unreadable verdict
was a refusal: here it is asked again and then rejected as what it is. The prompt is ours, in Chinese and English.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, model_validator

from data_pipeline.llm.structured import Failure, ask_again
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Reject, Request, note
from data_pipeline.safety.guidance import check_language, crisis_entry
from data_pipeline.steps import Result

STEP = "validate_dialogue"

ISSUES = {  # published
    1: "incomplete thought",
    2: "incoherent dialogue",
    3: "thought and reply differ",
    4: "no recognised framework",
}


@dataclass(frozen=True)
class Settings:
    language: str = "zh"  # of the prompt, zh or en; ours, the released data are English
    params: dict = field(default_factory=lambda: {"temperature": 0.0})  # released code

    def __post_init__(self) -> None:
        check_language(STEP, self.language)


class Verdict(BaseModel, extra="forbid"):
    keep: bool
    issues: list[Literal[1, 2, 3, 4]]
    reason: str

    @model_validator(mode="after")
    def _agree(self) -> "Verdict":
        if self.keep == bool(self.issues):
            raise ValueError("keep is true exactly when issues is empty")
        return self


def run(rows: list[Dialogue], settings: Settings, ask: Ask) -> Result:
    """Returns the dialogues without an issue, meta["validation"] {"keep", "issues", "reason"}; rejects say which issues
    and why, or that the verdict was unreadable. Crisis dialogues are always among the rows and in files["crisis"], with
    "keep" False when refused and None without a verdict; guidance alone, which has no thought, is not asked about.
    """
    rows_in, result, issues, ends = rows, Result([], files={"crisis": []}), Counter(), Counter()
    rows = [replace(d, meta=d.meta | {"trail": [*d.meta.get("trail", ())]}) for d in rows]
    asked = [d for d in rows if d.meta.get("answer") != "guidance"]
    requests = [Request(STEP, d.id, 0, _messages(d, settings), settings.params) for d in asked]
    verdicts, samples, calls = ask_again(ask, requests, Verdict)
    found = {d.id: (verdict, sample) for d, verdict, sample in zip(asked, verdicts, samples, strict=True)}
    for dialogue in rows:
        verdict, sample = found.get(dialogue.id, (None, 0))
        end, why = _judged(verdict)
        ends[end] += 1
        issues.update(set(getattr(verdict, "issues", ())))
        if dialogue.meta.get("crisis"):
            result.files["crisis"].append(crisis_entry(dialogue, why))
        elif why:
            result.rejects.append(Reject(dialogue.id, dialogue.meta.get("where", dialogue.id), why))
            continue
        if isinstance(verdict, Verdict):
            dialogue.meta["validation"] = verdict.model_dump() | {"issues": sorted(set(verdict.issues))}
            name = f"{STEP}.{settings.language}"
            note(dialogue, STEP, row=dialogue.id, sample=sample, prompt=prompt_hash(name))
        else:
            dialogue.meta["validation"] = {"keep": None, "issues": [], "reason": why}
        result.rows.append(dialogue)
    result.report = {
        "in": len(rows_in),
        **{end: ends[end] for end in ("kept", "refused", "unreadable", "no_reply", "guidance")},
        "issues": {f"{number} {name}": issues[number] for number, name in ISSUES.items()},
        "crisis": len(result.files["crisis"]),
        "calls": calls,
    }
    return result


def _messages(dialogue: Dialogue, settings: Settings) -> list[dict]:
    crisis = bool(dialogue.meta.get("crisis"))
    return [{"role": "user", "content": render(f"{STEP}.{settings.language}", turns=dialogue.turns, crisis=crisis)}]


def _judged(verdict: Verdict | Failure | None) -> tuple[str, str]:
    """Returns (the end it comes to, why it is not kept)."""
    if verdict is None:
        return "guidance", "guidance alone, not validated"
    if isinstance(verdict, Failure):
        readable = "" if verdict.text else "no verdict: "
        return ("no_reply", readable + verdict.reason) if readable else (
            "unreadable", f"verdict unreadable: {verdict.reason}")  # fmt: skip
    if verdict.keep:
        return "kept", ""
    named = ", ".join(f"issue {number} ({ISSUES[number]})" for number in sorted(set(verdict.issues)))
    return "refused", f"{named}: {verdict.reason.strip()}"
