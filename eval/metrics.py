"""Metrics of multiple-choice questions, with counts and bootstrap intervals.

VERSION rises with any change of scoring, so that two numbers are compared only when they mean the same.
"""

import random
from collections.abc import Sequence

from data_pipeline.records import Question
from reward.psyche import compute_score

VERSION = "1"


def score_question(question: Question, response: str) -> dict[str, float]:
    """Returns `acc`, `elastic`, `format` and `readable` of one response, as the reward scores it."""
    scored = compute_score("", response, question.answer, {"options": question.options})
    return {key: scored[key] for key in ("acc", "elastic", "format", "readable")}


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def bootstrap(values: Sequence[float], resamples: int, seed: int) -> tuple[float, float] | None:
    """Returns the 95 % percentile interval of the mean of `values` (items are resampled); None without values."""
    if not values:
        return None
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


def paired_gain(before: Sequence[float], after: Sequence[float], resamples: int, seed: int) -> dict[str, float]:
    """Returns the mean gain per item and its paired bootstrap 95 % interval: {"gain", "ci_low", "ci_high"}."""
    gains = [b - a for a, b in zip(before, after, strict=True)]
    low, high = bootstrap(gains, resamples, seed)
    return {"gain": mean(gains), "ci_low": low, "ci_high": high}


def summarise(questions: list[Question], scores: list[list[dict]], cut: int, resamples: int, seed: int) -> dict:
    """Returns the metrics of one model on one set; `scores` holds one list of samples per question.

    Accuracy is the mean over questions of the mean over samples; unreadable responses count as wrong.
    """
    per_item = {key: [mean([s[key] for s in samples]) for samples in scores] for key in ("acc", "format", "readable")}
    kinds = [q.kind for q in questions]
    single = [a for a, kind in zip(per_item["acc"], kinds, strict=True) if kind == "single"]
    multi = [a for a, kind in zip(per_item["acc"], kinds, strict=True) if kind == "multi"]
    elastic = [mean([s["elastic"] for s in v]) for v, kind in zip(scores, kinds, strict=True) if kind == "multi"]
    responses = sum(map(len, scores))
    return {
        "version": VERSION,
        "n": len(questions),
        "n_single": len(single),
        "n_multi": len(multi),
        "samples": responses // max(1, len(questions)),
        "accuracy": mean(per_item["acc"]),
        "accuracy_ci": bootstrap(per_item["acc"], resamples, seed),
        "single_accuracy": mean(single),
        "single_accuracy_ci": bootstrap(single, resamples, seed),
        "multi_strict_accuracy": mean(multi),
        "multi_strict_accuracy_ci": bootstrap(multi, resamples, seed),
        "multi_elastic_accuracy": mean(elastic),
        "format_rate": mean(per_item["format"]),
        "unreadable_rate": 1 - mean(per_item["readable"]),
        "cut_by_length": cut,
        "responses": responses,
    }
