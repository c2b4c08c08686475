"""Select challenging: several models answer each question; what none of them gets right is for GRPO, the rest for SFT.

Psyche-R1, figure 2: a "Multi-LLM Selector" (logos of Microsoft, Meta, Alibaba and others); at least one correct -> SFT,
all incorrect -> GRPO. Which models, and how many samples of each, are unpublished.

That rule sends to GRPO what nobody solves: if the trained model is no better, its groups have no variance and teach
nothing. `max_solve_rate` and `min_solve_rate` (ours) choose by the share of right answers instead; the report counts.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash, question_messages
from data_pipeline.records import Ask, Question, Reject, Request, Response, note
from data_pipeline.steps import Result
from data_pipeline.steps.filter_quality import open_questions
from reward.answer import read_answer

STEP = "select_challenging"


@dataclass(frozen=True)
class Settings:
    samples: int = 1  # k, of each selector; ours, unpublished
    max_solve_rate: float | None = None  # GRPO takes questions up to this share; None is the paper's rule: 0
    min_solve_rate: float | None = None  # GRPO takes questions from this share on; None is the paper's rule: 0
    params: dict = field(default_factory=dict)  # of the request: temperature, max_tokens...; ours, the server's own

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1:
            raise BadInput(
                f"{STEP}: samples={self.samples!r}; each selector answers at least once, a whole number >= 1"
            )
        if self.samples > 1 and self.params.get("temperature") == 0:
            raise BadInput(f"{STEP}: samples={self.samples} at temperature 0 are the same answer; raise it or ask once")
        for name in ("max_solve_rate", "min_solve_rate"):
            value = getattr(self, name)
            if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
                raise BadInput(f"{STEP}: {name}={value!r}; a share from 0 to 1, or null for the paper's rule")
        if (self.min_solve_rate or 0) > (self.max_solve_rate or 0):
            raise BadInput(
                f"{STEP}: min_solve_rate={self.min_solve_rate} is above max_solve_rate={self.max_solve_rate} "
                "(null counts as 0): no question would be left for GRPO"
            )


class _Answer(NamedTuple):
    letters: str | None  # None: unreadable, or no answer
    error: str = ""  # why the request failed


def run(rows: list[Question], settings: Settings, ask: Mapping[str, Ask] | None = None) -> Result:
    """Returns the questions with meta["selection"]: "split" ("sft" or "grpo"), "why", counts, solve rate, agreement.

    `ask` has one Ask per selector, under its name; raises BadInput without any. A solved question without a rationale
    cannot be an SFT row: it goes to GRPO, and the report counts it. Rejects are open questions; questions whose failed
    requests could change the split ("selector failed", asked again by the next run); and questions below
    min_solve_rate without a rationale. files["suspect_keys"] lists those on whose wrong answer all selectors agree.
    """
    if not isinstance(ask, Mapping) or not ask:
        raise BadInput(f"{STEP}: no selector model; name at least one server under the selectors")
    result = Result([], open_questions(rows))
    keyed = [q for q in rows if q.kind != "open"]
    told: dict[str, list[_Answer]] = {}
    for name, ask_one in ask.items():
        requests = [
            Request(f"{STEP}/{name}", question.id, sample, messages, _params(settings, sample))
            for question in keyed
            for messages in [question_messages(question)]
            for sample in range(settings.samples)
        ]
        asked = [question for question in keyed for _ in range(settings.samples)]
        # Read at once: the texts of 75,000 questions by several models would fill the memory.
        told[name] = [_read(r, q.options) for r, q in zip(ask_one(requests), asked, strict=True)]
    suspects, failed_requests = [], Counter()
    for place, question in enumerate(keyed):
        answers = {name: of[place * settings.samples : (place + 1) * settings.samples] for name, of in told.items()}
        failed_requests.update({name: sum(bool(a.error) for a in of) for name, of in answers.items()})
        selection = _selection(question, answers)
        verdicts = {
            _split(right / selection["asked"], bool(question.rationale), settings)
            for right in range(selection["right"], selection["right"] + selection["failed"] + 1)
        }
        where = question.meta.get("where", question.id)
        if len(verdicts) > 1 or selection["failed"] == selection["asked"]:
            lost = next(a.error for of in answers.values() for a in of if a.error)
            told_counts = f"{selection['failed']} of {selection['asked']} requests, {selection['right']} right"
            result.rejects.append(Reject(question.id, where, f"selector failed: {told_counts}; {lost}"))
            continue
        split, why = verdicts.pop()
        if split is None:
            result.rejects.append(Reject(question.id, where, why))
            continue
        question.meta["selection"] = {"split": split, "why": why} | selection
        for name in ask:
            for sample in range(settings.samples):
                note(question, f"{STEP}/{name}", row=question.id, sample=sample, prompt=prompt_hash("question"))
        if not selection["right"] and len(ask) > 1 and selection["agreement"] == 1 and not selection["failed"]:
            suspects.append({"id": question.id, "where": where, "key": question.answer, "all": selection["majority"]})
        result.rows.append(question)
    result.files = {"suspect_keys": suspects}
    result.report = _report(result, failed_requests, ask, settings)
    return result


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
    # A server whose chat template opens the thought sends only its end.
    prefilled = "</think>" in response.text and "<think>" not in response.text
    return _Answer(read_answer(response.text, options, think_prefilled=prefilled))


def _agreement(answers: list[str | None]) -> tuple[str | None, float | None]:
    """Returns (most frequent readable answer, its share of all answers), (None, None) when none can be read."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return None, None
    letters = min(counts, key=lambda letters: (-counts[letters], letters))
    return letters, round(counts[letters] / len(answers), 4)


def _split(rate: float, has_rationale: bool, settings: Settings) -> tuple[str | None, str]:
    """Returns (split or None, why) for a share of right answers."""
    least, most = settings.min_solve_rate or 0, settings.max_solve_rate or 0
    if least <= rate <= most:
        return "grpo", "challenging"
    if has_rationale:
        return "sft", "solved" if rate > most else "too hard for GRPO"
    if rate > most:
        return "grpo", "solved, but without a rationale it cannot be an SFT row"
    return None, f"below min_solve_rate={least} and without a rationale: neither GRPO nor SFT can use it"


def _report(result: Result, failed_requests: Counter, ask: Mapping, settings: Settings) -> dict:
    selections = [q.meta["selection"] for q in result.rows]
    grpo = [s for s in selections if s["split"] == "grpo"]
    return {
        "in": len(result.rows) + len(result.rejects),
        "splits": dict(Counter(s["split"] for s in selections)),
        "why": dict(Counter(s["why"] for s in selections).most_common()),
        # For the selectors; of the trained model this is an estimate. All wrong or all right: no variance, no gradient.
        "grpo_without_signal": {
            "groups": len(grpo),
            "solve_rate_0": sum(s["solve_rate"] == 0 for s in grpo),
            "solve_rate_1": sum(s["solve_rate"] == 1 for s in grpo),
            "settings": {"min_solve_rate": settings.min_solve_rate, "max_solve_rate": settings.max_solve_rate},
        },
        "solve_rates": dict(sorted(Counter(f"{s['solve_rate']:.4f}" for s in selections).items())),
        "models": {
            name: {
                "right": sum(s["models"][name]["right"] for s in selections),
                "answers": len(selections) * settings.samples,
                "unreadable": sum(
                    s["models"][name]["answers"].count(None) - s["models"][name]["failed"] for s in selections
                ),
                "failed_requests": failed_requests[name],
            }
            for name in ask
        },
        "unreadable": sum(s["unreadable"] for s in selections),
        "suspect_keys": len(result.files["suspect_keys"]),
    }
