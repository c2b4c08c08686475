"""A run's own questions: the held-out ones, or the fixed set of GRPO prompts, as the data stage wrote them."""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.records import Response, read_questions
from eval import metrics
from eval.items import Item, Loaded, by_subject, fingerprint, group_by, score_all


def load(path: str | Path) -> Loaded:
    """Returns the questions of a JSONL file in file order; raises BadInput for a missing or empty one."""
    questions = list(read_questions(Path(path)))
    if not questions:
        raise BadInput(f"{path} holds no question; were split.heldout and split.grpo 0 in the data stage?")
    return Loaded([Item(q, q.kind) for q in questions], [], [])


def score(
    items: Sequence[Item],
    responses: list[list[Response]],
    elastic_rule: str = "subset",
    think_prefilled: bool = False,
    resamples: int = 1000,
    seed: int = 42,
) -> dict:
    """Returns the metrics of one list of samples per item; accuracies and rates in [0, 1], None without such items.

    Unreadable, cut and failed responses stay in every denominator. Raises BadInput for responses that do not fit.
    """
    scores = score_all(items, responses, elastic_rule, think_prefilled)
    by_kind = group_by([i.cell for i in items], scores)
    cells = {kind: metrics.describe(by_kind.get(kind, []), resamples, seed) for kind in ("single", "multi")}
    overall = metrics.describe(scores, resamples, seed)
    return {
        "benchmark": "heldout",
        "version": metrics.VERSION,
        "fingerprint": fingerprint(items),
        "elastic_rule": elastic_rule,
        "elastic_rule_source": metrics.ELASTIC_RULES[elastic_rule],
        "samples": len(responses[0]),
        **overall,
        "readable_rate": metrics.mean(metrics.per_item(scores, "readable")),
        "cells": cells,
        "subjects": by_subject(items, scores, resamples, seed),
        "notes": [],
    }
