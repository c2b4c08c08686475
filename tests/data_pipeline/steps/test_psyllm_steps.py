"""PsyLLM's validation, and all four steps together: in a crisis, with faults, on real data; nobody is lost."""

import json
from dataclasses import asdict

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Dialogue, Post, Turn, read_records, write_jsonl
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.sources import smilechat
from data_pipeline.steps import check_balance, reason_reply, validate_dialogue, write_dialogue
from tests.conftest import real_data
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.test_faults import ATTEMPTS, FAULTS
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.psyllm import (
    ALONE,
    CRISIS,
    GUIDE,
    REPLY,
    ROUND,
    STEPS,
    THOUGHT,
    by_words,
    post,
    reasoned,
    tagged,
    talk,
)
from tests.model_server import Answer

# validate


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
        result = validate_dialogue.run(rows, validate_dialogue.Settings(), ask)
        first, again = [call for call in ask.server.calls if "乙事" in call.body["messages"][0]["content"]][::2]
    check_balance("validate_dialogue", [d.id for d in rows], result)
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


# crisis


@pytest.mark.parametrize("fails", [(), *[(step,) for step in STEPS], STEPS])
def test_a_crisis_post_is_answered_with_guidance_and_never_lost_whatever_fails(tmp_path, fails):
    names = {step.STEP for step in fails}

    def reply(messages):
        crisis = CRISIS in messages[-1]["content"]
        step = counsellor.step_of(messages)
        if crisis and step in names:
            return FAULT
        if crisis and step == "write_dialogue":
            return {"rounds": [{"client": f"{CRISIS}。", "counselor": "嗯"}] * messages[0]["content"].count("轮：主题")}
        return counsellor.answer(messages)

    rows: list = [post("c", f"{CRISIS}，撑不下去了。", where="posts.jsonl line 9"), post()]
    with model(reply, tmp_path) as ask:
        for step in STEPS:
            before, result = rows, step.run(rows, step.Settings(), ask)
            check_balance(step.STEP, [row.id for row in before], result)
            rows = result.rows
            assert [row.id for row in rows] == ["c", "p"] and not result.rejects
            (entry,) = result.files["crisis"]
            assert (entry["id"], entry["where"], entry["flags"]) == ("c", "posts.jsonl line 9", ["suicide"])
            assert bool(entry["why"]) == (step in fails or "guidance" in entry["why"] or "no plan" in entry["why"])
    row = rows[0]
    noted = [entry["helplines"] for entry in row.meta["trail"] if "guidance" in entry]
    assert noted and all(lines == [asdict(line) for line in HELPLINES] for lines in noted)
    assert row.meta["crisis"] == ["suicide"] and "crisis" not in rows[1].meta
    content = row.turns[-1].content
    assert content == ALONE if reason_reply in fails else content.endswith(GUIDE) and row.turns[-1].thought
    assert row.meta["validation"]["keep"] is (None if {validate_dialogue, reason_reply} & {*fails} else True)
    assert not any(HELPLINES[0].number in turn.content for turn in rows[1].turns)


def test_last_words_in_a_crisis_get_an_answer_and_others_stay_as_they_are(tmp_path):
    rows = [talk("我很累", id=words) for words in (CRISIS, "谢谢")]
    for row in rows:
        row.turns.append(Turn("client", row.id))
    with model(by_words({}, tagged()), tmp_path) as ask:
        crisis, usual = reason_reply.run(rows, reason_reply.Settings(draft=True), ask).rows
    assert crisis.turns[-1] == Turn("counselor", f"{REPLY}\n\n{GUIDE}", THOUGHT) and crisis.turns[1].content == REPLY
    assert [t.role for t in usual.turns] == ["client", "counselor", "client"] and len(rows[0].turns) == 3


def test_a_refused_crisis_dialogue_stays_with_its_verdict(tmp_path):
    verdict = {"keep": False, "issues": [1], "reason": "没有想完"}
    with model(by_words({}, verdict), tmp_path) as ask:
        rows = [reasoned("c", CRISIS, crisis=["suicide"])]
        result = validate_dialogue.run(rows, validate_dialogue.Settings(), ask)
        assert "这段对话提示危机" in ask.server.calls[0].text
    assert result.rows[0].meta["validation"] == verdict and not result.rejects
    assert result.files["crisis"][0]["why"] == "issue 1 (incomplete thought): 没有想完"


