"""A post gets a plan, and a dialogue is written from both; nothing is lost."""

import json
from collections import Counter

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Post
from data_pipeline.steps import check_balance, plan_dialogue, write_dialogue
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.psyllm import PLAN, ROUND, by_words, planned, post

# plan


def test_a_post_gets_a_plan_with_provenance(tmp_path):
    source = post(where="posts.jsonl line 3", trail=[{"step": "clean"}])
    with model(by_words({}, PLAN), tmp_path) as ask:
        result = plan_dialogue.run([source], plan_dialogue.Settings(max_rounds=4), ask)
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
        result = plan_dialogue.run(rows, plan_dialogue.Settings(), ask)
        assert plan_dialogue.run(rows[:4], plan_dialogue.Settings(), ask).rejects == result.rejects[:4]
        calls = Counter(next(n for n in wrong if n in c.body["messages"][0]["content"]) for c in ask.server.calls)
    check_balance("plan_dialogue", [p.id for p in rows], result)
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
    with pytest.raises(BadInput, match="plan_dialogue: m.._rounds="):
        plan_dialogue.Settings(**settings)


# write


def test_a_dialogue_is_written_from_post_and_plan(tmp_path):
    source = planned(trail=[{"step": "plan_dialogue"}])
    with model(by_words({}, {"rounds": [ROUND, ROUND]}), tmp_path) as ask:
        result = write_dialogue.run([source], write_dialogue.Settings(), ask)
        (call,) = ask.server.calls
    (row,) = result.rows
    said = [("client", ROUND["client"]), ("counselor", ROUND["counselor"])]
    assert [(t.role, t.content) for t in row.turns] == said * 2
    assert (row.id, row.source, row.meta["parents"], row.meta["plan"]) == ("p", "forum", ["p"], PLAN)
    assert [entry["step"] for entry in row.meta["trail"]] == ["plan_dialogue", "write_dialogue"]
    for words in (source.text, "难过，自责", "第1轮：理解处境", "第2轮：看见努力", "共2轮"):
        assert words in call.text
    with pytest.raises(BadInput, match='write_dialogue: p: no meta."plan".; run plan_dialogue before'):
        write_dialogue.run([post()], write_dialogue.Settings(), ask)


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
        result = write_dialogue.run(rows, write_dialogue.Settings(), ask)
    check_balance("write_dialogue", [p.id for p in rows], result)
    assert [d.id for d in result.rows] == ["戊"] and len(result.rows[0].turns) == 4
    assert [r.reason for r in result.rejects] == [
        "not written: 1 rounds, 2 are planned",
        "not written: an empty turn: turn 3 (client)",
        "not written: </think> inside a reply: turn 4 (counselor)",
        "not written: no reply: HTTP 500: boom",
    ]
