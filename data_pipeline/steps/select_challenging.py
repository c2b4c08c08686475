"""Select challenging: several models answer each question; what none of them gets right is for GRPO, the rest for SFT.

Psyche-R1, figure 2: a "Multi-LLM Selector" (logos of Microsoft, Meta, Alibaba and others); at least one correct -> SFT,
all incorrect -> GRPO. Which models, and how many samples of each, are unpublished.

That rule sends to GRPO what nobody solves: if the trained model is no better, its groups have no variance and teach
nothing. `max_solve_rate` and `min_solve_rate` (ours) choose by the share of right answers instead; the report counts.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field, model_validator

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash, question_messages
from data_pipeline.records import Ask, Question, Reject, Request, Response, note
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, open_question, tidy
from reward.answer import read_answer
from reward.thought import template_opened

NAME = "select_challenging"


class Settings(StepSettings):
    samples: int = Field(default=1, ge=1)  # k, answers of each selector to a question; ours, unpublished
    # share of right answers up to which a question goes to GRPO; ours. null is the paper's rule: 0
    max_solve_rate: float | None = Field(default=None, ge=0, le=1)
    # share of right answers from which a question goes to GRPO; ours. null: 0
    min_solve_rate: float | None = Field(default=None, ge=0, le=1)
    params: dict = {}  # of the request: temperature, max_tokens...; ours, the server's own

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.samples > 1 and self.params.get("temperature") == 0:
            raise ValueError(f"samples={self.samples} at temperature 0 are the same answer; raise it or ask once")
        if (self.min_solve_rate or 0) > (self.max_solve_rate or 0):
            raise ValueError(
                f"min_solve_rate={self.min_solve_rate} is above max_solve_rate={self.max_solve_rate} "
                "(null counts as 0): no question would be left for GRPO; raise max_solve_rate or lower min_solve_rate"
            )
        return self


class _Answer(NamedTuple):
    letters: str | None  # None: unreadable, or no answer
    error: str = ""  # why the request failed


async def row(question: Question, settings: Settings, ask: Mapping[str, Ask]) -> Outcome:
    """Returns the question with meta["selection"]: "split" ("sft" or "grpo"), "why", counts, solve rate, agreement.

    `ask` has one Ask per selector, under its name; raises BadInput without any. A solved question without a rationale
    cannot be an SFT row: it goes to GRPO, and the report counts it. Rejected is an open question; one whose failed
    requests could change the split ("selector failed", asked again by the next run); and one below min_solve_rate
    without a rationale. files["suspect_keys"] has it if all selectors agree on the same wrong answer.
    """
    if not isinstance(ask, Mapping) or not ask:
        raise BadInput(f"{NAME}: no selector model; name at least one server under the selectors")
    outcome = Outcome(counts=Counter({"in": 1} | {("model", name, "failed_requests"): 0 for name in ask}))
    if question.kind == "open":
        outcome.rejects.append(open_question(question))
        return outcome
    answers: dict[str, list[_Answer]] = {}
    for name, ask_one in ask.items():
        # Read at once: the texts of several models for all the rows at work would fill the memory.
        answers[name] = [_read(r, question.options) for r in await ask_one(_requests(question, name, settings))]
        outcome.counts["model", name, "failed_requests"] += sum(bool(answer.error) for answer in answers[name])
    selection = _selection(question, answers)
    verdicts = {
        _split(right / selection["asked"], bool(question.rationale), settings)
        for right in range(selection["right"], selection["right"] + selection["failed"] + 1)
    }
    where = question.meta.get("where", question.id)
    if len({verdict and verdict[0] for verdict in verdicts}) > 1 or selection["failed"] == selection["asked"]:
        lost = next(a.error for of in answers.values() for a in of if a.error)
        told = f"{selection['failed']} of {selection['asked']} requests, {selection['right']} right; {lost}"
        outcome.rejects.append(Reject(question.id, where, "selector failed", told))
        return outcome
    verdict = verdicts.pop()
    if verdict and verdicts:  # the split is the same, and what failed would only have said why
        verdict = (verdict[0], "whatever the failed requests would have brought")
    if verdict is None:
        told = f"{settings.min_solve_rate}, and without a rationale: neither GRPO nor SFT can use it"
        outcome.rejects.append(Reject(question.id, where, "below min_solve_rate", told))
        return outcome
    question, (split, why) = tidy(question), verdict
    question.meta["selection"] = {"split": split, "why": why} | selection
    for name in ask:
        for sample in range(settings.samples):
            note(question, f"{NAME}/{name}", row=question.id, sample=sample, prompt=prompt_hash("question"))
    outcome.rows.append(question)
    outcome.counts.update(_counts(question.meta["selection"], settings))
    if not selection["right"] and len(ask) > 1 and selection["agreement"] == 1 and not selection["failed"]:
        suspect = {"id": question.id, "where": where, "key": question.answer, "all": selection["majority"]}
        outcome.files["suspect_keys"] = [suspect]
        outcome.counts["suspect_keys"] += 1
    return outcome


def _counts(selection: dict, settings: Settings) -> Counter:
    split, rate = selection["split"], selection["solve_rate"]
    counts = Counter()
    counts.update([("split", split), ("why", selection["why"]), ("solve_rate", f"{rate:.4f}")])
    if split == "grpo" and rate in (0, 1):
        counts["grpo_solve_rate", int(rate)] += 1
    for name, model in selection["models"].items():
        counts["model", name, "right"] = model["right"]
        counts["model", name, "answers"] = settings.samples
        counts["model", name, "unreadable"] = model["answers"].count(None) - model["failed"]
    return counts


def report(counts: Counter, settings: Settings) -> dict:
    """Returns how many questions go where and why, how often they were solved, and how each selector answered."""
    models = {
        name: {key: counts["model", name, key] for key in ("right", "answers", "unreadable", "failed_requests")}
        for name in counts_under(counts, "model")
    }
    return {
        "in": counts["in"],
        "splits": dict(counts_under(counts, "split")),
        "why": dict(counts_under(counts, "why").most_common()),
        # For the selectors; of the trained model this is an estimate. All wrong or all right: no variance, no gradient.
        "grpo_without_signal": {
            "groups": counts["split", "grpo"],
            "solve_rate_0": counts["grpo_solve_rate", 0],
            "solve_rate_1": counts["grpo_solve_rate", 1],
            "settings": {"min_solve_rate": settings.min_solve_rate, "max_solve_rate": settings.max_solve_rate},
        },
        "solve_rates": dict(sorted(counts_under(counts, "solve_rate").items())),
        "models": models,
        "unreadable": sum(model["unreadable"] for model in models.values()),
        "suspect_keys": counts["suspect_keys"],
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    asked = size.rows * selectors * settings.samples
    return Calls(
        expected=asked,
        most=asked,
        out=size,
        most_out=size,
        prompt_chars=size.chars / (size.rows or 1) + 80,  # the question and its system prompt
        reply_chars=400,  # letters behind a thought
    )


def _requests(question: Question, name: str, settings: Settings) -> list[Request]:
    return [
        Request(f"{NAME}/{name}", question.id, sample, question_messages(question), _params(settings, sample))
        for sample in range(settings.samples)
    ]


def _params(settings: Settings, sample: int) -> dict:
    seed = settings.params.get("seed")  # a server given the same seed gives the same answer
    return settings.params if seed is None else {**settings.params, "seed": seed + sample}


def _selection(question: Question, told: dict[str, list[_Answer]]) -> dict:
    models, letters = {}, []
    for name, of in told.items():
        answers, failed = [answer.letters for answer in of], sum(bool(answer.error) for answer in of)
        right = answers.count(question.answer)
        models[name] = {"right": right, "failed": failed, "answers": answers, "agreement": _agreement(answers)[1]}
        letters += answers
    right, failed = (sum(m[name] for m in models.values()) for name in ("right", "failed"))
    majority, agreement = _agreement(letters)
    return {
        "asked": len(letters),
        "right": right,
        "failed": failed,
        "unreadable": letters.count(None) - failed,
        "solve_rate": round(right / max(1, len(letters) - failed), 4),  # of the answers that came
        "majority": majority,
        "agreement": agreement,
        "models": models,
    }


def _read(response: Response, options: list[str]) -> _Answer:
    if response.finish == "failed":
        return _Answer(None, response.error or "no reason given")
    return _Answer(read_answer(response.text, options, template_opened(response.text)))


def _agreement(answers: list[str | None]) -> tuple[str | None, float | None]:
    """Returns (most frequent readable answer, its share of all answers), (None, None) when none can be read."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return None, None
    letters = min(counts, key=lambda letters: (-counts[letters], letters))
    return letters, round(counts[letters] / len(answers), 4)


def _split(rate: float, has_rationale: bool, settings: Settings) -> tuple[str, str] | None:
    """Returns (split, why) for a share of right answers, or None where neither GRPO nor SFT can use the question."""
    least, most = settings.min_solve_rate or 0, settings.max_solve_rate or 0
    if least <= rate <= most:
        return "grpo", "challenging"
    if has_rationale:
        return "sft", "solved" if rate > most else "too hard for GRPO"
    if rate > most:
        return "grpo", "solved, but without a rationale it cannot be an SFT row"
    return None


STEP = Step(
    takes=(Question,),
    settings=Settings,
    row=row,
    asks="selectors",
    calls=calls,
    report=report,
    files=("suspect_keys",),
)
