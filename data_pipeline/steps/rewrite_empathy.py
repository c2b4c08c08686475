"""Rewrite empathy: a post and a reply of the public become a single-turn dialogue with an empathetic counselor.

Psyche-R1, figure 2: replies on the left, rewritten replies on the right that open by reflecting the feeling; the model
card calls the 73k dialogues single-turn. Prompts, checks and limits are unpublished: ours. The best reply is used.

A rewritten reply must keep to its length, say nothing forbidden (`safety/reply_rules.py`) and pass the model's
check of opening and faithfulness. A post with meta["crisis"] is never lost: its answer ends in guidance to help, which
stands alone when there is no reply, or none that passes. It keeps its flag, and files["crisis"] lists it for people.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_json
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Post, Reject, Request, Turn, note
from data_pipeline.safety.guidance import guidance, note_guidance, post_text
from data_pipeline.safety.helplines import HELPLINES, check_helplines
from data_pipeline.safety.reply_rules import find_forbidden
from data_pipeline.steps import Result

STEP, CHECK = "rewrite_empathy", "check_empathy"


@dataclass(frozen=True)
class Settings:
    min_chars: int = 60  # of the rewritten reply; ours
    max_chars: int = 600  # ours
    helplines: tuple = HELPLINES  # ours; [] names none and points to local help
    params: dict = field(default_factory=dict)  # of the request: temperature, max_tokens...; ours, the server's own

    def __post_init__(self) -> None:
        for name in ("min_chars", "max_chars"):
            if type(getattr(self, name)) is not int:
                raise BadInput(f"{STEP}: {name}={getattr(self, name)!r}; a whole number")
        if not 0 <= self.min_chars <= self.max_chars:
            raise BadInput(f"{STEP}: min_chars={self.min_chars}, max_chars={self.max_chars}; the first is not larger")
        object.__setattr__(self, "helplines", check_helplines(STEP, self.helplines))


class Rewritten(BaseModel):
    reply: str


class Check(BaseModel):
    opens_with_feeling: bool
    faithful: bool
    reasons: str


def run(rows: list[Post], settings: Settings, ask: Ask) -> Result:
    """Returns a Dialogue of two turns per post, under the post's id; rejects are posts without a reply and replies that
    fail a check. Crisis posts are always among the rows, with meta["crisis"] and meta["answer"] "rewritten" or
    "guidance"; files["crisis"] has id, where and why.
    """
    why = {p.id: "no reply to rewrite" for p in rows if not _reply(p)}
    posts = [p for p in rows if p.id not in why]
    prompts = [_messages(STEP, p, min_chars=settings.min_chars, max_chars=settings.max_chars) for p in posts]
    replies, calls = ask_json(ask, _requests(STEP, posts, prompts, settings), Rewritten)
    rewritten = {}
    for post, reply in zip(posts, replies, strict=True):
        text = "" if isinstance(reply, Failure) else reply.reply.strip()
        if reason := f"not rewritten: {reply.reason}" if isinstance(reply, Failure) else _fault(text, settings):
            why[post.id] = reason
        else:
            rewritten[post.id] = text
    posts = [p for p in posts if p.id in rewritten]  # what a rule refuses needs no paid check
    prompts = [_messages(CHECK, p, reply=rewritten[p.id], original=_reply(p)) for p in posts]
    checks, check_calls = ask_json(ask, _requests(CHECK, posts, prompts, settings), Check)
    passed = {}
    for post, check in zip(posts, checks, strict=True):
        if isinstance(check, Failure):
            why[post.id] = f"not checked: {check.reason}"
        elif check.opens_with_feeling and check.faithful:
            passed[post.id] = check
        else:
            faults = {"no opening with the feeling": check.opens_with_feeling, "not faithful": check.faithful}
            named = ", ".join(name for name, good in faults.items() if not good)
            why[post.id] = f"check: {named} ({check.reasons.strip()})"

    result, crisis = Result([]), []
    for post in rows:
        check, where = passed.get(post.id), post.meta.get("where", post.id)
        if not check and not post.meta.get("crisis"):
            result.rejects.append(Reject(post.id, where, why[post.id]))
            continue
        answer = [rewritten[post.id]] if check else []
        if post.meta.get("crisis"):
            answer.append(guidance("zh", settings.helplines, alone=not check))
            crisis.append({"id": post.id, "where": where, "answer": "rewritten" if check else "guidance"})
            crisis[-1]["why"] = "" if check else why[post.id]
        result.rows.append(_dialogue(post, "\n\n".join(answer), check, settings))
    result.files = {"crisis": crisis}
    reasons = Counter(r.reason.split(" (")[0].split(":")[0] for r in result.rejects)
    result.report = {
        "in": len(rows),
        "dialogues": len(result.rows),
        "crisis": len(crisis),
        "crisis_guidance_alone": sum(entry["answer"] == "guidance" for entry in crisis),
        "helplines": [asdict(line) for line in settings.helplines],
        "reasons": dict(reasons.most_common()),
        "calls": {STEP: calls, CHECK: check_calls},
    }
    return result


def _reply(post: Post) -> str:
    return next((reply.strip() for reply in post.replies if reply.strip()), "")


def _messages(prompt: str, post: Post, **variables) -> list[dict]:
    known = {"post": post_text(post), "reply": _reply(post), "crisis": bool(post.meta.get("crisis"))}
    return [{"role": "user", "content": render(prompt, **known | variables)}]


def _requests(step: str, posts: list[Post], prompts: list[list[dict]], settings: Settings) -> list[Request]:
    return [Request(step, p.id, 0, messages, settings.params) for p, messages in zip(posts, prompts, strict=True)]


def _fault(text: str, settings: Settings) -> str:
    if not settings.min_chars <= len(text) <= settings.max_chars:
        return f"length: {len(text)} characters, {settings.min_chars} to {settings.max_chars} are allowed"
    if found := find_forbidden(text):
        return "forbidden content: " + ", ".join(f"{rule} ({words})" for rule, words in found)
    return ""


def _dialogue(post: Post, answer: str, check: Check | None, settings: Settings) -> Dialogue:
    meta = {name: value for name, value in post.meta.items() if name != "trail"}
    meta |= {"parents": [post.id], "trail": list(post.meta.get("trail", ()))}
    dialogue = Dialogue(post.id, post.source, [Turn("client", post_text(post)), Turn("counselor", answer)], meta)
    if check:
        meta |= {"original": _reply(post), "check": check.model_dump()}
        note(dialogue, STEP, row=post.id, sample=0, prompt=prompt_hash(STEP))
        note(dialogue, CHECK, row=post.id, sample=0, prompt=prompt_hash(CHECK))
    if post.meta.get("crisis"):
        meta["answer"] = "rewritten" if check else "guidance"
        note_guidance(dialogue, STEP, "zh", settings.helplines)
    return dialogue
