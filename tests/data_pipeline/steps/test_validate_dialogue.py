"""A dialogue without an issue is kept; verdicts are read strictly, and a crisis dialogue stays with its own."""

import copy
import json

from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.validate_dialogue import NAME, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.talks import CRISIS, REPLY, THOUGHT, asking, by_words, plan_of, reasoned

GOOD = {"keep": True, "issues": [], "reason": "没有问题"}


def test_a_dialogue_is_kept_without_an_issue_and_rejected_with_its_reasons(tmp_path):
    good = {"keep": True, "issues": [], "reason": "没有问题"}
    known = {
        "甲事": {"keep": False, "issues": [4, 2], "reason": "第1轮答非所问"},
        "乙事": "我觉得可以",
        "丙事": {"keep": True, "issues": [1], "reason": "自相矛盾"},
        "丁事": {"keep": False, "issues": [7], "reason": "没有这条"},
        "戊事": FAULT,
        "己事": ["可以吧", "可以", json.dumps(good)],
        "庚事": ["可以吧", json.dumps(good)],
    }
    rows = [reasoned(name[0], f"{name}让我很累") for name in known] + [reasoned("usual")]
    with model(by_words(known, good), tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
        first, again = [call for call in ask.server.calls if "乙事" in call.body["messages"][0]["content"]][::2]
    check_balance(NAME, [d.id for d in rows], result)
    assert {d.id: d.meta["trail"][-1]["sample"] for d in result.rows} == {"己": 1, "庚": 0, "usual": 0}
    assert result.rows[-1].meta["validation"] == good and "validation" not in rows[-1].meta
    reasons = {r.id: r.reason for r in result.rejects}
    assert reasons.pop("甲") == "issue 2 (incoherent dialogue), issue 4 (no recognised framework): 第1轮答非所问"
    assert reasons.pop("乙").startswith("verdict unreadable: not JSON")
    assert "keep is true exactly when issues is empty" in reasons.pop("丙")
    assert reasons.pop("丁").startswith("verdict unreadable: wrong shape: issues.0")
    assert reasons.pop("戊").startswith("no verdict: no reply: HTTP 500") and not reasons
    counts = {name: result.report[name] for name in ("kept", "refused", "unreadable", "no_reply", "guidance")}
    assert counts == {"kept": 3, "refused": 1, "unreadable": 3, "no_reply": 1, "guidance": 0}
    assert list(result.report["issues"].values()) == [0, 1, 0, 1]
    assert THOUGHT in first.text and REPLY in first.text and "乙事让我很累" in first.text
    assert (first.body["temperature"], again.body["temperature"]) == (0.0, 1.0)


def test_a_refused_crisis_dialogue_stays_with_its_verdict(tmp_path):
    verdict = {"keep": False, "issues": [1], "reason": "没有想完"}
    with model(by_words({}, verdict), tmp_path) as ask:
        rows = [reasoned("c", CRISIS, crisis=["suicide"])]
        result = apply.run(NAME, rows, Settings(), ask)
        assert "这段对话提示危机" in ask.server.calls[0].text
    assert result.rows[0].meta["validation"] == verdict and not result.rejects
    assert result.files["crisis"][0]["why"] == "issue 1 (incomplete thought): 没有想完"


def test_the_rows_that_went_in_are_unchanged():
    rows = [reasoned(trail=[{"step": "x"}]), reasoned("c", CRISIS, crisis=["suicide"], answer="guidance")]
    before = copy.deepcopy(rows)
    result = apply.run(NAME, rows, Settings(), asking(by_words({}, GOOD)))
    assert [row.meta["validation"]["keep"] for row in result.rows] == [True, None] and rows == before
    assert result.report["guidance"] == 1


def test_two_dialogues_with_one_id_do_not_cross_their_verdicts():
    verdicts = {name: GOOD | {"reason": name} for name in ("甲事", "丙事")}
    verdicts["乙事"] = {"keep": False, "issues": [3], "reason": "乙事"}
    rows = [reasoned(text=text) for text in ("甲事", "乙事", "丙事")]
    result = apply.run(NAME, rows, Settings(), asking(by_words(verdicts, GOOD)))
    said = [(row.turns[0].content, row.meta["validation"]["reason"]) for row in result.rows]
    assert said == [("甲事", "甲事"), ("丙事", "丙事")]
    assert [reject.reason for reject in result.rejects] == ["issue 3 (thought and reply differ): 乙事"]


def test_the_plan_of_calls_holds_when_every_reply_needs_a_repair():
    replies = iter(["可以吧", "可以", "可以吧", json.dumps(GOOD)] * 2)
    ask = asking(lambda messages: next(replies))
    result = apply.run(NAME, [reasoned("a")], Settings(), ask)
    apply.run(NAME, [reasoned("c", CRISIS, crisis=["suicide"])], Settings(), ask)
    plan = plan_of(NAME, Size(2))
    assert len(ask.requests) == plan.most == 8 and plan.expected == 2
    assert result.report["calls"] == {"asked": 2, "invalid": 2, "repaired": 1, "failed": 0, "again": 1}
