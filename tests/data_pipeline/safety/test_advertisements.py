"""Advertisements go and the language of therapy stays; what is measured here on fitted examples is measured on those of
another hand by tests/benchmarks/advertisements.py.
"""

import json
from pathlib import Path

import pytest

from data_pipeline.records import Dialogue, Question
from data_pipeline.safety.advertisements import find_advertisements, score
from data_pipeline.safety.cleaning import clean_text
from data_pipeline.sources import read
from tests.conftest import real_data

LINES = (Path(__file__).parent / "advertisement_examples.txt").read_text("utf-8").splitlines()
ADVERTISEMENTS = [line[2:] for line in LINES if line.startswith("+ ")]
OTHERS = [line[2:] for line in LINES if line.startswith("- ")]


def is_taken(text: str) -> bool:
    return any(span.kind == "ad" for span in clean_text(text).removed)


def test_the_examples_are_told_apart():
    assert len(ADVERTISEMENTS) == 230 and len(OTHERS) == 253
    right, wrong = sum(map(is_taken, ADVERTISEMENTS)), [text for text in OTHERS if is_taken(text)]
    assert right / len(ADVERTISEMENTS) >= 0.9 and len(wrong) <= 2, wrong


def told_apart(name: str) -> tuple[int, int, int]:
    """Returns (lines of the file, advertisements that are taken, look-alikes that are)."""
    lines = (Path(__file__).parent / f"advertisements_blind{name}.txt").read_text("utf-8").splitlines()
    taken = [line for line in lines if is_taken(line[2:])]
    right = sum(line.startswith("+ ") for line in taken)
    return len(lines), right, len(taken) - right


@pytest.mark.parametrize(("name", "number"), [("", 300), ("_second", 300), ("_third", 200)])
def test_examples_of_other_hands_are_told_apart(name, number):
    """Half of each, written by somebody who had not seen the rules, and scored once (2026-11-29) by the weights of
    then: precision 0.989, 0.966, 1.000, recall 0.593, 0.753, 0.790. They are for development since: the weights are
    fitted to them, too.
    """
    lines, right, wrong = told_apart(name)
    assert lines == number and right >= 0.93 * number / 2 and wrong <= 2


def test_a_blind_set_is_told_apart_as_when_it_was_scored():
    """150 of each, written before its writer had seen rules, weights or other examples, and scored once (2026-11-29) by
    the weights that are there: precision 0.993, recall 0.980 (by the weights before, 0.985 and 0.887: it is easier than
    the second and third). It is fitted to by nothing; what speaks of a crisis stays.
    """
    lines, right, wrong = told_apart("_fourth")
    assert lines == 300 and right >= 144 and wrong <= 1


def test_contact_data_alone_are_masked_and_sell_nothing():
    for text in ("加我微信abc12345，想找人说说话。", "我的QQ是123456789，有同样经历的可以找我。"):
        assert "已隐去" in clean_text(text).text and not is_taken(text)


@pytest.mark.parametrize(
    "text",
    [
        "我在店里一天喊八百遍“亲，全场五折，先到先得”，嗓子哑了，人也麻了。",
        "老板要我群发“限时特惠，错过再等一年！”，我点不下去。",
        'All day I type "sale ends today, order now and save 20%" and at night I cannot sleep.',
        "表姐拉我进群，说扫码进群领鸡蛋，结果被骗了八百。",
    ],
)
def test_advertising_that_somebody_tells_of_stays(text):
    assert clean_text(text).text == text


def test_an_advertisement_that_quotes_goes_and_so_does_one_that_is_quoted_as_a_whole():
    for text in (
        "“为什么，我总是不快乐？”答案在这门课里，原价399，现在扫码进群只要99。",
        "“本店诚招代理，限时优惠，全国包邮，有意者私聊。”",
    ):
        assert is_taken(text), text


@pytest.mark.parametrize("ad", ["私信我领取资料", "扫码进群领资料。"])
def test_short_advertisements_go(ad):
    assert clean_text("慢慢来，先睡一觉。" + ad).text == "慢慢来，先睡一觉。"


@pytest.mark.parametrize("whole", [True, False])
def test_english_advertisements_go_and_what_people_tell_stays(whole):
    own = "I pay $120 a session and I can't tell if it helps. My sister joined an MLM and I miss her."
    ad = "DM me for my free anxiety workbook, then join my 6-week program for just $199!"
    text = f"{own} {ad}" if whole else own
    assert clean_text(text).text == own and [span.text for span in find_advertisements(text)] == [ad] * whole


@pytest.mark.parametrize(
    "text",
    [
        "可以每天做一次身体扫描，以帮助你更好地关注当下。",
        "我们一起识别并挑战不合理的想法，不再过度关注别人的评价。",
        "怕说出来会让人觉得我在索求关注。",
        "我很关注公众号里的心理文章，但看完更焦虑。",
        "我交了四千块的课程费，老师说包过，结果他们关门了，我整夜睡不着。",
    ],
)
def test_words_of_therapy_and_stories_of_buyers_stay(text):
    assert clean_text(text).text == text


def test_only_the_sentences_of_an_advertisement_go():
    own = "我和他分手两个月了，还是会在夜里想起来，白天上课也没有精神。"
    ad = "本店诚招代理，限时优惠，全国包邮，有意者私聊。"
    assert clean_text(own + ad).text == own and clean_text(ad + own).text == own
    (span,) = find_advertisements(own + ad + own)
    assert (span.start, span.text) == (len(own), ad) and score(ad) > 0 > score(own)
    both = find_advertisements(ad + own * 2 + ad)
    assert [span.text for span in both] == [ad, ad]


def test_an_advertisement_in_a_crisis_stays():
    text = "我想死，活不下去了，代写论文加我微信，价格便宜，包过。"
    assert "我想死" in clean_text(text).text


def test_in_public_sets_the_two_advertisements_of_smilechat_go_and_nothing_else():
    taken, texts = [], []
    for file in sorted(real_data("smile").glob("*.json")):
        texts += [(file.stem, turn["content"]) for turn in json.loads(file.read_bytes())]
    texts += [("psysuicide", row["text"]) for row in json.loads((real_data("psysuicide") / "valid.json").read_bytes())]
    for name, folder in (("cpsycoun", "cpsycoun/CPsyCounD"), ("cpsycoun", "cpsycoun/CPsyCounE"), ("pceb", "pceb")):
        for row in read(name, real_data(folder)):
            if isinstance(row, Dialogue):
                texts += [(row.id, turn.content) for turn in row.turns]
            elif isinstance(row, Question):
                texts += [(row.id, text) for text in (row.context, row.stem, row.reference, *row.options)]
    for id, text in texts:
        taken += [(id, span.text) for span in clean_text(text).removed if span.kind == "ad"]
    assert len(texts) > 20_000
    assert taken == [
        ("36694", "如果你还有其他的疑问或者问题，可以私信我或者关注我们的微信公众号: 渡仁心理Pro。"),
        ("44921", "如果你还有其他问题或者需要进一步的支持，随时联系我或者关注我们的微信公众号: 渡仁心理Pro。"),
    ]
