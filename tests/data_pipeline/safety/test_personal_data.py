"""Contacts are masked however they are spelled, clean texts are left alone; every rule is held to its examples."""

import json
import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.safety import personal_data
from data_pipeline.safety.helplines import HELPLINES_BY_COUNTRY, Helpline
from data_pipeline.safety.personal_data import (
    LEAST_DIGITS,
    MOST_DIGITS,
    contact_rules,
    find_contacts,
    fold,
    placeholder,
)

CONTACTS = [json.loads(line) for line in (Path(__file__).parent / "contacts.jsonl").read_text("utf-8").splitlines()]
CONTACT_RULES = [*contact_rules()["numbers"], *contact_rules()["words"]]


@pytest.mark.parametrize("rule", CONTACT_RULES, ids=lambda r: r["name"])
def test_a_contact_rule_does_what_its_examples_say(rule):
    assert rule["hits"] and rule["misses"]
    for text in rule["hits"]:
        assert rule["name"] in {span.rule for span in find_contacts(text)}, text
    for text in rule["misses"]:
        assert rule["name"] not in {span.rule for span in find_contacts(text)}, text


def test_no_rule_of_numbers_knows_a_shorter_or_longer_one():
    digits = [rule["digits"] for rule in contact_rules()["numbers"]]
    short = [f"{number:0{size}d}" for size in range(1, LEAST_DIGITS) for number in range(10**size)]
    long = [first + "0123456789" * 3 for first in ("1", "3", "86", "00861", "400", "0571")]
    long = [number[:size] for number in long for size in range(MOST_DIGITS + 1, 31)]
    assert not [number for number in short + long if any(pattern.fullmatch(number) for pattern in digits)]
    assert any(pattern.fullmatch("1" * LEAST_DIGITS) for pattern in digits)
    assert any(pattern.fullmatch("1" * MOST_DIGITS) for pattern in digits)


def core(text: str) -> str:
    return re.sub(r"[\W_]", "", fold(text))


def mask(text: str) -> tuple[str, list]:
    """Returns (text with each contact datum replaced by its placeholder, the spans), as cleaning replaces them."""
    spans, masked = find_contacts(text), text
    for span in reversed(spans):
        masked = masked[: span.start] + placeholder(span.kind) + masked[span.end :]
    return masked, spans


def test_there_are_two_hundred_cases_of_every_kind():
    assert len(CONTACTS) >= 200 and len({case["text"] for case in CONTACTS}) == len(CONTACTS)
    assert {case["kind"] for case in CONTACTS} == set(contact_rules()["names"]) - {"name"}  # of authors: test_cleaning


@pytest.mark.parametrize("case", CONTACTS, ids=lambda c: c["text"][:20])
def test_no_contact_datum_survives_and_the_words_around_it_do(case):
    masked, spans = mask(case["text"])
    rest = case["text"]
    for datum in case["data"]:
        rest = rest.replace(datum, " ")
    for datum in case["data"]:  # nor any four characters of it
        pieces = {core(datum)[i : i + 4] for i in range(max(1, len(core(datum)) - 3))}
        assert not [piece for piece in pieces if piece in core(masked) and piece not in core(rest)], masked
    assert all(words in masked for words in re.findall("[一-龥]+", rest)), masked
    assert all(span.text == case["text"][span.start : span.end] for span in spans)
    assert mask(masked) == (masked, [])


def test_a_text_with_several_contacts_reads_on():
    text = "老师好，我叫小敏，微信：abc12345，电话154-1234-5678，晚上八点以后都在，谢谢。"
    masked, spans = mask(text)
    assert masked == "老师好，我叫小敏，微信：[微信号已隐去]，电话[电话已隐去]，晚上八点以后都在，谢谢。"
    assert [span.kind for span in spans] == ["wechat", "phone"]
    assert placeholder("id") == "[证件号已隐去]"


