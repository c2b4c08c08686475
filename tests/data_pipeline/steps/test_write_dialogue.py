"""Post and plan become a dialogue of the planned form; what has another form is asked once more."""

import copy

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.write_dialogue import NAME, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.talks import ALONE, CRISIS, PLAN, ROUND, asking, by_words, plan_of, planned, post

GOOD = {"rounds": [ROUND, ROUND]}


def test_a_dialogue_is_written_from_post_and_plan(tmp_path):
    source = planned(trail=[{"step": "plan_dialogue"}])
    with model(by_words({}, {"rounds": [ROUND, ROUND]}), tmp_path) as ask:
        result = apply.run(NAME, [source], Settings(), ask)
        (call,) = ask.server.calls
    (row,) = result.rows
    said = [("client", ROUND["client"]), ("counselor", ROUND["counselor"])]
    assert [(t.role, t.content) for t in row.turns] == said * 2
    assert (row.id, row.source, row.meta["parents"], row.meta["plan"]) == ("p", "forum", ["p"], PLAN)
    assert [entry["step"] for entry in row.meta["trail"]] == ["plan_dialogue", "write_dialogue"]
    for words in (source.text, "难过，自责", "第1轮：理解处境", "第2轮：看见努力", "共2轮"):
        assert words in call.text
    with pytest.raises(BadInput, match='write_dialogue: p: no meta."plan".; run plan_dialogue before'):
        apply.run(NAME, [post()], Settings(), ask)


def test_a_dialogue_of_another_form_is_asked_once_more_and_then_rejected(tmp_path):
    good = {"rounds": [ROUND, ROUND]}
    wrong = {
        "甲事": {"rounds": [ROUND]},
        "乙事": {"rounds": [ROUND, ROUND | {"client": " "}]},
        "丙事": {"rounds": [ROUND, ROUND | {"counselor": "</think>嗯"}]},
        "丁事": FAULT,
        "戊事": [{"rounds": []}, good],
    }
    rows = [planned(name[0], f"{name}让我难过") for name in wrong]
    with model(by_words(wrong, good), tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
    check_balance(NAME, [p.id for p in rows], result)
    assert [d.id for d in result.rows] == ["戊"] and len(result.rows[0].turns) == 4
    assert [r.reason for r in result.rejects] == [
        "not written: 1 rounds, 2 are planned",
        "not written: an empty turn: turn 3 (client)",
        "not written: </think> inside a reply: turn 4 (counselor)",
        "not written: no reply: HTTP 500: boom",
    ]


def test_the_rows_that_went_in_are_unchanged():
    rows = [planned(trail=[{"step": "plan_dialogue"}]), planned("c", CRISIS, crisis=["suicide"], plan=None)]
    before = copy.deepcopy(rows)
    result = apply.run(NAME, rows, Settings(), asking(by_words({}, GOOD)))
    assert result.rows[1].turns[1].content == ALONE and rows == before
    result.rows[0].meta["trail"].clear()
    assert rows == before


def test_two_posts_with_one_id_do_not_cross_their_dialogues():
    said = {name: {"rounds": [ROUND | {"client": name}, ROUND]} for name in ("甲事", "丙事")} | {"乙事": "不会"}
    rows = [planned(text=text) for text in ("甲事", "乙事", "丙事")]
    result = apply.run(NAME, rows, Settings(), asking(by_words(said, GOOD)))
    assert [row.turns[0].content for row in result.rows] == ["甲事", "丙事"]
    assert [reject.code for reject in result.rejects] == ["not written"]


def test_the_plan_of_calls_holds_when_every_reply_needs_a_repair():
    wrong = {"rounds": [ROUND]}  # what the repair of a first sample says is faulty too: a second one is asked
    ask = asking(lambda messages: wrong if len(messages) > 1 else "我想一想")
    result = apply.run(NAME, [planned("a"), planned("c", CRISIS, crisis=["suicide"])], Settings(), ask)
    plan = plan_of(NAME, Size(2, turns=4))
    assert len(ask.requests) == plan.most == 8 and plan.expected == 2 and plan.most_out.turns == 4
    assert [row.meta["answer"] for row in result.rows] == ["guidance"] and result.report["crisis_guidance_alone"] == 1
    assert result.report["calls"] == {"asked": 4, "invalid": 4, "repaired": 4, "failed": 2, "again": 2}
