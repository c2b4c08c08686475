"""Dirt goes, contacts are masked, crisis stays and is flagged, clean texts stay as they are, and every removed span is
told: rules by their examples, rows by what a reader of the result needs.
"""

import html
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Passage, Post, Question, Reject, Turn
from data_pipeline.safety.cleaning import _rules, clean_text, write_punctuation
from data_pipeline.safety.personal_data import fold
from data_pipeline.sources import cpsyexam as exam
from data_pipeline.sources import pceb as benchmark
from data_pipeline.steps import check_balance
from data_pipeline.steps.clean import STEP, Settings, many
from data_pipeline.synthesis import apply
from tests.conftest import real_data

HERE = Path(__file__).parent
CLEAN = (HERE / "clean_texts.txt").read_text("utf-8").splitlines()
CONTACTS = [json.loads(line) for line in (HERE.parent / "safety" / "contacts.jsonl").read_text("utf-8").splitlines()]


def words(text: str) -> str:
    """Letters, characters and digits in their order: what no change of punctuation touches."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text))


def post(text: str, replies: tuple = (), title: str = "", id: str = "p1", **meta) -> Post:
    return Post(id, "posts", title, text, list(replies), {"where": f"posts.jsonl row {id}", **meta})


@pytest.mark.parametrize("rule", [*_rules().remove, *_rules().repeats], ids=lambda r: r["name"])
def test_a_removing_rule_does_what_its_examples_say(rule):
    assert rule["hits"] and rule["misses"]
    for text in rule["hits"]:
        assert rule["name"] in {span.rule for span in clean_text(text).removed}, text
    for text in rule["misses"]:
        assert rule["name"] not in {span.rule for span in clean_text(text).removed}, text


@pytest.mark.parametrize("rule", _rules().write, ids=lambda r: r["name"])
def test_a_writing_rule_does_what_its_examples_say(rule):
    for before, after in rule["examples"]:
        assert write_punctuation(before) == after
        assert write_punctuation(after) == after


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("好难过😭😭，睡不着[大哭][大哭]T_T", "好难过，睡不着"),
        ("我真的好烦好烦好烦好烦!!!为什么???", "我真的好烦！为什么？"),
        ("哈哈哈哈哈哈，不知道说什么...", "哈哈哈，不知道说什么……"),
        ("看看这个 https://example.test/a?b=1 ，写得很好", "看看这个，写得很好"),
        ("最近睡不好。关注公众号心灵小屋领取课程！希望有人回我。", "最近睡不好。希望有人回我。"),
        ("他说:\"你走吧\",我就走了(真的).", "他说：“你走吧”，我就走了（真的）。"),
        ("我很累 ，真的。\n\n\n\n\n谢谢　你", "我很累，真的。\n\n谢谢 你"),
        ("我今年１８岁，ＱＱ上没有朋友。", "我今年18岁，QQ上没有朋友。"),
        ("今天又跟妈妈吵架了，她说我不懂事。今天又跟妈妈吵架了，她说我不懂事。", "今天又跟妈妈吵架了，她说我不懂事。"),
        ("加我微信abc12345(白天)或者154-1234-5678😊", "加我微信[微信号已隐去]（白天）或者[电话已隐去]"),
        ("第一段<br/>第二段&nbsp;完，我<b>很</b>累", "第一段\n第二段 完，我很累"),
        ("我很累&lt;script&gt;alert(1)&lt;/script&gt;<!-- x -->", "我很累"),
        ("我\u202e很\x1b[31m累\x00了\u2067", "我很累了"),
        ("I feel so alone :( please help!!! https://example.test", "I feel so alone please help!"),
    ],
)  # fmt: skip
def test_what_a_reader_sees(dirty, clean):
    assert clean_text(dirty).text == clean


@pytest.mark.parametrize("case", CONTACTS, ids=lambda c: c["text"][:20])
def test_no_contact_datum_survives_cleaning(case):
    def core(text: str) -> str:
        return re.sub(r"[\W_]", "", fold(text))

    cleaned = clean_text(case["text"])
    rest = case["text"]
    for datum in case["data"]:
        rest = rest.replace(datum, " ")
    reported = " ".join(span.text for span in cleaned.removed)
    for datum in case["data"]:
        pieces = {core(datum)[i : i + 4] for i in range(max(1, len(core(datum)) - 3))} - {""}
        for text in (cleaned.text, reported):  # nor does the report bear it
            assert not [piece for piece in pieces if piece in core(text) and piece not in core(rest)], text


def test_two_hundred_clean_texts_stay():
    assert len(set(CLEAN)) == 200
    changed = [(text, cleaned) for text in CLEAN if (cleaned := clean_text(text)).text != text or cleaned.removed]
    assert changed == []


def test_real_questions_keep_their_words():
    """Exam questions and cases, in which all that looks like dirt is meant: options, scores, scales, dates."""
    rows = [q for q in exam.read(real_data("cpsyexam")) if isinstance(q, Question)]
    rows += [q for q in benchmark.read(real_data("pceb")) if isinstance(q, Question)]
    texts = [text for q in rows for text in (q.stem, *q.options, q.context, q.reference) if text]
    assert len(texts) > 20_000
    changed = {}
    for text in texts:
        cleaned = clean_text(text)
        removed = [s for s in cleaned.removed if s.kind not in ("markup", "repeat")]
        if removed or (not cleaned.removed and words(cleaned.text) != words(html.unescape(text))):
            changed[text] = cleaned.text
    assert changed == {}


def test_real_dialogues_are_changed_where_there_is_dirt_only():
    folder = real_data("smile")
    rows = []
    for file in sorted(folder.glob("*.json")):
        turns = [Turn(t["role"], t["content"]) for t in json.loads(file.read_bytes())]
        rows.append(Dialogue(file.stem, "smile", turns, {"where": file.name}))
    result = apply.run("clean", rows, Settings())
    check_balance("clean", [row.id for row in rows], result)
    touched = {row["id"] for row in result.files["removed"]}
    assert len(result.rows) == 300 and len(touched) < 25  # 17 of 300 when it was read by eye
    for before, after in zip(rows, result.rows, strict=True):
        if before.id not in touched:
            assert [words(t.content) for t in before.turns] == [words(t.content) for t in after.turns]
    again = apply.run("clean", result.rows, Settings())
    assert (again.report["changed"], again.report["removed"]) == (0, {})


TEXTS = st.text(alphabet="我很累的他好，。！？!?.,:;~-…（）()[]“”\"'😭🏽T_^哈aq1２ \n\u200b\u3000", max_size=60)


@given(TEXTS)
@settings(max_examples=400, deadline=None)
def test_removed_spans_tell_all_that_went(text):
    cleaned = clean_text(text)
    for span in cleaned.removed:
        assert text[span.start : span.end] == span.text or span.kind == "contact"
    assert all(a.end <= b.start for a, b in zip(cleaned.removed, cleaned.removed[1:], strict=False))
    if not cleaned.removed:
        assert words(cleaned.text) == words(text)


def test_a_crisis_is_flagged_and_never_lost():
    rows = [
        post("不想活了", id="short"),
        post("😭", ("想死的时候先给身边的人打个电话。",), id="reply"),
        post("我想死。关注公众号领取课程，不想活了也可以来。", id="ad"),
        post("我很好，今天天气不错，出去走了走。", id="fine"),
        post("今天心情还可以，随便写一点东西。", id="old", crisis=["suicide"]),
    ]
    result = apply.run("clean", rows, Settings())
    by_id = {row.id: row for row in result.rows}
    assert set(by_id) == {"short", "reply", "ad", "fine", "old"} and result.rejects == []
    assert by_id["short"].meta["crisis"] == ["suicide"]
    assert "crisis" not in by_id["reply"].meta and by_id["reply"].meta["crisis_replies"] == ["suicide"]
    assert "不想活了也可以来" in by_id["ad"].text
    assert "crisis" not in by_id["fine"].meta and by_id["old"].meta["crisis"] == ["suicide"]
    assert [(row["id"], row["in"]) for row in result.files["crisis"]] == [
        ("short", "crisis"), ("reply", "crisis_replies"), ("ad", "crisis"),
    ]  # fmt: skip
    assert result.report["crisis"] == {"suicide": 2}


def test_rows_of_every_kind_are_cleaned_and_counted():
    passage = Passage(
        "b1",
        "passages",
        "发展心理学",
        "依恋是婴儿与照料者之间的情感联结，它影响人的一生。" + "、".join(f"第{n}种类型" for n in range(20)),
        {"where": "b.txt"},
    )
    dialogue = Dialogue(
        "d1",
        "smile",
        [
            Turn("client", "我最近很难过😭，晚上总是睡不着觉怎么办?"),
            Turn("counselor", "😊"),
            Turn("client", "谢谢，我会试试早一点睡。"),
        ],
        {"where": "d.json"},
    )
    rows = [
        post("晚上睡不着，白天没精神，怎么办?", ("早点睡。", "按时起床，下午不要喝咖啡😀", "👍👍👍"), "失眠!!"),
        post("[哭][哭]。。。", id="p2"),
        passage,
        Passage("b2", "passages", "", "目录", {"where": "b.txt"}),
        dialogue,
    ]
    before = json.dumps([str(row) for row in rows])
    result = apply.run("clean", rows, Settings())
    assert json.dumps([str(row) for row in rows]) == before  # what came in is left alone
    check_balance("clean", [row.id for row in rows], result)
    first, _, talk = result.rows
    assert (first.title, first.text) == ("失眠！", "晚上睡不着，白天没精神，怎么办？")
    assert first.replies == ["按时起床，下午不要喝咖啡"]
    assert [t.content for t in talk.turns] == [
        "我最近很难过，晚上总是睡不着觉怎么办？",
        "……",
        "谢谢，我会试试早一点睡。",
    ]
    assert first.meta["trail"] == [{"step": "clean", "removed": {"short_reply": 2, "emoji": 4}}]
    assert result.rejects == [
        Reject("p2", "posts.jsonl row p2", "too little left", "0 characters, fewer than min_post=10"),
        Reject("b2", "b.txt", "too little left", "2 characters, fewer than min_passage=50"),
    ]
    assert (result.report["in"], result.report["out"], result.report["rejected"]) == (5, 3, 2)
    removed = result.files["removed"]
    assert {"id": "p1", "where": "posts.jsonl row p1", "part": "reply 1", "kind": "short", "rule": "short_reply",
            "start": 0, "end": 4, "text": "早点睡。", "put": ""} in removed  # fmt: skip
    assert {row["part"] for row in removed} == {"text", "reply 1", "reply 2", "reply 3", "client 1", "counselor 2"}


def test_a_datum_in_a_removed_advertisement_is_not_reported_in_clear():
    cleaned = clean_text("今天心情不好。免费领取课程加微信abc12345。谢谢大家。")
    assert cleaned.text == "今天心情不好。谢谢大家。"
    assert "abc12345" not in str(cleaned.removed) and "a•••••••" in str(cleaned.removed)


def test_half_a_character_and_rows_of_another_type():
    assert clean_text("我很累\ud83d，真的").text.startswith("我很累")
    with pytest.raises(BadInput, match="row 1 is a Question; it takes posts, passages and dialogues"):
        apply.run("clean", [Question("q", "table", "", "open", "?", [], "")], Settings())


def test_rows_together_become_what_each_becomes_alone():
    rows = [post("好难过😭，我不想活了", ("抱抱", "加我微信abc12345")), Passage("b", "books", "", "短", {}), post("")]
    rows += [Dialogue("d", "talks", [Turn("client", "我睡不着。"), Turn("counselor", "你愿意说说吗？" * 3)], {})]
    assert STEP.row and many(rows, Settings()) == [STEP.row(row, Settings()) for row in rows]
    assert many([], Settings()) == []
