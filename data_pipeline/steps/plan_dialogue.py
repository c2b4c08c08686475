"""Plan dialogue: a post's emotion is assessed, and a dialogue about it planned: how many rounds, a theme for each.

PsyLLM's first agent (released Code/, agent1): the post in, 1 to 3 rounds and what each is about out, temperature 1.0.
The prompt is ours, in Chinese and English. A crisis post that no plan was got for goes on without one.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from pydantic import BaseModel

from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_again
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Post, Reject, Request, note
from data_pipeline.safety.guidance import add_flags, check_language, crisis_entry, post_text
from data_pipeline.steps import Result

STEP = "plan_dialogue"


@dataclass(frozen=True)
class Settings:
    language: str = "zh"  # of prompt and dialogue, zh or en; ours, the released data are English
    min_rounds: int = 1  # released code
    max_rounds: int = 3  # released code
    params: dict = field(default_factory=lambda: {"temperature": 1.0})  # released code

    def __post_init__(self) -> None:
        check_language(STEP, self.language)
        for name in ("min_rounds", "max_rounds"):
            if type(getattr(self, name)) is not int:
                raise BadInput(f"{STEP}: {name}={getattr(self, name)!r}; a whole number")
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise BadInput(f"{STEP}: min_rounds={self.min_rounds}, max_rounds={self.max_rounds}; 1 <= first <= second")


class Plan(BaseModel, extra="forbid"):
    emotion: str
    rounds: int
    themes: list[str]


def run(rows: list[Post], settings: Settings, ask: Ask) -> Result:
    """Returns the posts, meta["plan"] {"emotion", "rounds", "themes"}; rejects are posts without text and those whose
    plan was unusable twice. A crisis post is always among the rows, with the plan None if need be, and in
    files["crisis"]. The report has the number of posts by rounds.
    """
    posts = [replace(p, meta=add_flags(p.meta, [post_text(p)]) | {"trail": [*p.meta.get("trail", ())]}) for p in rows]
    result, rounds = Result([], files={"crisis": []}), Counter()
    asked = [p for p in posts if post_text(p)]
    requests = [Request(STEP, p.id, 0, _messages(p, settings), settings.params) for p in asked]
    plans, samples, calls = ask_again(ask, requests, Plan, lambda _, plan: _fault(plan, settings))
    found = {p.id: (plan, sample) for p, plan, sample in zip(asked, plans, samples, strict=True)}
    for post in posts:
        plan, sample = found.get(post.id, (Failure("the post is empty"), 0))
        why = f"no plan: {plan.reason}" if isinstance(plan, Failure) else ""
        if post.meta.get("crisis"):
            result.files["crisis"].append(crisis_entry(post, why))
        elif why:
            result.rejects.append(Reject(post.id, post.meta.get("where", post.id), why))
            continue
        post.meta["plan"] = plan.model_dump() if isinstance(plan, Plan) else None
        if isinstance(plan, Plan):
            rounds[plan.rounds] += 1
            name = f"{STEP}.{settings.language}"
            note(post, STEP, row=post.id, sample=sample, prompt=prompt_hash(name))
        result.rows.append(post)
    result.report = {
        "in": len(rows),
        "planned": rounds.total(),
        "rounds": {str(number): rounds[number] for number in sorted(rounds)},
        "crisis": len(result.files["crisis"]),
        "crisis_without_plan": len(result.rows) - rounds.total(),
        "calls": calls,
    }
    return result


def _messages(post: Post, settings: Settings) -> list[dict]:
    text = render(
        f"{STEP}.{settings.language}",
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
    return ""
