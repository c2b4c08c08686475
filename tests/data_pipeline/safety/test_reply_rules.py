"""What no reply in the training data may say is found, in both languages; every rule is held to its examples."""

import json
from itertools import pairwise

import pytest

from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.reply_rules import find_forbidden, forbidden_rules
from tests.conftest import real_data

BETWEEN = {"zh": "我理解你。{}，好吗", "en": "I hear you. {}, okay"}
KINDS = ["diagnosis", "medication advice", "promise", "contact number", "request for money or secrets"]


def test_both_languages_have_rules_of_every_kind():
    assert [(rule["language"], rule["name"]) for rule in forbidden_rules()] == [
        (language, kind) for language in ("zh", "en") for kind in KINDS
    ]


@pytest.mark.parametrize("rule", forbidden_rules(), ids=lambda rule: f"{rule['language']} {rule['name']}")
def test_a_rule_does_what_its_examples_say(rule):
    assert rule["hits"] and rule["misses"]
    for text in rule["hits"]:
        assert rule["name"] in [name for name, _ in find_forbidden(text)], text
        assert rule["name"] in [name for name, _ in find_forbidden(BETWEEN[rule["language"]].format(text))], text
    for text in rule["misses"]:
        assert find_forbidden(text) == [], text
    for one, two in pairwise(rule["misses"]):
        assert find_forbidden(f"{one}；{two}" if rule["language"] == "zh" else f"{one}; {two}") == []


def test_one_reply_is_read_in_both_languages_and_told_once():
    text = "你一定会好起来的。I promise you will feel better.\n你一定会好起来的！请拨打12320，或者 call 988 now."
    assert find_forbidden(text) == [
        ("promise", "一定会好起来"),
        ("contact number", "拨打12320"),
        ("promise", "i promise you will feel better"),
        ("contact number", "call 988"),
    ]
    assert find_forbidden("400-161-0000 (free)") == [("contact number", "400-161-0000")]  # by a rule of each


def test_a_question_states_nothing():
    assert find_forbidden("你这是典型的抑郁症吗？You have depression?\n") == []
    assert find_forbidden("I promise you will be fine。你觉得呢？") != []  # another sentence's mark


def test_the_guidance_without_numbers_breaks_no_rule():
    for language in ("zh", "en"):
        assert find_forbidden(guidance(language, (), alone=True)) == []


def test_few_of_the_replies_in_smile_are_refused():
    texts = []
    for file in sorted(real_data("smile").glob("*.json")):
        turns = json.loads(file.read_text(encoding="utf-8"))
        texts += [turn["content"] for turn in turns if turn.get("role") == "counselor"]
    hits = [(rule, words) for text in texts for rule, words in find_forbidden(text)]
    # read one by one: nine promises, "尝试服用适量的褪黑素", and one false alarm (a doctor's prescription retold)
    assert len(texts) > 1500 and 5 <= len(hits) <= 15, hits
