"""Thoughts and stop words, in whatever pieces a text arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.models import reasoning
from reward.thought import ThoughtStream


def split(pieces: list[str], prefilled: bool = False) -> dict[str, str]:
    splitter, parts = ThoughtStream(prefilled), {"thought": "", "reply": ""}
    for piece in pieces:
        for kind, text in splitter.feed(piece):
            if kind == "late":
                parts = {"thought": parts["reply"], "reply": ""}
            else:
                parts[kind] += text
    for kind, text in splitter.end():
        parts[kind] += text
    return parts


@pytest.mark.parametrize(
    ("text", "prefilled", "expected"),
    [
        ("<think>\n想\n</think>\n\n答", False, ("想\n", "答")),
        ("想</think>答", True, ("想", "答")),
        ("想</think>答", False, ("想", "答")),
        ("<think>想</think>答</think>完", False, ("想", "答完")),
        ("<think>想", False, ("想", "")),
        ("答 <thin 完", False, ("", "答 <thin 完")),
        ("<think></think>答", False, ("", "答")),
    ],
)
def test_thoughts_are_told_from_replies_however_they_arrive(text, prefilled, expected):
    for size in (1, 2, 3, len(text)):
        parts = split([text[i : i + size] for i in range(0, len(text), size)], prefilled)
        assert (parts["thought"], parts["reply"]) == expected, size


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think", ">", "甲", "\n", "</"]), max_size=12), st.data())
def test_the_pieces_of_a_text_do_not_change_what_is_thought(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    assert split([text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]) == split([text])


@given(st.text("ab停", max_size=20), st.lists(st.text("ab停", min_size=1, max_size=3), max_size=3), st.data())
def test_a_stop_word_ends_the_text_before_it(text, stops, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    pieces = [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    whole = "".join(reasoning.until(pieces, stops))
    assert text.startswith(whole) and not any(word in whole for word in stops)
    if whole != text:
        assert any(text.startswith(word, len(whole)) for word in stops)
