"""PsyLLM's four steps in a row: plan, write, reason, validate; nothing and nobody is lost."""

from dataclasses import asdict

import pytest
from pydantic import ValidationError

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Dialogue, Post, read_records, write_jsonl
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.sources import smilechat
from data_pipeline.steps import check_balance, find_step, reason_reply, write_dialogue
from data_pipeline.synthesis import apply
from tests.conftest import real_data
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.test_faults import ATTEMPTS, FAULTS
from tests.data_pipeline.scripted import FAULT, model
from tests.data_pipeline.steps.talks import ALONE, CRISIS, GUIDE, ROUND, STEPS, post
from tests.model_server import Answer


@pytest.mark.parametrize("fails", [(), *[(step,) for step in STEPS], STEPS])
def test_a_crisis_post_is_answered_with_guidance_and_never_lost_whatever_fails(tmp_path, fails):
    def reply(messages):
        crisis = CRISIS in messages[-1]["content"]
        step = counsellor.step_of(messages)
        if crisis and step in fails:
            return FAULT
        if crisis and step == "write_dialogue":
            return {"rounds": [{"client": f"{CRISIS}。", "counselor": "嗯"}] * messages[0]["content"].count("轮：主题")}
        return counsellor.answer(messages)

    rows: list = [post("c", f"{CRISIS}，撑不下去了。", where="posts.jsonl line 9"), post()]
    with model(reply, tmp_path) as ask:
        for step in STEPS:
            before, result = rows, apply.run(step, rows, None, ask)
            check_balance(step, [row.id for row in before], result)
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
    assert content == ALONE if "reason_reply" in fails else content.endswith(GUIDE) and row.turns[-1].thought
    assert row.meta["validation"]["keep"] is (None if {"validate_dialogue", "reason_reply"} & {*fails} else True)
    assert not any(HELPLINES[0].number in turn.content for turn in rows[1].turns)


def test_help_lines_are_settings_and_english_names_no_country_by_itself():
    own = [asdict(HELPLINES[0]) | {"name": "Lifeline", "number": "12345"}]
    for step in (write_dialogue, reason_reply):
        assert step.Settings().helplines == HELPLINES and step.Settings(language="en").helplines == ()
        assert step.Settings(helplines=None).helplines == HELPLINES and step.Settings(helplines=[]).helplines == ()
        lines = step.Settings(language="en", helplines=own).helplines
        assert "Lifeline 12345." in guidance("en", lines) and "local crisis line" in guidance("en", ())
        with pytest.raises(ValidationError, match=r"\nhelplines\n.*\[0\]: .*each needs name, number, source, date"):
            step.Settings(helplines=["12356"])


def run_steps(rows: list, ask) -> tuple[list, list]:
    rejects = []
    for step in STEPS:
        result = apply.run(step, rows, None, ask)
        check_balance(step, [row.id for row in rows], result)
        assert len(rows) == len(result.rows) + len(result.rejects)
        rows, rejects = result.rows, rejects + result.rejects
    return rows, rejects


@pytest.mark.slow
def test_no_post_of_200_is_lost_to_a_faulty_server(tmp_path):
    shares = {kind: (share, answer) for kind, (share, answer, _) in FAULTS.items()}
    shares["timeout"] = (shares["timeout"][0], Answer(wait=60))  # far from what a machine under load takes by itself
    rows = counsellor.posts(200)
    with counsellor.server(counsellor.faulty(shares, 6), latency=0.01) as server:
        settings = Server(server.url, "tiny", concurrency=64, attempts=ATTEMPTS, timeout_s=10)
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
    with pytest.raises(ValidationError, match="\nlanguage\n.*'zh' or 'en'.*'de'"):
        find_step(step, "test").settings.model_validate({"language": "de"})


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
            settings = find_step(step, "test").settings.model_validate({"language": "en"})
            rows = apply.run(step, rows, settings, ask).rows
        texts = [call.body["messages"][0]["content"] for call in ask.server.calls]
    assert guidance("en", ()) in rows[0].turns[1].content and rows[0].meta["crisis"] == ["suicide"]
    assert rows[0].meta["validation"]["keep"] is True
    assert all("crisis" in text for text in texts) and all("DSM-5" in text for text in texts[2:])
    assert "A text with ways to get help" in texts[2] and "A text with ways to get help" not in "".join(texts[3:])
    assert {entry["prompt"] for entry in rows[0].meta["trail"] if "prompt" in entry} == {
        prompt_hash(f"{step}.en") for step in STEPS
    }


def test_real_dialogues_go_through_reasoning_and_validation(tmp_path):
    rows = [row for row in smilechat.read(real_data("smile")) if isinstance(row, Dialogue)][:40]
    with model(counsellor.answer, tmp_path) as ask:
        result = apply.run("reason_reply", rows, None, ask)
        kept = apply.run("validate_dialogue", result.rows, None, ask)
    assert len(kept.rows) == len(rows) and write_jsonl(tmp_path / "rows.jsonl", kept.rows) == 40
    for before, after in zip(rows, read_records(tmp_path / "rows.jsonl", Dialogue), strict=True):
        assert [t.content for t in before.turns if t.role == "client"] == [
            t.content for t in after.turns if t.role == "client"
        ]
        assert all(t.thought for t in after.turns if t.role == "counselor")
