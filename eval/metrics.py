"""Metrics of multiple-choice questions, with counts and intervals (eval/intervals.py).

VERSION rises with any change of scoring, so that two numbers are compared only when they mean the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Response
from eval import intervals
from reward.answer import read_answer, read_strict_match
from reward.psyche import credit, is_well_formed
from reward.thought import join_thought, split_thought

VERSION = "4"
ELASTIC_RULES = {  # the papers publish elastic accuracy, not its formula (README of PsycoLLM)
    "subset": "inferred, not published: |selected|/|key| if no selected option is wrong, else 0",
    "jaccard": "an alternative, not published: |selected and in the key|/|selected or in the key|",
}


@dataclass(frozen=True, slots=True)
class Score:
    """How one response was read; all but the letters are in [0, 1].

    Two readings, named as in lm-evaluation-harness (reward/rules.md): flexible-extract takes what models really write,
    and `read`, `acc`, `elastic` and `readable` go by it; strict-match takes the form that the prompts ask for alone.
    """

    read: str | None  # sorted letters; None where they cannot be read, and of what has no letters
    strict_match: str | None  # the same, by the other reading
    acc: float
    strict_match_acc: float
    elastic: float
    format: float  # with letters: strict-match reads it
    readable: float  # of what has no letters: the answer part holds text
    failed: float
    cut: float  # by its length


def whole_text(response: Response) -> str:
    """Returns the response with its thought in tags, also where the server has split the thought off."""
    return join_thought(response.reasoning, response.text)


def answer_part(response: Response, think_prefilled: bool = False) -> str:
    """Returns what follows the closing </think>; "" for a failed request, an unclosed thought or several."""
    if response.finish == "failed":
        return ""
    answer = split_thought(whole_text(response), think_prefilled and not response.reasoning)[1]
    return (answer or "").strip()


def score_response(
    question: Question | Dialogue, response: Response, elastic_rule: str = "subset", think_prefilled: bool = False
) -> Score:
    """Returns how a response to a question, or to the end of a dialogue, was read.

    A failed request is wrong and unreadable. A response cut off by length is read as it stands. What has no letters, an
    open question or a dialogue, is readable when its answer part holds text; nothing here judges it. Raises BadInput
    for an unknown `elastic_rule`.
    """
    if elastic_rule not in ELASTIC_RULES:
        raise BadInput(f"elastic_rule={elastic_rule}: known are {', '.join(ELASTIC_RULES)}")
    failed, cut = response.finish == "failed", response.finish == "length"
    text, prefilled = whole_text(response), think_prefilled and not response.reasoning
    read = strict = None
    if isinstance(question, Dialogue) or question.kind == "open":
        key, readable = "", bool(answer_part(response, think_prefilled))
        well_formed = not failed and is_well_formed(text, prefilled)
    else:
        if not failed:
            read = read_answer(text, question.options, prefilled)
            strict = read_strict_match(text, question.options, prefilled)
        key, readable, well_formed = question.answer, read is not None, strict is not None
    return Score(
        read=read,
        strict_match=strict,
        acc=float(read is not None and read == key),
        strict_match_acc=float(strict is not None and strict == key),
        elastic=credit(read, key, elastic_rule),
        format=float(well_formed),
        readable=float(readable),
        failed=float(failed),
        cut=float(cut),
    )


def mean(values: Sequence[float]) -> float | None:
    return mean_of(values) if values else None


def mean_of(values: Sequence[float]) -> float:
    """Returns the mean of one value or more."""
    return sum(values) / len(values)


def pass_at(samples: int, right: int, k: int) -> float:
    """Returns the unbiased estimate of the chance that one of k samples is right: 1 - C(n-c, k)/C(n, k)."""
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def per_item(scores: list[list[Score]], key: str) -> list[float]:
    """Returns each item's mean of `key` over its samples."""
    return [mean_of([getattr(s, key) for s in samples]) for samples in scores]


def counts(scores: list[list[Score]]) -> dict[str, int]:
    """Returns how many items and responses there are, and how many responses are unreadable, cut off, or failed.

    A failed request is not counted as unreadable too; one that was cut off may be.
    """
    responses = [s for samples in scores for s in samples]
    return {
        "items": len(scores),
        "responses": len(responses),
        "unreadable": sum(not s.readable and not s.failed for s in responses),
        "cut_by_length": int(sum(s.cut for s in responses)),
        "failed": int(sum(s.failed for s in responses)),
    }


def describe(scores: list[list[Score]]) -> dict:
    """Returns counts, accuracy, elastic accuracy (in [0, 1], with 95 % intervals) and pass@k of some questions.

    They go by flexible-extract; `strict_match` is the accuracy by the other reading. Accuracy is the mean over items of
    the mean over samples; unreadable and failed responses count as wrong. pass@k is the mean over items for k = 1, 2,
    4... up to the number of samples. Without items every metric is None.
    """
    accuracy, strict, elastic = (per_item(scores, key) for key in ("acc", "strict_match_acc", "elastic"))
    n = len(scores[0]) if scores else 0
    right = [round(sum(s.acc for s in samples)) for samples in scores]
    return {
        **counts(scores),
        "accuracy": mean(accuracy),
        "accuracy_ci": intervals.of_share(accuracy, n),
        "strict_match": mean(strict),
        "strict_match_ci": intervals.of_share(strict, n),
        "elastic": mean(elastic),
        "elastic_ci": intervals.of_share(elastic),
        "format_rate": mean(per_item(scores, "format")),
        "pass_at": {str(k): mean([pass_at(n, c, k) for c in right]) for k in (2**i for i in range(n.bit_length()))},
    }