def test_help_lines_are_settings_and_english_names_no_country_by_itself():
    own = [asdict(HELPLINES[0]) | {"name": "Lifeline", "number": "12345"}]
    for step in (write_dialogue, reason_reply):
        assert step.Settings().helplines == HELPLINES and step.Settings(language="en").helplines == ()
        lines = step.Settings(language="en", helplines=own).helplines
        assert "Lifeline 12345." in guidance("en", lines) and "local crisis line" in guidance("en", ())
        with pytest.raises(BadInput, match=rf"{step.STEP}: helplines\[0\]: .*each needs name, number, source, date"):
            step.Settings(helplines=["12356"])


# all four


def run_steps(rows: list, ask) -> tuple[list, list]:
    rejects = []
    for step in STEPS:
        result = step.run(rows, step.Settings(), ask)
        check_balance(step.STEP, [row.id for row in rows], result)
        assert len(rows) == len(result.rows) + len(result.rejects)
        rows, rejects = result.rows, rejects + result.rejects
    return rows, rejects


@pytest.mark.slow
def test_no_post_of_200_is_lost_to_a_faulty_server(tmp_path):
    shares = {kind: (share, answer) for kind, (share, answer, _) in FAULTS.items()}
    shares["timeout"] = (shares["timeout"][0], Answer(wait=2))
    rows = counsellor.posts(200)
    with counsellor.server(counsellor.faulty(shares, 6), latency=0.01) as server:
        settings = Server(server.url, "tiny", concurrency=64, attempts=ATTEMPTS, timeout_s=1)
        ask = llm.asker(settings, tmp_path / "ledger.sqlite", "the test")
        kept, rejects = run_steps(rows, ask)
        assert sorted(row.id for row in [*kept, *rejects]) == sorted(row.id for row in rows)
        assert 0 < len(rejects) < 60 and all("no reply: " in reject.reason for reject in rejects)
        for _ in range(3):  # run again, only what failed is asked, and in the end nothing is missing
            known = len(server.calls)
            kept, rejects = run_steps(rows, ask)
            assert len(server.calls) - known < 400
        assert [row.id for row in kept] == [row.id for row in rows] and not rejects
    assert all(turn.thought for row in kept for turn in row.turns if turn.role == "counselor")


@pytest.mark.parametrize("step", STEPS)
def test_settings_that_make_no_sense_are_refused(step):
    with pytest.raises(BadInput, match=f"{step.STEP}: language='de'; there is zh and en"):
        step.Settings(language="de")


def test_english_prompts_say_what_the_steps_need(tmp_path):
    """Each English prompt is rendered by its step, and its answer read."""

    def reply(messages):
        step = counsellor.step_of(messages)
        if step == "write_dialogue":
            return {"rounds": [ROUND] * messages[0]["content"].count("\nRound ")}
        return counsellor.answer(messages)

    rows: list = [Post("p", "reddit", "Failed again", "I failed my exam and I want to kill myself.", [])]
    with model(reply, tmp_path) as ask:
        for step in STEPS:
            rows = step.run(rows, step.Settings(language="en"), ask).rows
        texts = [call.body["messages"][0]["content"] for call in ask.server.calls]
    assert guidance("en", ()) in rows[0].turns[1].content and rows[0].meta["crisis"] == ["suicide"]
    assert rows[0].meta["validation"]["keep"] is True
    assert all("crisis" in text for text in texts) and all("DSM-5" in text for text in texts[2:])
    assert "A text with ways to get help" in texts[2] and "A text with ways to get help" not in "".join(texts[3:])
    assert {entry["prompt"] for entry in rows[0].meta["trail"] if "prompt" in entry} == {
        prompt_hash(f"{step.STEP}.en") for step in STEPS
    }


def test_real_dialogues_go_through_reasoning_and_validation(tmp_path):
    rows = [row for row in smilechat.read(real_data("smile")) if isinstance(row, Dialogue)][:40]
    with model(counsellor.answer, tmp_path) as ask:
        result = reason_reply.run(rows, reason_reply.Settings(), ask)
        kept = validate_dialogue.run(result.rows, validate_dialogue.Settings(), ask)
    assert len(kept.rows) == len(rows) and write_jsonl(tmp_path / "rows.jsonl", kept.rows) == 40
    for before, after in zip(rows, read_records(tmp_path / "rows.jsonl", Dialogue), strict=True):
        assert [t.content for t in before.turns if t.role == "client"] == [
            t.content for t in after.turns if t.role == "client"
        ]
        assert all(t.thought for t in after.turns if t.role == "counselor")
