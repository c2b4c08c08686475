"""What speaks of a crisis is flagged however it is spelled, and what only sounds like it is not."""

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import BadInput
from data_pipeline.safety import crisis, crisis_model, normalise
from data_pipeline.safety.crisis import crisis_flags, crisis_rules, find_crisis, flags_of, names_means, tried
from data_pipeline.safety.crisis_model import risky_sentences
from data_pipeline.safety.needed_words import needed_words
from data_pipeline.safety.normalise import normalised, normalised_with_places
from data_pipeline.safety.train_crisis_model import HARMLESS, read_texts
from tests.conftest import real_data

HERE = Path(__file__).parent
DEVELOPMENT = read_texts(HERE / "crisis_development.tsv")


def test_the_development_set_is_flagged_by_class():
    """In sample: rules and model were chosen on it. What nobody chose on stands in docs/evaluation.md."""
    found = defaultdict(list)
    for name, text, _, _ in DEVELOPMENT:
        found[name.split()[-1]].append(bool(crisis_flags(text)))
    shares = {name: sum(flags) / len(flags) for name, flags in found.items()}
    assert len(DEVELOPMENT) > 1000 and set(HARMLESS) - {"pass"} < set(found)
    assert {name: share for name, share in shares.items() if name not in HARMLESS and share < 0.90} == {}
    assert {name: share for name, share in shares.items() if name in HARMLESS and share > 0.05} == {}


@pytest.mark.parametrize(("name", "least", "most"), [("second", 187, 10), ("third", 201, 4)])
def test_a_blind_set_is_flagged_as_it_was_when_it_was_scored(name, least, most):
    """Written by somebody who had not seen rules or model; nothing was chosen on it since (docs/evaluation.md)."""
    texts = read_texts(HERE / f"crisis_blind_{name}.tsv")
    flags = {about: [bool(crisis_flags(text)) for _, text, of, _ in texts if of == about] for about in (True, False)}
    assert (len(flags[True]), len(flags[False])) == (220, 110)
    assert sum(flags[True]) >= least and sum(flags[False]) <= most


def test_flags_on_real_messages():
    """PsyGUARD's labels, by rules alone: the model is trained on some of them."""
    found = defaultdict(list)
    for row in json.loads((real_data("psysuicide") / "valid.json").read_bytes()):
        for label in row["labels"]:
            found[label].append(bool(tried(normalised(row["text"]))[0]))
    about = {label: flags for label, flags in found.items() if re.search("意图|计划|准备|未遂|自伤行为", label)}
    assert sum(map(len, about.values())) > 330
    assert {label: sum(flags) for label, flags in about.items() if len(flags) >= 10 and np.mean(flags) < 0.88} == {}
    assert np.mean(found["与自杀/自伤/攻击行为无关"]) <= 0.05


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("我真的不想活了", "suicide"), ("活着好累，死了算了", "suicide"), ("想結束自己的生命", "suicide"),
        ("昨晚站在楼顶，差点跳下去", "suicide_plan"), ("吃多少片安眠药会死", "suicide_plan"),
        ("去年割腕被送去抢救", "suicide_attempt"), ("又用刀片划手臂了", "self_harm"), ("想杀了他", "harm_others"),
        ("I don’t want to live anymore", "suicide"), ("I keep cutting myself", "self_harm"),
        ("I overdosed last year", "suicide_attempt"), ("I want to kill my boss", "harm_others"),
    ],
)  # fmt: skip
def test_crisis_is_flagged_by_kind(text, flag):
    assert flag in crisis_flags(text)
    assert flag in crisis_flags("今天下了一整天的雨。" * 300 + text + "。" + "我们去散步。" * 300)


ENDINGS = "啊啦了咯喽勒咧辣惹哩嘞呐诶吧呢呀嘛哦噢哈" + "，。！？~…😭😢"


@pytest.mark.parametrize("ending", [*ENDINGS, "", "qwq", "T_T", "的人", "怎么办", " 真的", "\n"])
def test_any_ending_of_not_wanting_to_live_is_flagged(ending):
    assert "suicide" in crisis_flags(f"我不想活{ending}")


@pytest.mark.parametrize(
    "between", ["*", " ", "\u200b", "\u2060", "_", "·", "~", "/", "|", "…", "\n", "🐟", "\u0336", "，", "。"]
)
@pytest.mark.parametrize("phrase", ["我不想活了", "我想自杀", "我真的想死"])
def test_nothing_between_the_characters_hides_a_phrase(between, phrase):
    text = between.join(phrase)
    assert "suicide" in crisis_flags(text), normalised(text)
    assert "suicide" in crisis_flags(f"今天很累。{text}。晚安")


@given(
    st.text(alphabet="我不想活了死自殺杀kms1l*_ .,，。\n（）🔪😭\u200b\u0336ＫＭabzishaxiang《》\"'\ud83d", max_size=60)
)
@settings(max_examples=300, deadline=None)
def test_the_reading_knows_where_it_came_from(text):
    read, places = normalised_with_places(text)
    assert read == normalised(text) and len(read) == len(places)
    assert all(0 <= a <= b < len(text) for a, b in zip(places, places[1:], strict=False))
    for span in find_crisis(text):
        assert 0 <= span.start < span.end <= len(text) and span.text == text[span.start : span.end]


