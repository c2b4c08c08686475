"""What all benchmarks share: responses fit the items, failures stay in, a changed benchmark is noticed."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Reject, Response
from eval import metrics
from eval.contract import Item
from eval.items import check, compare, fingerprint, match


def item(id: str, cell: str = "a") -> Item:
    return Item(Question(id, "table", "科目", "single", "题", ["甲", "乙"], "A", meta={"where": "/x"}), cell)


def said(text: str, finish: str = "stop") -> Response:
    return Response(text, finish, 1)


ITEMS = [item("q1"), item("q2")]


def test_responses_are_put_into_the_order_of_the_items():
    stored = {"q2": [said("B")], "q1": [said("A")]}
    assert [[r.text for r in samples] for samples in match(ITEMS, stored)] == [["A"], ["B"]]


def test_an_id_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="no item with id 'q22'; did you mean q2?"):
        match(ITEMS, {"q1": [said("A")], "q22": [said("B")]})


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([[said("A")]], "1 lists of responses for 2 items"),
        ([[said("A")], []], "1 of 2 items have no response, first q2"),
        ([[], []], "2 of 2 items have no response, first q1"),
        ([[said("A")] * 2, [said("A")]], "item q. has not . responses as the others"),
    ],
)
def test_responses_of_a_crashed_run_are_refused(responses, message):
    with pytest.raises(BadInput, match=message):
        check(ITEMS, responses)
    with pytest.raises(BadInput, match="no item to score"):
        check([], [])


def test_the_fingerprint_is_of_the_content_not_of_the_folder():
    first = fingerprint(ITEMS)
    moved = replace(ITEMS[0], record=replace(ITEMS[0].question, meta={"where": "/elsewhere"}))
    assert fingerprint([moved, ITEMS[1]]) == first
    for name, value in {"answer": "B", "stem": "另一题", "options": ["甲", "丙"], "id": "q3"}.items():
        assert fingerprint([replace(ITEMS[0], record=replace(ITEMS[0].question, **{name: value})), ITEMS[1]]) != first
    assert fingerprint([replace(ITEMS[0], shots=(ITEMS[1].question,)), ITEMS[1]]) != first
    assert fingerprint(ITEMS[::-1]) != first


def test_another_version_is_refused_and_a_part_is_noted():
    notes = compare(
        Path("x"),
        ITEMS,
        [
            Reject("r", "x row 3", "no answer"),
            Reject("s", "x row 4", "several letters", "AB"),
            Reject("t", "x row 5", "several letters", "CD"),
        ],
        {"a": 3, "b": 1},
    )
    assert notes[:2] == ["partial: a has 2 of 3 items", "partial: b has 0 of 1 items"]
    assert notes[2].startswith("3 items are left out") and notes[2].endswith(": 1 no answer, 2 several letters")
    with pytest.raises(BadInput, match="another version of the benchmark: it holds a 2 instead of 1, c 1 instead of 0"):
        compare(Path("x"), [*ITEMS, item("q3", "c")], [], {"a": 1})


def test_failures_are_wrong_counted_and_never_dropped():
    question = ITEMS[0].question
    responses = [said("答案：A"), said("不知道"), said("<think>我想", "length"), Response("", "failed", 0, error="500")]
    scores = [[metrics.score_response(question, r)] for r in responses]
    found = metrics.describe(scores)
    assert (found["items"], found["responses"], found["unreadable"], found["cut_by_length"], found["failed"]) == (
        4, 4, 2, 1, 1,
    )  # fmt: skip
    assert found["accuracy"] == 0.25
    assert found["format_rate"] == 0
    # a failed request is wrong whatever text came with it
    assert metrics.score_response(question, Response("答案：A", "failed", 0)).acc == 0


def test_no_items_have_no_accuracy():
    found = metrics.describe([])
    assert found["items"] == 0
    assert found["accuracy"] is found["accuracy_ci"] is found["elastic"] is None
    assert found["pass_at"] == {}