@pytest.mark.parametrize(
    "text",
    [
        "难受的时候可以打12356，或者北京心理热线010-82951332、希望24热线400-161-9995。",
        "青少年热线12355，报警110，急救120。",
        "In the US call or text 988, in the UK call 116 123, or text HOME to 741741.",
    ],
)
def test_public_lines_of_help_stay(text):
    assert mask(text)[0] == text


SAID = [
    "{}", "请拨打{}", "热线：{}", "心理援助电话{}，免费", "联系我{}", "{}（24小时）", "热线{}（24小时）",
    "拨打 {} 24小时有人", "手机号 {}", "加微信{}", "call {} now", "call {} (24/7)", "text {}",
    "电话 {}、12356", "号码{}或{}", "{} / {}",
]  # fmt: skip


@pytest.mark.parametrize("said", SAID)
def test_every_help_line_survives_cleaning(said):
    lines = [line for lines in HELPLINES_BY_COUNTRY.values() for line in lines]
    assert [line for line in lines if find_contacts(said.format(*[line.number] * 2))] == []
    assert find_contacts("；".join(f"{line.name} {line.number}" for line in lines)) == []


@pytest.fixture
def added(monkeypatch):
    """Help lines that are added to `helplines.yaml`, their numbers as people write them."""
    numbers = ("0800 58 58 58", "1-800-555-0155", "13 11 14", "+852 5555 0000", "(02) 5555 2222", "13800000000")
    lines = tuple(Helpline("a new line", number, "its office", "2026-01-01") for number in numbers)
    for line in lines:
        assert find_contacts(f"热线{line.number}（24小时）"), line  # so far it is masked
    monkeypatch.setattr(personal_data, "HELPLINES_BY_COUNTRY", HELPLINES_BY_COUNTRY | {"new": lines})
    contact_rules.cache_clear()
    yield lines
    contact_rules.cache_clear()


def test_a_help_line_that_is_added_is_no_contact_datum(added):
    texts = [said.format(line.number, line.number) for line in added for said in SAID]
    assert [text for text in texts if find_contacts(text)] == []
    for line in added:  # and nothing else is spared
        assert [span.kind for span in find_contacts(f"热线{line.number}，我的手机154 1234 5678")] == ["phone"]


def test_a_public_number_at_the_beginning_of_another_number_spares_neither():
    for text in ("QQ 12345 6789", "加我 12356 678", "微信：12355-1234", "手机120 1234 5678"):
        assert len(find_contacts(text)) == 1, text


def test_contact_rules_do_not_name_help_lines_again():
    lines = {re.sub(r"\D", "", line.number) for lines in HELPLINES_BY_COUNTRY.values() for line in lines}
    others = yaml.safe_load((personal_data.HERE / "personal_data.yaml").read_text(encoding="utf-8"))["public"]
    assert not lines & set(others) and contact_rules()["public"] == lines | set(others)


def test_the_checksum_decides_on_a_bare_number():
    good = "110101193013320005"  # no date in it: only the check digit tells
    assert [span.kind for span in find_contacts(f"我的号{good}")] == ["id"]
    for last in set("0123456789x") - {"5"}:
        assert find_contacts(f"流水{good[:-1]}{last}") == []
    assert [s.kind for s in find_contacts(f"身份证{good[:-1]}7")] == ["id"]  # mistyped, but said to be one


@given(st.text(alphabet=string.printable + "一二三四五六七八九零微信扣电话邮箱０１２３，。！①②③😀\u200b", max_size=80))
@settings(max_examples=300, deadline=None)
def test_masking_is_final_and_its_spans_are_true(text):
    masked, spans = mask(text)
    assert all(text[s.start : s.end] == s.text for s in spans)
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:], strict=False))
    rest, at = [], 0
    for span in spans:
        rest.append(text[at : span.start])
        at = span.end
    assert masked.count("已隐去]") >= len(spans)
    assert all(piece in masked for piece in [*rest, text[at:]])