def test_a_span_points_into_the_text_as_it_was_given():
    text = "昨天还好。其实我不*想*活\u200b了，🔪🩸手腕"
    spans = {span.rule: span for span in find_crisis(text)}
    assert "不*想*活" in spans["not_live"].text and spans["not_live"].start >= 5
    assert spans["self_harm"].text == "🔪🩸手腕"


def test_what_screens_the_rules_passes_over_no_match():
    reads = [normalised(text) for _, text, _, _ in DEVELOPMENT]
    for rules in crisis_rules().values():
        for read in reads:
            found = {place for place, rule in enumerate(rules.rules) if rule.pattern.search(read)}
            assert found <= set(rules.near(read)), read


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_text_in_which_a_pattern_matches_holds_its_words(data):
    rules = data.draw(st.sampled_from([*crisis_rules().values()]))
    place = data.draw(st.integers(0, len(rules.rules) - 1))
    pattern = rules.rules[place].pattern
    text = data.draw(st.from_regex(pattern, alphabet=st.characters(codec="utf-8")).filter(pattern.search))
    assert place in rules.near(text)


def test_a_pattern_needs_a_word_of_each_set_of_its_alternatives():
    assert needed_words("(?:割|跳)(?=刀)|不想[^。]{0,3}活着?|x{2,3}") == [
        [{"刀"}, {"割", "跳"}],
        [{"活"}, {"不想"}],
        [{"x"}],
    ]
    for pattern in (".*", "a?", "死|[^a]", "(?<!不)"):
        with pytest.raises(ValueError, match="needs no word"):
            needed_words(pattern)


_SIGNS = "我不想活了死自杀殺12kms_ .,，。\n（）“”《》*-、！🔪😭\u200b\0ＫＭab\ud83d"


@given(st.lists(st.text(alphabet=_SIGNS, max_size=30), max_size=6))
@settings(max_examples=300, deadline=None)
def test_texts_together_are_read_as_each_alone(texts):
    characters = normalise._tables()[0]
    every = [normalise._rewritten(text.translate(characters), None) for text in texts]
    assert [normalised(text) for text in texts] == every
    assert flags_of(texts) == [crisis_flags(text) for text in texts]
    assert risky_sentences(every) == [risky_sentences([read])[0] for read in every]


@given(st.text(alphabet="我想死不活了麼5，。？\n （", max_size=12))
@settings(max_examples=500, deadline=None)
def test_a_plain_text_is_read_as_by_all_steps(text):
    assert normalised(text) == normalise._rewritten(text.translate(normalise._tables()[0]), None)


def test_a_pattern_is_one_line_of_160_characters():
    for name in ("crisis_rules.yaml", "crisis_words.yaml"):
        lines = (Path(crisis.__file__).parent / name).read_text("utf-8").splitlines()
        assert [line for line in lines if len(line) > 160] == []


@pytest.fixture
def rules_of(monkeypatch):
    """Replaces the rules by what a function makes of them."""

    def replaced(change):
        data = normalise.read_yaml("crisis_rules.yaml")
        change(data)
        monkeypatch.setattr(crisis, "read_yaml", lambda name: data)
        crisis_rules.cache_clear()

    yield replaced
    crisis_rules.cache_clear()


@pytest.mark.parametrize("pattern", ["想(死", "想死$NOPART", "想[死", 5, "(?<=想+)死"])
def test_a_broken_rule_is_named(rules_of, pattern):
    rules_of(lambda data: data["rules"]["suicide"]["want_to_die"].insert(0, pattern))
    with pytest.raises(BadInput, match=r"crisis_rules.yaml: rule want_to_die, pattern 1: "):
        crisis_flags("我想死")


def test_a_rules_file_without_a_section_is_told(rules_of):
    rules_of(lambda data: data.pop("counters"))
    with pytest.raises(BadInput, match=r"crisis_rules.yaml: no 'counters'; restore it"):
        crisis_flags("我想死")


def test_weights_of_another_version_are_refused(tmp_path, monkeypatch):
    with np.load(crisis_model.FILE) as data:
        np.savez(tmp_path / "crisis_model.npz", **{**data, "version": 1})
    assert crisis_model.FILE.stat().st_size <= 500_000
    monkeypatch.setattr(crisis_model, "FILE", tmp_path / "crisis_model.npz")
    crisis_model._weights.cache_clear()
    try:
        with pytest.raises(BadInput, match=r"crisis_model.npz: version 1, and this code reads 3; git checkout"):
            crisis_flags("今天天气不错")
    finally:
        crisis_model._weights.cache_clear()


def test_halves_of_characters_and_long_texts_are_read():
    assert (
        "suicide" in crisis_flags("\ud83d我不想\udc00活了\ud83d") and crisis_flags("\ud83d") == crisis_flags("") == []
    )
    assert crisis_flags("今天下雨，我在家看书。" * 10_000) == []
    assert "suicide" in crisis_flags("今天下雨，我在家看书。" * 10_000 + "我不想活了")


def test_means_are_named_whatever_is_said_of_them():
    for text in ("安眠药的致死量是多少因人而异", "有人会选择烧炭", "a lethal dose", "不要想着割腕", "自*杀*方*法"):
        assert names_means(text), text
    for text in ("我在听，你慢慢说", "你愿意和我说说发生了什么吗？", "I am here with you", "今晚早点睡"):
        assert not names_means(text), text
