"""The reward of Psyche-R1's GRPO: format plus accuracy. The formula is unpublished; weights and rules here are ours.

verl loads `compute_score` by path (`reward.custom_reward_function`) and calls it in threads: no state, no alarm.
"""

from reward.answer import read_answer, split_thought


def is_well_formed(response: str, think_prefilled: bool = False) -> bool:
    """True for exactly one non-empty thought, nothing before it, and a non-empty answer part after it."""
    text = ("<think>" + response) if think_prefilled and not response.lstrip().startswith("<think>") else response
    thought, answer = split_thought(text)
    return bool(text.lstrip().startswith("<think>") and thought and thought.strip() and answer and answer.strip())


def elastic_credit(answer: str | None, gold: str) -> float:
    """Share of the gold letters selected when no wrong letter is among them, else 0 (inferred, papers: PCEB)."""
    if not answer or not gold or not set(answer) <= set(gold):
        return 0.0
    return len(set(answer)) / len(set(gold))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    format_weight: float = 0.1,
    multi_rule: str = "strict",
    think_prefilled: bool = False,
    **kwargs,
) -> dict[str, float]:
    """Returns the same keys for every sample: `score` in [0, 1] is the reward, the others are for the logs.

    score = format_weight * format + (1 - format_weight) * credit. Chosen by us: 0.1, so that format alone never
    outweighs a right answer; `multi_rule` "strict" credits only the whole key, "elastic" a subset of it in part.
    """
    options = (extra_info or {}).get("options")
    options = list("ABCDEF") if options is None or len(options) == 0 else list(options)
    answer = read_answer(solution_str, options, think_prefilled)
    well_formed = float(is_well_formed(solution_str, think_prefilled))
    acc = float(answer is not None and answer == ground_truth)
    elastic = elastic_credit(answer, ground_truth)
    credit = elastic if multi_rule == "elastic" else acc
    return {
        "score": format_weight * well_formed + (1 - format_weight) * credit,
        "acc": acc,
        "format": well_formed,
        "elastic": elastic,
        "readable": float(answer is not None),
        "think_chars": float(len(split_thought(solution_str, think_prefilled)[0] or "")),
    }
