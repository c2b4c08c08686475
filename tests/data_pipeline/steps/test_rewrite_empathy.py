"""Replies become a counselor's, checked by rules and by a model; a crisis post always ends in guidance to help."""

import copy
from dataclasses import asdict

import pytest
from pydantic import ValidationError

from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Post, note
from data_pipeline.safety.guidance import GUIDANCE, guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.safety.reply_rules import find_forbidden
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.rewrite_empathy import CHECK, NAME, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.talks import asking, plan_of

REPLY = (
    "听起来你最近被失眠折磨得很累，也很担心影响工作，换成谁都会心慌。"
    "不妨先把睡前看手机的时间缩短一点，固定一个起床的时间，看看身体会不会慢慢松下来。"
)
GOOD = {"opens_with_feeling": True, "faithful": True, "reasons": "忠实"}
GUIDE, ALONE = guidance("zh", HELPLINES), guidance("zh", HELPLINES, alone=True)


def post(
    id: str = "p", text: str = "连着两周睡不着，上班总出错。", replies=("早点睡，别看手机。", "加油"), **meta
) -> Post:
    return Post(id, "forum", "失眠", text, list(replies), meta)


def script(rewritten=None, check=None):
    """Answers the two steps: `rewritten` and `check` by a post's text, else a good reply."""

    def reply(messages):
        text = messages[0]["content"]
        is_check = "opens_with_feeling" in text
        known, usual = (check or {}, GOOD) if is_check else (rewritten or {}, {"reply": REPLY})
        return next((value for words, value in known.items() if words in text), usual)

    return reply


def test_a_post_becomes_a_dialogue_with_provenance(tmp_path):
    source = post(where="posts.jsonl line 3")
    note(source, "clean", removed=1)
    with model(script(), tmp_path) as ask:
        result = apply.run(NAME, [source], Settings(), ask)
        prompts = [call.text for call in ask.server.calls]
    (row,) = result.rows
    assert [(t.role, t.content) for t in row.turns] == [("client", f"失眠\n{source.text}"), ("counselor", REPLY)]
    assert (row.id, row.source, row.meta["parents"], row.meta["where"]) == ("p", "forum", ["p"], "posts.jsonl line 3")
    assert row.meta["original"] == "早点睡，别看手机。" and row.meta["check"] == GOOD
    assert row.meta["trail"] == [
        {"step": "clean", "removed": 1},
        *[{"step": step, "row": "p", "sample": 0, "prompt": prompt_hash(step)} for step in (NAME, CHECK)],
    ]
    assert len(source.meta["trail"]) == 1
    assert all("早点睡，别看手机。" in text and source.text in text for text in prompts)
    assert "忠于原回复" in prompts[0] and "60到600字" in prompts[0] and REPLY in prompts[1]
    assert result.files["crisis"] == [] and GUIDE not in row.turns[1].content


