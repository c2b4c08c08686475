"""Benchmark questions are found in training rows however they are spelled or embedded, and stock phrases are not."""

import random
import re
import unicodedata
from collections import defaultdict
from dataclasses import replace

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Turn
from data_pipeline.sources import cpsyexam as released
from data_pipeline.sources import pceb as benchmark
from data_pipeline.synthesis.decontaminate import Overlap, decontaminate, normalise, row_texts


def question(id: str, stem: str, options: tuple = (), kind: str = "single", **more) -> Question:
    return Question(id, "table", "", kind, stem, list(options), "A", meta={"where": f"own.csv row {id}"}, **more)


LONG = question("b1", "来访者第三次会谈迟到二十分钟，应当（　　）。", ("了解迟到的原因", "立即结束", "批评", "沉默"))
SHORT = question("b2", "移情属于（）。", ("防御机制", "投射现象", "治疗技术", "认知偏差"))
STOCK = [
    question("b3", "下列说法正确的是", ("睡眠有四个阶段", "梦只在深睡中出现")),
    question("b4", "下列说法正确的是", ("情绪与认知无关", "情绪影响记忆")),
]
CASE = question(
    "b5",
    "对该求助者最可能的诊断是",
    ("一般心理问题", "抑郁"),
    context="求助者，女性，三十一岁，图书管理员。搬到新城市以后两个月睡不好，常常在凌晨醒来，担心自己做不好工作。",
)
ESSAY = question(
    "b6",
    "请说明咨询的目标。",
    kind="open",
    reference="首先减轻失眠带来的痛苦，其次找出担心背后的想法，再练习表达。",
)
ENGLISH = question("b7", "Which term means fear of leaving home?", ("Agoraphobia", "Mutism", "Catatonia", "Amnesia"))
BENCHMARK = [LONG, SHORT, *STOCK, CASE, ESSAY, ENGLISH]


def overlaps(rows, benchmark, **options) -> list[Overlap]:
    return decontaminate(rows, benchmark, **options)[2].hits


def only(row, **options):
    hits = overlaps([row], BENCHMARK, **options)
    assert len(hits) <= 1
    return (hits[0].benchmark_id, hits[0].kind) if hits else None


@pytest.mark.parametrize("item", [LONG, SHORT, ENGLISH], ids=lambda q: q.id)
def test_the_same_question_is_found_however_it_is_spelled(item):
    same = (item.id, "same question and options")
    assert only(replace(item, id="r")) == same
    assert only(replace(item, id="r", options=item.options[::-1])) == same
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in item.stem.upper())
    spaced = " \u3000".join(wide.replace("，", ",").replace("（）", "( )")) + "?"
    assert only(replace(item, id="r", stem=spaced, options=[f"{o}。" for o in item.options])) == same
    hit = overlaps([replace(item, id="r")], BENCHMARK)[0]
    assert (hit.row_id, hit.where, hit.containment, hit.others) == ("r", item.meta["where"], 1.0, 0)


@pytest.mark.parametrize("item", [LONG, SHORT, ENGLISH], ids=lambda q: q.id)
def test_a_question_embedded_in_a_longer_text_is_found(item):
    lettered = "\n".join(f"{letter}．{text}" for letter, text in zip("ABCD", item.options, strict=True))
    text = f"今天我们来看一道题。{item.stem}\n{lettered}\n老师说，答案并不难，关键是理解概念。"
    for row in (
        text,
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "选A"}]},
        Dialogue("r", "own", [Turn("client", "你好"), Turn("counselor", "好的", thought=text)]),
        question("r", "另一个完全不同的问题是什么？", ("甲", "乙"), rationale=text),
    ):
        assert only(row) == (item.id, "contained"), row


def test_a_stock_phrase_is_no_evidence():
    assert only(question("r", "下列说法正确的是", ("性格可以改变", "气质由遗传决定"))) is None
    assert only(question("r", "对该求助者最可能的诊断是", ("焦虑", "恐怖"))) is None
    assert only(question("r", "移情属于（）。", ("情感反应", "表达方式", "沟通方式", "学习方式"))) is None
    assert only("移情是来访者把早年关系带进会谈的现象，防御机制则是另一回事。") is None


def test_the_same_question_with_other_options():
    kind = "same question text"
    assert only(replace(SHORT, id="r", options=["防御机制", "投射现象", "治疗手段", "偏见"])) == ("b2", kind)
    assert only(replace(LONG, id="r", options=["甲", "乙"])) == ("b1", kind)


def test_a_case_and_a_model_answer_are_found_by_their_text():
    assert only({"text": f"个案：{CASE.context}请分析。"}) == ("b5", "contained")
    assert only({"text": f"答：{ESSAY.reference}以上。"}) == ("b6", "contained")


