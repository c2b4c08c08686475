"""Plan dialogue: a post's emotion is assessed, and a dialogue about it planned: how many rounds, a theme for each.

PsyLLM's first agent (released Code/, agent1): the post in, 1 to 3 rounds and what each is about out, temperature 1.0.
The prompt is ours, in Chinese and English. A crisis post that no plan was got for goes on without one.
"""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from data_pipeline.llm.structured import Failure, ask_again, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Fault, Post, Reject, Request, note
from data_pipeline.safety.cleaning import checked_reply, without_control
from data_pipeline.safety.guidance import add_flags, crisis_entry, post_text
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, tidy

NAME = "plan_dialogue"


class Settings(StepSettings):
    language: Literal["zh", "en"] = "zh"  # of prompt and dialogue; ours, the released data are English
    min_rounds: int = Field(default=1, ge=1)  # of a dialogue at least; released code
    max_rounds: int = Field(default=3, ge=1)  # of a dialogue at most; released code
    params: dict = {"temperature": 1.0}  # of the request; released code

    @model_validator(mode="after")
    def _rounds(self) -> "Settings":
        if self.min_rounds > self.max_rounds:
            raise ValueError(f"min_rounds={self.min_rounds} is above max_rounds={self.max_rounds}; lower the first")
        return self


class Plan(BaseModel, extra="forbid"):
    emotion: str
    rounds: int
    themes: list[str]


async def row(post: Post, settings: Settings, ask: Ask) -> Outcome:
    """Returns the post with meta["plan"] {"emotion", "rounds", "themes"}; a reject for one without text, or whose plan
    was unusable twice. A crisis post always goes on, with the plan None if need be, and stands in files["crisis"].
    """
    outcome = Outcome(counts=Counter({"in": 1}))
    post = tidy(post)
    post.meta = add_flags(post.meta, [post_text(post)])
    plan, sample = Failure("the post is empty"), 0
    if post_text(post):
        request = Request(NAME, post.id, 0, _messages(post, settings), settings.params)
        plan, sample, asked = await ask_again(ask, request, Plan, lambda plan: _fault(plan, settings))
        outcome.counts += under("calls", asked)
    reject = None
    if isinstance(plan, Failure):
        reject = Reject(post.id, post.meta.get("where", post.id), "no plan", plan.reason)
        post.meta["plan"] = None
    else:
        themes = list(map(without_control, plan.themes))
        post.meta["plan"] = plan.model_dump() | {"emotion": without_control(plan.emotion), "themes": themes}
        note(post, NAME, row=post.id, sample=sample, prompt=prompt_hash(f"{NAME}.{settings.language}"))
        outcome.counts["rounds", plan.rounds] += 1
    if post.meta.get("crisis"):
        outcome.files["crisis"] = [crisis_entry(post, reject.reason if reject else "")]
        outcome.counts["crisis"] += 1
        outcome.counts["crisis_without_plan"] += reject is not None
    elif reject:
        outcome.rejects.append(reject)
        return outcome
    outcome.rows.append(post)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns the number of posts by rounds, and those of a crisis."""
    rounds = counts_under(counts, "rounds")
    return {
        "in": counts["in"],
        "planned": sum(rounds.values()),
        "rounds": {str(number): rounds[number] for number in sorted(rounds)},
        "crisis": counts["crisis"],
        "crisis_without_plan": counts["crisis_without_plan"],
        "calls": calls_report(counts),
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    """At most a post is asked about twice, and each reply repaired once."""
    return Calls(
        expected=size.rows,
        most=4 * size.rows,
        out=Size(size.rows, size.chars, size.rows * (settings.min_rounds + settings.max_rounds) / 2),
        most_out=Size(size.rows, size.chars, size.rows * settings.max_rounds),
        prompt_chars=size.chars / size.rows if size.rows else 0,
        reply_chars=150,
    )


def _messages(post: Post, settings: Settings) -> list[dict]:
    text = render(
        f"{NAME}.{settings.language}",
        post=post_text(post),
        least=settings.min_rounds,
        most=settings.max_rounds,
        crisis=bool(post.meta.get("crisis")),
    )
    return [{"role": "user", "content": text}]


def _fault(plan: Plan, settings: Settings) -> str:
    if not settings.min_rounds <= plan.rounds <= settings.max_rounds:
        return f"{plan.rounds} rounds, {settings.min_rounds} to {settings.max_rounds} are allowed"
    if len(plan.themes) != plan.rounds:
        return f"{len(plan.themes)} themes for {plan.rounds} rounds"
    if not plan.emotion.strip() or not all(theme.strip() for theme in plan.themes):
        return "an empty emotion or theme"
    checked = map(checked_reply, (plan.emotion, *plan.themes))
    return next((fault.reason for fault in checked if isinstance(fault, Fault)), "")


STEP = Step(takes=(Post,), settings=Settings, row=row, asks="model", calls=calls, report=report, files=("crisis",))
