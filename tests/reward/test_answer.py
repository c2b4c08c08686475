"""Reading an answer: what is read, and what stays unreadable."""

import pytest

from reward.answer import read_answer

OPTIONS = ["视觉", "听觉", "思维", "想象"]

READ = [
    ("<think>先排除B。</think>\n\n答案：A", "A"),
    ("<think>x</think>答案：A、C、D", "ACD"),
    ("答案是 A、C、D", "ACD"),
    ("答案：ABD", "ABD"),
    ("答案：DBA", "ABD"),
    ("**答案：Ｂ**", "B"),
    ("Answer: B", "B"),
    ("Answer: A, B and D", "ABD"),
    ("故选 BC。", "BC"),
    ("B", "B"),
    ("A C D", "ACD"),
    ("答案：A\n\n最终答案：A", "A"),
]

UNREADABLE = [
    "",
    "<think>答案：A",
    "<think>答案：A</think>",
    "<think>a</think><think>b</think>答案：A",
    "答案：A</think>",
    "答案：A 或 B",
    "A或B",
    "答案：A\n答案：B",
    "答案：E",
    "答案：Apple",
    "不确定，可能是A",
    "我不知道",
    "Answer",
]


@pytest.mark.parametrize(("response", "letters"), READ)
def test_a_stated_answer_is_read(response, letters):
    assert read_answer(response, OPTIONS) == letters


@pytest.mark.parametrize("response", UNREADABLE)
def test_what_cannot_be_read_is_never_guessed(response):
    assert read_answer(response, OPTIONS) is None


def test_a_thought_that_the_template_opened_is_supported():
    assert read_answer("因为……</think>\n答案：C", OPTIONS, think_prefilled=True) == "C"
    assert read_answer("因为……答案：C", OPTIONS, think_prefilled=True) is None
