"""The reward of Psyche-R1's GRPO: format plus accuracy. The formula is unpublished; weights and rules here are ours.

verl loads `compute_score` by path (`reward.custom_reward_function`) and calls it in threads: no state, no alarm.
Every rule with an example: reward/rules.md. How one response is scored: `python -m reward.explain`.
"""

from typing import Any

from reward.answer import read_parts
from reward.thought import split_thought

MULTI_RULES = ("strict", "subset", "jaccard")


def is_well_formed(response: str, think_prefilled: bool = False) -> bool:
    """True for exactly one non-empty thought, nothing before it, and a non-empty answer part after it."""
    return _well_formed(response, *split_thought(response, think_prefilled), think_prefilled)


def _well_formed(response: str, thought: str | None, answer: str | None, think_prefilled: bool) -> bool:
    opens = think_prefilled or response.lstrip().startswith("<think>")
    return bool(opens and thought and thought.strip() and answer and answer.strip())


def credit(answer: str | None, key: str, rule: str) -> float:
    """Returns the credit in [0, 1] of the letters `answer` for the letters `key`; None is 0.

    "strict": the whole key and nothing else. "subset": the share of the key that was selected, 0 with a wrong letter
    (PCEB's elastic accuracy, inferred from its tables). "jaccard": shared letters by all letters of both. Raises
    ValueError for another rule.
    """
    if rule not in MULTI_RULES:
        raise ValueError(f"multi_rule={rule!r}: known are {', '.join(MULTI_RULES)}")
    if not answer or not key:
        return 0.0
    if answer == key:
        return 1.0
    if rule == "strict":
        return 0.0
    selected, gold = set(answer), set(key)
    if rule == "subset":
        return len(selected) / len(gold) if selected <= gold else 0.0
    return len(selected & gold) / len(selected | gold)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    format_weight: float = 0.1,
    multi_rule: str = "strict",
    format_gate: bool = False,
    think_prefilled: bool = False,
) -> dict[str, float]:
    """Returns the same keys for every sample: `score` in [0, 1] is the reward, the others are for the logs.

    score = format_weight * format + (1 - format_weight) * credit. All is ours: the paper says format and correctness,
    nothing more. `format_weight` is the share of the format; ours: alone it never outweighs a right answer.
    `multi_rule` is the rule of `credit`, strict, subset or jaccard; ours: partial credit pays for naming fewer letters
    than one believes. `format_gate` gives credit only to what is well-formed; ours: without it, a right answer without
    tags still teaches before the format is learnt. `think_prefilled` says that the chat template opens the thought.
    """
    options = (extra_info or {}).get("options")
    options = list("ABCDEF") if options is None or len(options) == 0 else options
    thought, part = split_thought(solution_str, think_prefilled)
    answer = read_parts(part, options).letters
    well_formed = _well_formed(solution_str, thought, part, think_prefilled)
    earned = credit(answer, ground_truth, multi_rule) if well_formed or not format_gate else 0.0
    return {
        "score": format_weight * well_formed + (1 - format_weight) * earned,
        "acc": float(answer is not None and answer == ground_truth),
        "format": float(well_formed),
        "elastic": credit(answer, ground_truth, "subset"),
        "readable": float(answer is not None),
        "think_chars": float(len(thought or "")),
    }
