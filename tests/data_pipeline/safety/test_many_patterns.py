"""Words that patterns need: whatever a pattern matches holds them, and searching by words first finds what each pattern
alone finds.
"""

import re
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]  # typeshed has no stub of the two
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.safety.crisis import crisis_rules
from data_pipeline.safety.many_patterns import BORDER, ManyPatterns
from data_pipeline.safety.needed_words import ENDS, alternatives, together

ALL = [*crisis_rules()["sought"].alternatives, *crisis_rules()["blotted"].alternatives]


@pytest.mark.parametrize(
    ("pattern", "needs", "across"),
    [
        ("死", [{"死"}], False),
        ("想(?:要|去)?死", [{"想死", "想要死", "想去死"}], False),
        ("想[要去]死", [{"想要死", "想去死"}], False),
        ("想.{0,4}死", [{"想"}, {"死"}], True),
        ("想[^。！？!?\\n]{0,4}死", [{"想"}, {"死"}], False),
        ("自[\\W_]{0,3}杀", [{"自"}, {"杀"}], True),
        ("Kill (?:my|him)self", [{"kill myself", "kill himself"}], False),
        ("(?:割|划)+手", [{"割", "划"}, {"手"}], False),
        ("死(?:[。！]|$)", [{"死"}], False),
        ("(?:跳楼|楼顶).{0,9}走(?:了|掉)?", [{"跳楼", "楼顶"}, {"走"}], True),
        ("(?:想死|死)", [{"死"}], False),
        ("死[。！]走", [{"死。走", "死！走"}], True),
    ],
)
def test_what_a_pattern_needs(pattern, needs, across):
    (found,) = alternatives(pattern)
    assert set(found.needs) == {frozenset(words) for words in needs} and found.across == across


def test_a_pattern_is_taken_apart_between_its_groups_only():
    found = alternatives(r"想死|(?:跳楼|割[腕|手])|不\|活")
    assert [each.pattern for each in found] == ["想死", "(?:跳楼|割[腕|手])", r"不\|活"]
    with pytest.raises(ValueError, match=r"needs no word .* '\[\^死\]\?'"):
        alternatives("想死|[^死]?")


@pytest.mark.parametrize("place", range(0, len(ALL), 40))
def test_whatever_a_crisis_pattern_matches_holds_its_words(place):
    @given(st.data())
    @settings(max_examples=15, deadline=None)
    def check(data):
        each = data.draw(st.sampled_from(ALL[place : place + 40]))
        text = data.draw(st.from_regex(re.compile(each.pattern, re.IGNORECASE), fullmatch=True))
        assert all(any(word in text.lower() for word in need) for need in each.needs), (each.pattern, text)
        inner = text[BORDER:-BORDER] if len(text) > 2 * BORDER else ""
        if any(mark in inner for mark in ENDS):
            assert each.across, (each.pattern, text)
        for said in (text, f"今天下雨。{text}。我们去散步。"):
            alone = [0] if re.search(each.pattern, said, re.IGNORECASE) else []
            assert ManyPatterns([each]).found_in(said) == alone, said

    check()


WORDS = st.lists(
    st.sampled_from(["想", "死", "跳楼", "自", "杀", "。", "了", "就", "好", "Die", "\n", "İ", "怎么", "？"]),
    max_size=12,
)


@given(WORDS)
@settings(max_examples=400, deadline=None)
def test_words_first_finds_what_each_pattern_finds_alone(parts):
    text, between = "".join(parts), "[^。！？!?\n]{0,3}"
    sought = [
        *alternatives("想.{0,2}死|自[\\W_]{0,3}杀|die|死了(?:就)?好|好[。\\n]|怎么？|？"),
        together(["跳楼", "死|杀", "了"], between),
    ]
    alone = [place for place, each in enumerate(sought) if re.search(each.pattern, text, re.IGNORECASE)]
    assert ManyPatterns(sought).found_in(text) == alone


def endless(items) -> list:
    """Returns what may repeat without end and is more than one character."""
    found = []
    for kind, value in items:
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            single = len(value[2]) == 1 and value[2][0][0] in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY)
            found += [value] if value[1] is sre.MAXREPEAT and not single else endless(value[2])
        elif kind is sre.SUBPATTERN:
            found += endless(value[3])
        elif kind is sre.BRANCH:
            found += [each for branch in value[1] for each in endless(branch)]
    return found


def test_only_a_character_repeats_without_end_in_crisis_patterns():
    """Else a text of one's choosing could make a search take longer than its length asks for."""
    assert [each.pattern for each in ALL if endless(parser.parse(each.pattern, re.IGNORECASE))] == []
    assert endless(parser.parse("不(?:想了|死)+")) and not endless(parser.parse("不死+(?:想|死){2,9}"))