def test_the_strongest_hit_is_kept_and_the_others_are_counted():
    row = replace(LONG, id="r", rationale=CASE.context)
    hits = overlaps([row], BENCHMARK)
    assert [(h.benchmark_id, h.kind, h.others) for h in hits] == [("b1", "same question and options", 1)]


def test_every_row_is_kept_or_rejected_and_every_hit_is_named():
    rows = [replace(LONG, id="r1"), question("r2", "梦的功能有哪些？", ("甲", "乙")), replace(SHORT, id="r3")]
    kept, rejects, overlapping = decontaminate(iter(rows), iter(BENCHMARK))
    report = overlapping.counts.as_json()
    assert [q.id for q in kept] == ["r2"]
    assert [(r.id, r.where) for r in rejects] == [("r1", "own.csv row b1"), ("r3", "own.csv row b2")]
    assert (rejects[0].code, rejects[0].detail) == ("stands in a benchmark", "same question and options, b1 (100%)")
    assert (report["in"], report["out"], report["rejected"], report["benchmark_items"]) == (3, 1, 2, 7)
    assert [hit.row_id for hit in overlapping.hits] == ["r1", "r3"]
    assert sum(report["kinds"].values()) == 2


def test_settings_that_make_no_sense_are_refused():
    for benchmark_items, options in (([], {}), (BENCHMARK, {"n": 2}), (BENCHMARK, {"threshold": 80})):
        with pytest.raises(BadInput, match="decontaminate: "):
            decontaminate([], benchmark_items, **options)


def test_texts_of_any_row():
    assert row_texts({"a": "x", "b": [{"c": "y"}, 3, None], "d": 1.5}) == ["x", "y"]
    assert normalise(" ＡＢ－１２，⻓期(⼼理)_。") == "ab12长期心理"


# --- real data --------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def questions(records) -> list[Question]:
    return [r for r in records if isinstance(r, Question)]


def test_overlaps_of_cpsyexam_and_pceb_are_found(cpsyexam, pceb):
    rows, items = questions(released.read(cpsyexam)), questions(benchmark.read(pceb))
    # the expected ones by brute force: equal normalised texts
    full, stems = defaultdict(list), defaultdict(list)
    for item in items:
        if item.options:
            full[plain(item.stem), *sorted(map(plain, item.options))].append(item)
            stems[plain(item.stem)].append(item)
    same = {r.id for r in rows if (plain(r.stem), *sorted(map(plain, r.options))) in full}
    by_text = {  # long, of no case, and asked by one item only: no stock phrase
        r.id for r in rows if len(plain(r.stem)) >= 13 and len(q := stems[plain(r.stem)]) == 1 and not q[0].context
    }  # fmt: skip
    hits = overlaps(rows, items)
    kinds = {h.row_id: h.kind for h in hits}
    cells = {q.id: (q.meta["cell"], q.kind) for q in items}
    assert len(same) >= 100 and len(by_text - same) >= 10
    assert {kinds.get(id) for id in same} == {"same question and options"}
    assert {kinds.get(id) for id in by_text - same} <= {"same question text", "same question and options"}
    moral = [h for h in hits if cells[h.benchmark_id] == ("moral", "multi") and h.kind == "same question and options"]
    assert len({h.benchmark_id for h in moral}) == 7  # as papers counted on the full release
    # stock phrases of case questions are asked in both, of other cases
    stock = {r.id for r in rows if plain(r.stem) == "该求助者的躯体症状包括"}
    assert stock and not stock & set(kinds)

    kept, rejects, overlapping = decontaminate(rows, items)
    assert len(kept) + len(rejects) == len(rows) == overlapping.counts.into
    assert [r.id for r in rejects] == [h.row_id for h in hits]
    assert not overlaps(kept, items)


def test_every_planted_item_is_found(cpsyexam, pceb):
    draw = random.Random(11)
    items = [q for q in questions(benchmark.read(pceb)) if not q.context]
    clean = decontaminate(questions(released.read(cpsyexam)), items)[0]
    rows, planted = draw.sample(clean, 1000), draw.sample(items, 200)
    for number, item in enumerate(planted):
        row = rows[number]
        options = "；".join(f"{letter}、{text}" for letter, text in zip("ABCDEFGH", item.options, strict=False))
        text = f"顺便再看一道练习：{item.stem} {options}。做完以后再往下读。"
        field = "stem" if number % 2 else "rationale"
        original = getattr(row, field)
        cut = len(original) // 2
        rows[number] = replace(row, **{field: original[:cut] + text + original[cut:]})
    hits = overlaps(rows, items)
    found = {h.row_id for h in hits}
    assert [item.id for item, row in zip(planted, rows, strict=False) if row.id not in found] == []
    assert found == {row.id for row in rows[:200]}  # and nothing else
