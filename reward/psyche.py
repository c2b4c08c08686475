"""The reward of Psyche-R1's GRPO: format plus accuracy. The formula is unpublished; weights and rules here are ours.

verl loads `compute_score` by path (`reward.custom_reward_function`) and calls it in threads: no state, no alarm.
Every rule with an example: reward/rules.md. How one response is scored: `python -m reward.explain`.
"""

import re
from functools import lru_cache
from typing import Any
from unicodedata import normalize

from reward.answer import LETTERS, match_strict, read_answer, sound
from reward.thought import OPEN, split_thought

READINGS = ("strict_match", "flexible_extract")
MULTI_RULES = ("strict", "subset", "jaccard")
POSSIBLE = tuple("ABCDEF")  # options of a question that brings none


@lru_cache(65536)
def read_key(key: str, options: int) -> str:
    """Returns the sorted letters of a key such as "B", "ABD", "A、C", "ａ, c".

    Raises ValueError, naming the key, for what is no letter of the options, or holds one twice.
    """
    letters = sound(re.sub(r"[、,;\s]", "", normalize("NFKC", key).upper()), options)
    if letters is None:
        known = LETTERS[min(options, len(LETTERS)) - 1]
        raise ValueError(f"key={key[:80]!r}: must be letters of A to {known}, each once, such as B, ABD or A、C")
    return letters


def is_well_formed(response: str, think_prefilled: bool = False) -> bool:
    """True for exactly one non-empty thought, nothing before it, and a non-empty answer part after it: the format of
    what has no letters, an open answer or a reply."""
    thought, answer = split_thought(response, think_prefilled)
    opens = think_prefilled or response.lstrip().startswith(OPEN)
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
    reading: str = "strict_match",
) -> dict[str, float]:
    """Returns the same keys for every sample: `score` in [0, 1] is the reward, the others are for the logs.

    score = format_weight * format + (1 - format_weight) * credit. All is ours: the paper says format and correctness,
    nothing more. `format_weight` is the share of the format; ours: alone it never outweighs a right answer.
    `multi_rule` is the rule of `credit`, strict, subset or jaccard; ours: partial credit pays for naming fewer letters
    than one believes. `reading` is what earns the credit, strict_match (the form that the prompts ask for, and it is
    `format` too) or flexible_extract (letters in another form too); ours: training finds what a lenient reader
    overlooks. `format_gate` gives credit only to what is well-formed; ours: for flexible_extract and open questions.
    `think_prefilled` says that the chat template opens the thought.

    An empty `ground_truth` is for what has no letters: its format alone, `is_well_formed`. Raises ValueError for an
    unknown `reading` or `multi_rule`, and for a key that is no letters of the options.
    """
    if reading not in READINGS:
        raise ValueError(f"reading={reading!r}: known are {', '.join(READINGS)}")
    options = (extra_info or {}).get("options")
    options = POSSIBLE if options is None or len(options) == 0 else options
    answer, thought = match_strict(solution_str, len(options), think_prefilled)
    well_formed = answer is not None
    if not well_formed:
        thought = split_thought(solution_str, think_prefilled)[0] or ""
    if not ground_truth:
        key, answer, well_formed = "", None, is_well_formed(solution_str, think_prefilled)
    else:
        key = read_key(ground_truth, len(options))
        if answer is None and reading == "flexible_extract":
            answer = read_answer(solution_str, list(options), think_prefilled)
    earned = credit(answer, key, multi_rule) if well_formed or not format_gate else 0.0
    return {
        "score": format_weight * well_formed + (1 - format_weight) * earned,
        "acc": float(answer is not None and answer == key),
        "format": float(well_formed),
        "elastic": credit(answer, key, "subset"),
        "readable": float(answer is not None),
        "think_chars": float(len(thought)),
    }
