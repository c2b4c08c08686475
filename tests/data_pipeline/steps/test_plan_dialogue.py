"""A post gets a plan that keeps to the settings; what cannot be used is asked once more."""

import copy
import json
from collections import Counter

import pytest
from pydantic import ValidationError

from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Post
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.plan_dialogue import NAME, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.talks import CRISIS, PLAN, asking, by_words, plan_of, post


def test_a_post_gets_a_plan_with_provenance(tmp_path):
    source = post(where="posts.jsonl line 3", trail=[{"step": "clean"}])
    with model(by_words({}, PLAN), tmp_path) as ask:
        result = apply.run(NAME, [source], Settings(max_rounds=4), ask)
        (call,) = ask.server.calls
    (row,) = result.rows
    assert row.meta["plan"] == PLAN and (row.id, row.text) == ("p", source.text) and "plan" not in source.meta
    name = "plan_dialogue.zh"
    call_of_it = {"step": "plan_dialogue", "row": "p", "sample": 0, "prompt": prompt_hash(name)}
    assert row.meta["trail"] == [{"step": "clean"}, call_of_it]
    assert "<帖子>\n考研又没考好" in call.text and "1到4之间" in call.text and "危机" not in call.text
    assert call.body["temperature"] == 1.0
    assert result.report["rounds"] == {"2": 1} and result.files["crisis"] == []


def test_a_plan_that_cannot_be_used_is_asked_once_more_and_then_rejected(tmp_path):
    wrong = {
        "甲事": PLAN | {"rounds": 4, "themes": ["一", "二", "三", "四"]},
        "乙事": PLAN | {"themes": ["一"]},
        "丙事": PLAN | {"emotion": " "},
        "丁事": {"rounds": 2},
        "戊事": FAULT,
        "己事": [PLAN | {"rounds": 3}, PLAN],
        "庚事": ["我不会", "还是不会", json.dumps(PLAN)],
    }
    rows = [post(name[0], f"{name}让我难过") for name in wrong] + [Post("empty", "forum", " ", "", [])]
    with model(by_words(wrong, PLAN), tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
        assert apply.run(NAME, rows[:4], Settings(), ask).rejects == result.rejects[:4]
        calls = Counter(next(n for n in wrong if n in c.body["messages"][0]["content"]) for c in ask.server.calls)
    check_balance(NAME, [p.id for p in rows], result)
    assert {p.id: p.meta["trail"][-1]["sample"] for p in result.rows} == {"己": 1, "庚": 1}
    reasons = {r.id: r.reason for r in result.rejects}
    for id, reason in {
        "甲": "no plan: 4 rounds, 1 to 3 are allowed",
        "乙": "no plan: 1 themes for 2 rounds",
        "丙": "no plan: an empty emotion or theme",
        "丁": "no plan: wrong shape: emotion: Field required",
        "戊": "no plan: no reply: HTTP 500",
        "empty": "no plan: the post is empty",
    }.items():
        assert reasons.pop(id).startswith(reason), id
    assert not reasons
    assert calls == {"甲事": 2, "乙事": 2, "丙事": 2, "丁事": 4, "戊事": 1, "己事": 2, "庚事": 3}


@pytest.mark.parametrize("settings", [{"min_rounds": 0}, {"min_rounds": 4}, {"max_rounds": "3"}])
def test_numbers_of_rounds_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError, match="\n(min_rounds|max_rounds)\n|min_rounds=4 is above max_rounds=3; lower"):
        Settings(**settings)


def test_the_rows_that_went_in_are_unchanged():
    rows = [post(trail=[{"step": "clean"}]), post("c", CRISIS), Post("empty", "forum", " ", "", [])]
    before = copy.deepcopy(rows)
    result = apply.run(NAME, rows, Settings(), asking(by_words({CRISIS: "不会"}, PLAN)))
    assert [row.meta["plan"] for row in result.rows] == [PLAN, None] and rows == before
    assert result.report["crisis_without_plan"] == 1 and result.report["planned"] == 1


def test_two_posts_with_one_id_do_not_cross_their_plans():
    plans = {name: PLAN | {"emotion": name} for name in ("甲事", "丙事")} | {"乙事": "不会"}
    rows = [post(text=text) for text in ("甲事", "乙事", "丙事")]
    result = apply.run(NAME, rows, Settings(), asking(by_words(plans, PLAN)))
    assert [(row.text, row.meta["plan"]["emotion"]) for row in result.rows] == [("甲事", "甲事"), ("丙事", "丙事")]
    assert [reject.code for reject in result.rejects] == ["no plan"]


def test_the_plan_of_calls_holds_when_every_reply_needs_a_repair():
    wrong = PLAN | {"themes": ["一"]}  # what the repair of a first sample says is faulty too: a second one is asked
    ask = asking(lambda messages: wrong if len(messages) > 1 else "我想一想")
    result = apply.run(NAME, [post("a"), post("c", CRISIS)], Settings(), ask)
    plan = plan_of(NAME, Size(2))
    assert len(ask.requests) == plan.most == 8 and plan.expected == 2
    assert (plan.out.turns, plan.most_out.turns) == (4, 6)
    assert result.report["calls"] == {"asked": 4, "invalid": 4, "repaired": 4, "failed": 2, "again": 2}
