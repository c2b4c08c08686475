"""Passages are cut behind sentences of both scripts, lose nothing, and never break a number or an abbreviation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.texts.splitting import SMALLEST, sentences, split

PARAGRAPHS = [
    "依恋是婴儿与照料者之间长期而稳定的情感联结。鲍尔比认为，它保护幼小的孩子不受危险。",
    "安斯沃斯用陌生情境观察一岁的孩子：母亲离开时他们怎样，回来时他们又怎样。",
    "安全型的孩子在母亲回来时寻求接触，很快平静下来，然后继续玩耍。",
    "回避型的孩子似乎不在意母亲的离开，回来时也不靠近她，但心跳说明他们并不平静。",
]


def letters(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    "wanted",
    [
        ["他说：“走吧。”", "然后走了。", "为什么？！", "没人知道；", "算了。"],
        ["Memory is reconstructive. ", "It changes! ", "Does it? ", "Yes, it does; ", "read on."],
        ["Freud (1900) wrote it, e.g. in Vienna, cf. Jung. ", "Later he left."],
        ["Dr. Wang and J. B. Watson met at 3.14 p.m. on Jan. 5 in the U.S. embassy, see Fig. 3. The end was near."],
        ["It was found in 1969. ", "Bowlby said so (see below). ", "Nobody knew."],
        ["1. Introduction to attachment is short. ", "2. Method."],
        ["我很累.", "他不懂。", "真的?", "是的."],
        ["总分是186.5分，1,000人参加。", "见第3.2节。"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(wanted):
    assert list(sentences("".join(wanted))) == wanted


def test_passages_keep_to_paragraphs_and_size():
    passages = list(split(PARAGRAPHS * 30, size=200))
    assert "\n".join(passages) == "\n".join(PARAGRAPHS * 30)
    assert all(len(text) <= 200 for text in passages[:-1]) and len(passages[-1]) < 200 + SMALLEST
    long = "".join(PARAGRAPHS * 5)
    pieces = list(split([long], size=120))
    assert "".join(pieces) == long and all(piece[-1] in "。？" for piece in pieces)
    assert list(split([], 300)) == [] and list(split(["", " "], 300)) == []


def test_blanks_between_sentences_stay():
    sentence = "Memory is reconstructive, and each recall may change it."
    passages = list(split([" ".join([sentence] * 40)], size=300))
    assert len(passages) > 1 and " ".join(passages) == " ".join([sentence] * 40)
    assert all(passage.endswith(".") for passage in passages)


def test_a_sentence_without_an_end_is_cut_between_words():
    words = " ".join(f"word{number}" for number in range(400))
    passages = list(split([words], size=200))
    assert " ".join(passages) == words and all(len(text) <= 200 + SMALLEST for text in passages)
    assert "".join(split(["无" * 950], size=300)) == "无" * 950
    number = "零" * 290 + "1234567890123456789" + "零" * 290
    assert all("1234567890123456789" in text or "1" not in text for text in split([number], size=300))


@given(
    st.lists(st.text(alphabet='依恋情感。？；，.?!;, abcDr5"”“e.g', max_size=400), max_size=4), st.integers(100, 200)
)
@settings(max_examples=200, deadline=None)
def test_no_character_is_lost_or_doubled(paragraphs, size):
    passages = list(split(paragraphs, size))
    assert letters("".join(passages)) == letters("".join(paragraphs))
    assert all(len(text) <= size + SMALLEST for text in passages)
