"""The reward: range, keys, and that format alone never outweighs a right answer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.psyche import READINGS, compute_score, credit, is_well_formed

OPTIONS = {"options": ["甲", "乙", "丙", "丁"]}
KEYS = {"score", "acc", "format", "elastic", "readable", "think_chars"}
PIECES = [
    "<think>",
    "</think>",
    "答案：",
    "A",
    "AB",
    "或",
    "\n",
    " ",
    "选项",
    "\\boxed{",
    "}",
    "x" * 50,
    "\u3000",
    "Ａ",
]


def score(response: str, key: str = "AB", **kwargs) -> dict:
    return compute_score("psyforge/table", response, key, OPTIONS, **kwargs)


def test_right_wrong_and_malformed_are_ordered():
    right = score("<think>因为</think>\n答案：AB")
    bare = score("答案：AB", reading="flexible_extract")
    wrong = score("<think>因为</think>\n答案：C")
    nothing = score("我不知道")
    assert right["score"] == 1.0
    assert bare["score"] == 0.9
    assert math.isclose(wrong["score"], 0.1)
    assert nothing["score"] == 0.0
    assert score("答案：AB")["score"] == score("<think>因为</think>故选 AB。")["score"] == 0.0
    assert (right["acc"], wrong["acc"], nothing["readable"]) == (1.0, 0.0, 0.0)


def test_format_is_what_strict_match_reads_whatever_pays():
    for reading in READINGS:
        assert score("<think>因为</think>\n答案：C", reading=reading)["format"] == 1.0
        assert score("<think>因为</think>\n故选 C。", reading=reading)["format"] == 0.0


def test_an_unknown_reading_and_a_key_that_is_no_letter_are_errors():
    with pytest.raises(ValueError, match="reading='loose': known are strict_match, flexible_extract"):
        score("答案：A", reading="loose")
    for key in ("甲", "1", "AA", "E", "A或B", " "):
        with pytest.raises(ValueError, match=rf"key='{key}': must be letters of A to D"):
            score("答案：A", key=key)
    for key in ("AC", "CA", "A、C", "ａ, c", "Ａ　Ｃ"):
        assert score("<think>因为</think>答案：AC", key=key)["acc"] == 1.0


def test_without_a_key_the_format_alone_counts():
    open_answer = score("<think>因为</think>\n多听少说。", key="")
    assert (open_answer["score"], open_answer["format"], open_answer["acc"], open_answer["readable"]) == (0.1, 1, 0, 0)
    assert score("多听少说。", key="")["score"] == 0.0


def test_a_subset_earns_a_part_only_when_the_recipe_says_so():
    response = "<think>因为</think>\n答案：A"
    assert math.isclose(score(response)["score"], 0.1)
    assert math.isclose(score(response, multi_rule="subset")["score"], 0.1 + 0.9 / 2)
    assert credit("A", "AB", "subset") == 0.5
    assert credit("AC", "AB", "subset") == 0.0
    assert credit(None, "AB", "subset") == 0.0


def test_the_format_of_an_open_answer_is_one_thought_first_and_something_after_it():
    assert is_well_formed("<think>a</think>答案：A")
    assert not is_well_formed("先说<think>a</think>答案：A")
    assert not is_well_formed("<think></think>答案：A")
    assert not is_well_formed("<think>a</think>  ")
    assert not is_well_formed("<think>a</think><think>b</think>答案：A")
    assert is_well_formed("a</think>答案：A", think_prefilled=True)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_any_string_scores_in_range_with_the_same_keys(response):
    found = score(response)
    assert set(found) == KEYS
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert 0 <= found["score"] <= 1
    assert found == score(response)
