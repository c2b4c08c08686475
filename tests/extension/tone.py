"""Tone: a model says in one word how a post sounds, which its trail then tells; a post that it cannot read goes out."""

from collections import Counter

from pydantic import BaseModel, Field

from data_pipeline.llm.structured import Failure, ask_json, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Post, Reject, Request, note
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, tidy


class Settings(StepSettings):
    most_chars: int = Field(default=4, ge=1)  # of the word; ours
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own


class Tone(BaseModel):
    tone: str


async def row(post: Post, settings: Settings, ask: Ask) -> Outcome:
    """Returns the post with the word in its trail, or a reject without one."""
    prompt = render("tone", post=post.text, most=settings.most_chars)
    request = Request("tone", post.id, 0, [{"role": "user", "content": prompt}], settings.params)
    reply, asked = await ask_json(ask, request, Tone)
    outcome = Outcome(counts=Counter({"in": 1}) + under("calls", asked))
    if isinstance(reply, Failure):
        outcome.rejects.append(Reject(post.id, post.meta["where"], "no tone", reply.reason))
        return outcome
    post = tidy(post)
    note(post, "tone", row=post.id, sample=0, prompt=prompt_hash("tone"), tone=reply.tone)
    outcome.counts["tone", reply.tone] += 1
    outcome.rows.append(post)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    return {"in": counts["in"], "tones": dict(counts_under(counts, "tone")), "calls": calls_report(counts)}


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    chars = size.chars / (size.rows or 1)
    most = 2 * size.rows  # each reply repaired once
    return Calls(size.rows, most, out=size, most_out=size, prompt_chars=chars, reply_chars=20)


STEP = Step(takes=(Post,), settings=Settings, row=row, asks="model", calls=calls, report=report)
