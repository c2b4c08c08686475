"""Rewrite empathy: a post and a reply of the public become a single-turn dialogue with an empathetic counselor.

Psyche-R1, figure 2: replies on the left, rewritten replies on the right that open by reflecting the feeling; the model
card calls the 73k dialogues single-turn. Prompts, checks and limits are unpublished: ours. The best reply is used.

A rewritten reply must keep to its length, say nothing forbidden (`safety/reply_rules.py`) and pass the model's
check of opening and faithfulness. A post with meta["crisis"] is never lost: its answer ends in guidance to help, which
stands alone when there is no reply, or none that passes. It keeps its flag, and files["crisis"] lists it for people.
"""

from collections import Counter
from dataclasses import asdict

from pydantic import BaseModel, Field, field_validator, model_validator

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Fault, Post, Reject, Request, Turn, note
from data_pipeline.safety.cleaning import checked_reply
from data_pipeline.safety.guidance import guidance, note_guidance, post_text
from data_pipeline.safety.helplines import HELPLINES, Helpline, check_helplines
from data_pipeline.safety.reply_rules import find_forbidden
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, tidy

NAME, CHECK = "rewrite_empathy", "check_empathy"


class Settings(StepSettings):
    min_chars: int = Field(default=60, ge=0)  # characters of the rewritten reply; ours
    max_chars: int = Field(default=600, ge=1)  # characters of the rewritten reply; ours
    helplines: tuple[Helpline, ...] = HELPLINES  # telephone numbers of the guidance; ours; [] points to local help
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own

    @field_validator("helplines", mode="before")
    @classmethod
    def _helplines(cls, given: object) -> tuple[Helpline, ...]:
        try:
            return check_helplines(NAME, given)
        except BadInput as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _lengths(self) -> "Settings":
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars={self.min_chars} is above max_chars={self.max_chars}; lower the first")
        return self


class Rewritten(BaseModel):
    reply: str


class Check(BaseModel):
    opens_with_feeling: bool
    faithful: bool
    reasons: str


async def row(post: Post, settings: Settings, ask: Ask) -> Outcome:
    """Returns a Dialogue of two turns, under the post's id; a reject for a post without a reply, and for one whose
    rewritten reply fails a check. A crisis post always becomes a dialogue, with meta["crisis"] and meta["answer"]
    "rewritten" or "guidance"; files["crisis"] has id, where and why.
    """
    outcome = Outcome(counts=Counter({"in": 1}))
    passed = await _rewritten(post, settings, ask, outcome.counts)
    where = post.meta.get("where", post.id)
    reject = Reject(post.id, where, *passed) if isinstance(passed, Fault) else None
    text, check = ("", None) if isinstance(passed, Fault) else passed
    if post.meta.get("crisis"):
        text = f"{text}\n\n{guidance('zh', settings.helplines, alone=not check)}".lstrip("\n")
        answer, why = "rewritten" if check else "guidance", reject.reason if reject else ""
        outcome.files["crisis"] = [{"id": post.id, "where": where, "answer": answer, "why": why}]
        outcome.counts.update(("crisis", ("crisis", answer)))
    elif reject:
        outcome.counts["reason", reject.code] += 1
        outcome.rejects.append(reject)
        return outcome
    outcome.rows.append(_dialogue(post, text, check, settings))
    outcome.counts["dialogues"] += 1
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how many became dialogues, how many of a crisis among them, and why others did not."""
    return {
        "in": counts["in"],
        "dialogues": counts["dialogues"],
        "crisis": counts["crisis"],
        "crisis_guidance_alone": counts["crisis", "guidance"],
        "helplines": [asdict(line) for line in settings.helplines],
        "reasons": dict(counts_under(counts, "reason").most_common()),
        "calls": {name: calls_report(counts, name) for name in (NAME, CHECK)},
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    """A post is asked about twice, to rewrite and to check; at most each reply is repaired once."""
    reply = (settings.min_chars + settings.max_chars) / 2
    per_post = size.chars / size.rows if size.rows else 0

    def out(chars: float) -> Size:
        return Size(size.rows, size.chars + chars * size.rows, turns=size.rows)

    return Calls(
        expected=2 * size.rows,
        most=4 * size.rows,
        out=out(reply),
        most_out=out(settings.max_chars),
        prompt_chars=per_post + reply / 2,  # the check is shown the rewritten reply, too
        reply_chars=(reply + 100) / 2,
    )


async def _rewritten(post: Post, settings: Settings, ask: Ask, counts: Counter) -> tuple[str, Check] | Fault:
    """Returns the rewritten reply and the check that it passed, or why there is none."""
    original = _reply(post)
    if not original:
        return Fault("no reply to rewrite")
    limits = {"min_chars": settings.min_chars, "max_chars": settings.max_chars}
    reply, asked = await ask_json(ask, _request(NAME, post, settings, **limits), Rewritten)
    counts.update(under(NAME, asked))
    if isinstance(reply, Failure):
        return Fault("not rewritten", reply.reason)
    text = reply.reply.strip()
    if fault := _fault(text, settings):
        return fault  # what a rule refuses needs no paid check
    text = checked_reply(text)
    if isinstance(text, Fault):
        return text
    check, asked = await ask_json(ask, _request(CHECK, post, settings, reply=text, original=original), Check)
    counts.update(under(CHECK, asked))
    if isinstance(check, Failure):
        return Fault("not checked", check.reason)
    if check.opens_with_feeling and check.faithful:
        return text, check
    faults = {"no opening with the feeling": check.opens_with_feeling, "not faithful": check.faithful}
    named = ", ".join(name for name, good in faults.items() if not good)
    return Fault("check", f"{named} ({check.reasons.strip()})")


def _reply(post: Post) -> str:
    return next((reply.strip() for reply in post.replies if reply.strip()), "")


def _request(step: str, post: Post, settings: Settings, **variables) -> Request:
    known = {"post": post_text(post), "reply": _reply(post), "crisis": bool(post.meta.get("crisis"))}
    messages = [{"role": "user", "content": render(step, **known | variables)}]
    return Request(step, post.id, 0, messages, settings.params)


def _fault(text: str, settings: Settings) -> Fault | None:
    if not settings.min_chars <= len(text) <= settings.max_chars:
        allowed = f"{settings.min_chars} to {settings.max_chars} are allowed"
        return Fault("length", f"{len(text)} characters, {allowed}")
    if forbidden := find_forbidden(text):
        return Fault("forbidden content", ", ".join(f"{rule} ({words})" for rule, words in forbidden))
    return None


def _dialogue(post: Post, answer: str, check: Check | None, settings: Settings) -> Dialogue:
    meta = tidy(post).meta | {"parents": [post.id]}
    dialogue = Dialogue(post.id, post.source, [Turn("client", post_text(post)), Turn("counselor", answer)], meta)
    if check:
        meta |= {"original": _reply(post), "check": check.model_dump()}
        note(dialogue, NAME, row=post.id, sample=0, prompt=prompt_hash(NAME))
        note(dialogue, CHECK, row=post.id, sample=0, prompt=prompt_hash(CHECK))
    if post.meta.get("crisis"):
        meta["answer"] = "rewritten" if check else "guidance"
        note_guidance(dialogue, NAME, "zh", settings.helplines)
    return dialogue


STEP = Step(
    takes=(Post,),
    makes=Dialogue,
    settings=Settings,
    row=row,
    asks="model",
    calls=calls,
    report=report,
    files=("crisis",),
)
