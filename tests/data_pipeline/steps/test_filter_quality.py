"""Only a question that is good in every respect goes on, and why another does not can be read."""

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Passage, Question
from data_pipeline.steps import check_balance
from data_pipeline.steps.filter_quality import CRITERIA, NAME, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model

GOOD = dict.fromkeys(CRITERIA, True) | {"reasons": "概念准确，答案唯一。"}


def question(id: str, stem: str = "刺激的最小差别量是", kind: str = "single", **meta) -> Question:
    options = [] if kind == "open" else ["差别阈限", "绝对阈限", "感受性", "适应"]
    answer = {"single": "A", "multi": "AB", "open": ""}[kind]
    return Question(id, "book", "普通心理学", kind, stem, options, answer, meta=meta)


def test_a_good_question_goes_on_with_its_verdict(tmp_path):
    rows = [question("b1/q1", passage="b1"), question("t1", "另一道题", kind="multi")]
    passage = Passage("b1", "book", "普通心理学", "差别阈限是刚刚能引起差别感觉的量。")
    with model(lambda messages: GOOD, tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask, passages=[passage])
        first, second = sorted((call.text for call in ask.server.calls), key=lambda text: "另一道题" in text)
    assert [q.id for q in result.rows] == ["b1/q1", "t1"]
    assert result.rows[0].meta["quality"] == GOOD
    assert result.rows[0].meta["trail"] == [{"step": NAME, "row": "b1/q1", "sample": 0, "prompt": prompt_hash(NAME)}]
    assert "差别阈限是刚刚能引起差别感觉的量。" in first and "答案：A" in first and "恰好只有答案这一个选项" in first
    assert "<段落>" not in second and "答案：AB" in second and "不多也不少" in second
    assert result.report["with_passage"] == 1 and result.report["passed"] == 2


@pytest.mark.parametrize("criterion", CRITERIA)
def test_one_criterion_that_fails_is_enough_and_is_named(tmp_path, criterion):
    with model(lambda messages: GOOD | {criterion: False, "reasons": ["选项B也对", "见教材"]}, tmp_path) as ask:
        result = apply.run(NAME, [question("q", where="own.csv row 7")], Settings(), ask)
    (reject,) = result.rejects
    assert not result.rows
    assert (reject.id, reject.where) == ("q", "own.csv row 7")
    assert reject.reason == f"quality: {CRITERIA[criterion]} (选项B也对；见教材)"
    assert result.report["faults"] == dict.fromkeys(CRITERIA, 0) | {criterion: 1}
    assert result.report["subjects"] == {"普通心理学": {"in": 1, "passed": 0}}


def test_no_row_is_lost_whatever_the_replies(tmp_path):
    replies = {
        "甲": GOOD,
        "乙": GOOD | {"correct": "true"},  # a text is no verdict
        "丙": {"reasons": "好"},
        "丁": FAULT,
        "戊": GOOD | {"correct": False, "fluent": False},
    }
    rows = [question(name, f"第{name}题是") for name in replies] + [question("open", kind="open")]

    def answer(messages):
        return next(reply for name, reply in replies.items() if f"第{name}题是" in messages[0]["content"])

    with model(answer, tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
    check_balance(NAME, [q.id for q in rows], result)
    assert [q.id for q in result.rows] == ["甲"]
    reasons = {r.id: r.reason for r in result.rejects}
    assert reasons["乙"].startswith("no verdict: wrong shape: correct")
    assert reasons["丙"].startswith("no verdict: wrong shape: answerable: Field required")
    assert reasons["丁"].startswith("no verdict: no reply: HTTP 500")
    assert CRITERIA["correct"] in reasons["戊"] and CRITERIA["fluent"] in reasons["戊"]
    assert reasons["open"].startswith("an open question")
    assert result.report["no_verdict"] == 3 and result.report["calls"]["invalid"] == 2


def test_passages_of_another_run_are_refused():
    with pytest.raises(BadInput, match="'b1/q1' was made from the passage 'b1', which is not among the 1 given"):
        apply.run(NAME, [question("b1/q1", passage="b1")], passages=[Passage("b2", "book", "", "文")])