def test_no_post_is_lost_and_what_a_rule_refuses_is_not_checked(tmp_path):
    rewritten = {
        "甲事": {"reply": "加油"},
        "乙事": {"reply": REPLY * 12},
        "丙事": {"reply": REPLY + "从你说的看，你这是典型的焦虑症。"},
        "丁事": {"reply": REPLY + "实在不行就拨打400-161-0000。"},
        "癸事": {"reply": REPLY + "I promise you will feel better."},
        "子事": {"reply": REPLY + "可以看https://example.test/a。"},
        "戊事": {"text": REPLY},
        "己事": FAULT,
    }
    check = {
        "庚事": GOOD | {"faithful": False, "reasons": "添加了运动的建议"},
        "辛事": GOOD | {"opens_with_feeling": False, "faithful": False},
        "壬事": GOOD | {"faithful": "yes"},
    }
    names = [words[0] for words in (*rewritten, *check)]
    rows = [post(name, f"{name}事让我睡不着") for name in names]
    rows += [post("none", replies=()), post("blank", replies=(" ", "")), post("second", replies=(" ", "第二条"))]
    with model(script(rewritten, check), tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
        again = apply.run(NAME, rows, Settings(), ask)
        checked = sum("opens_with_feeling" in c.body["messages"][0]["content"] for c in ask.server.calls)
    check_balance(NAME, [p.id for p in rows], result)
    assert [d.id for d in result.rows] == ["second"] and result.rows[0].meta["original"] == "第二条"
    reasons = {r.id: r.reason for r in result.rejects}
    for name, reason in {
        "甲": "length: 2 characters, 60 to 600 are allowed",
        "乙": "length: ",
        "丙": "forbidden content: diagnosis (",
        "丁": "forbidden content: contact number (",
        "癸": "forbidden content: promise (i promise",
        "子": "holds what cleaning takes out: link (https://example.test/a)",
        "戊": "not rewritten: wrong shape: reply: Field required",
        "己": "not rewritten: no reply: HTTP 500",
        "庚": "check: not faithful (添加了运动的建议)",
        "辛": "check: no opening with the feeling, not faithful (忠实)",
        "壬": "not checked: wrong shape: faithful",
        "none": "no reply to rewrite",
        "blank": "no reply to rewrite",
    }.items():
        assert reasons.pop(name).startswith(reason), name
    assert not reasons and again == result
    assert checked == 5, "those of 庚 辛 壬 and second, and one repair twice tried but once paid"


CRISIS = "我不想活了"


@pytest.mark.parametrize(
    ("rewritten", "check", "replies", "answer", "why"),
    [
        ({}, {}, ("想开点，找人说说。",), "rewritten", ""),
        ({}, {}, (), "guidance", "no reply to rewrite"),
        ({CRISIS: {"reply": "想开点"}}, {}, ("想开点",), "guidance", "length"),
        ({CRISIS: {"reply": REPLY + "你一定会好起来的。"}}, {}, ("想开点",), "guidance", "forbidden content: promise"),
        ({CRISIS: {"reply": REPLY + "请打12320。"}}, {}, ("想开点",), "guidance", "forbidden content: contact number"),
        ({CRISIS: FAULT}, {}, ("想开点",), "guidance", "not rewritten"),
        ({}, {CRISIS: FAULT}, ("想开点",), "guidance", "not checked"),
        ({}, {CRISIS: GOOD | {"faithful": False}}, ("去死吧",), "guidance", "check: not faithful"),
    ],
)
def test_a_crisis_post_is_answered_with_guidance_whatever_happens(tmp_path, rewritten, check, replies, answer, why):
    crisis = post("c", CRISIS, replies, crisis=["suicide"], where="posts.jsonl line 9")
    with model(script(rewritten, check), tmp_path) as ask:
        result = apply.run(NAME, [crisis, post()], Settings(), ask)
        asked = [c.text for c in ask.server.calls if CRISIS in c.text]
    row, other = result.rows
    content = row.turns[1].content
    assert content == (f"{REPLY}\n\n{GUIDE}" if answer == "rewritten" else ALONE)
    assert all(line.number in content for line in HELPLINES)
    assert row.meta["crisis"] == ["suicide"] and row.meta["answer"] == answer
    (flagged,) = result.files["crisis"]
    assert (flagged["id"], flagged["where"], flagged["answer"]) == ("c", "posts.jsonl line 9", answer)
    assert flagged["why"].startswith(why) and bool(why) == bool(flagged["why"])
    told = row.meta["trail"][-1]
    assert told["guidance"] == prompt_hash(GUIDANCE["zh"]) and told["helplines"] == [asdict(h) for h in HELPLINES]
    assert "crisis" not in other.meta and GUIDE not in other.turns[1].content
    assert not result.rejects and result.report["crisis"] == 1
    assert ALONE.endswith(GUIDE) and all("危机" in text for text in asked)


def test_helplines_are_the_recipes():
    own = {"name": "某地热线", "number": "0000", "source": "某地公告", "date": "2025-01-02"}
    text = guidance("zh", Settings.model_validate({"helplines": [own]}).helplines, alone=True)
    assert "某地热线 0000。" in text and "12356" not in text
    none = guidance("zh", Settings.model_validate({"helplines": []}).helplines, alone=True)
    assert not any(c.isdigit() for c in none) and "当地的心理援助热线" in none
    for wrong in ([own | {"source": " "}], "12356", None):
        with pytest.raises(ValidationError, match=f"^1 validation error for Settings\nhelplines\n.*{NAME}: helplines"):
            Settings.model_validate({"helplines": wrong})


@pytest.mark.parametrize("settings", [{"min_chars": 700}, {"max_chars": "600"}, {"min_chars": -1}])
def test_limits_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError, match="\n(min_chars|max_chars)\n|min_chars=700 is above max_chars=600"):
        Settings(**settings)


def test_the_rows_that_went_in_are_unchanged():
    rows = [post(trail=[{"step": "clean"}]), post("c", CRISIS, (), crisis=["suicide"]), post("none", replies=())]
    before = copy.deepcopy(rows)
    result = apply.run(NAME, rows, Settings(), asking(script()))
    assert len(result.rows) == 2 and rows == before
    result.rows[0].meta["trail"].clear()
    assert rows == before


def test_two_posts_with_one_id_do_not_cross_their_replies():
    rows = [post(text="甲事"), post(text="乙事"), post(text="丙事"), post(text="丁事", replies=())]
    rewritten = {"甲事": {"reply": f"{REPLY}甲"}, "乙事": {"reply": "短"}, "丙事": {"reply": f"{REPLY}丙"}}
    result = apply.run(NAME, rows, Settings(), asking(script(rewritten)))
    said = [(row.turns[0].content[-2:], row.turns[1].content[-1]) for row in result.rows]
    assert said == [("甲事", "甲"), ("丙事", "丙")]
    assert [reject.code for reject in result.rejects] == ["length", "no reply to rewrite"]
    assert result.report["reasons"] == {"length": 1, "no reply to rewrite": 1}
    assert (result.report["in"], result.report["dialogues"]) == (4, 2)


def test_the_plan_of_calls_holds_when_every_reply_needs_a_repair():
    rows = [post(), post("c", CRISIS, crisis=["suicide"])]
    ask = asking(lambda messages: script()(messages) if len(messages) > 1 else "我想一想")
    result = apply.run(NAME, rows, Settings(), ask)
    plan = plan_of(NAME, Size(2))
    assert len(ask.requests) == plan.most == 8 and plan.expected == 4
    assert sum(len(row.turns) for row in result.rows) / 2 == plan.most_out.turns == 2
    assert result.report["calls"] == {
        name: {"asked": 2, "invalid": 2, "repaired": 2, "failed": 0} for name in (NAME, CHECK)
    }


def test_the_replies_here_break_no_rule_themselves():
    assert find_forbidden(REPLY) == []
