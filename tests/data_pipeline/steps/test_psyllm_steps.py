"""PsyLLM's synthesis: plan, write, reason turn by turn with the true history, validate; nothing and nobody is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Dialogue, Post, Turn, read_records, write_jsonl
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.safety.reply_rules import named_diagnoses
from data_pipeline.sources import smilechat
from data_pipeline.steps import check_balance, plan_dialogue, reason_reply, validate_dialogue, write_dialogue
from tests.conftest import REPOSITORY, real_data
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.test_faults import ATTEMPTS, FAULTS
from tests.data_pipeline.scripted import CUT, FAULT, model
from tests.model_server import Answer, ModelServer, completion

STEPS = (plan_dialogue, write_dialogue, reason_reply, validate_dialogue)
PLAN = {"emotion": "难过，自责", "rounds": 2, "themes": ["理解处境", "看见努力"]}
ROUND = {"client": "我又没考好。", "counselor": "嗯，多说一点。"}
THOUGHT, REPLY = "用人本取向的共情，先回应自责。", "听起来你很自责，也很累。"
GUIDE, ALONE = guidance("zh", HELPLINES), guidance("zh", HELPLINES, alone=True)
CRISIS = "我不想活了"


def post(id: str = "p", text: str = "考研又没考好，觉得对不起爸妈。", **meta) -> Post:
    return Post(id, "forum", "没考好", text, ["加油"], meta)


def planned(id: str = "p", text: str = "考研又没考好，觉得对不起爸妈。", **meta) -> Post:
    return post(id, text, **{"plan": PLAN} | meta)


def talk(*clients: str, id: str = "d", system: str = "", **meta) -> Dialogue:
    turns = [Turn("system", system)] if system else []
    for number, text in enumerate(clients, 1):
        turns += [Turn("client", text), Turn("counselor", f"原来的回复{number}")]
    return Dialogue(id, "test", turns, meta)


def tagged(thought: str = THOUGHT, reply: str = REPLY) -> str:
    return f"<think>\n{thought}\n</think>\n\n{reply}"


def by_words(known: dict, usual):
    """Answers by words in the first or last message; a list is used up, its last answer from then on."""

    def reply(messages):
        text = messages[0]["content"] + messages[-1]["content"]
        value = next((value for words, value in known.items() if words in text), usual)
        if isinstance(value, list):
            return value.pop(0) if len(value) > 1 else value[0]
        return value

    return reply


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


# reason


@pytest.mark.parametrize(
    "reply",
    [
        tagged(),
        Answer(completion(REPLY, reasoning_content=THOUGHT)),
        Answer(completion(REPLY, reasoning=THOUGHT)),  # vLLM's name
        f"{THOUGHT}\n</think>\n\n{REPLY}",  # the chat template opened the thought
    ],
    ids=["tags", "reasoning_content", "reasoning", "prefilled"],
)
def test_a_thought_is_read_from_tags_and_from_the_server(tmp_path, reply):
    source = talk("我很累", system="用REBT咨询", trail=[{"step": "x"}])
    with model(by_words({}, reply), tmp_path) as ask:
        result = reason_reply.run([source], reason_reply.Settings(), ask)
        (call,) = ask.server.calls
    (row,) = result.rows
    assert row.turns == [Turn("system", "用REBT咨询"), Turn("client", "我很累"), Turn("counselor", REPLY, THOUGHT)]
    prompt = prompt_hash("reason_reply.zh")
    assert row.meta["trail"] == [{"step": "x"}, {"step": "reason_reply", "row": "d/t1", "sample": 0, "prompt": prompt}]
    assert source.turns[2].content == "原来的回复1" and len(source.meta["trail"]) == 1
    system, user = call.body["messages"]
    assert "用REBT咨询" in system["content"] and "原来的回复1" not in system["content"]
    assert user == {"role": "user", "content": "我很累"}


FAULTY = {
    "unclosed": ("<think>想了一半", "turn 1: the thought is not closed, or there are several"),
    "twice": (f"{tagged()}</think>好", "turn 1: the thought is not closed, or there are several"),
    "empty thought": (tagged(" "), "turn 1: an empty thought"),
    "empty reply": (tagged(reply=""), "turn 1: an empty reply"),
    "no thought": (REPLY, "turn 1: no thought (a model that does not think by itself needs think_tags: true)"),
    "beside": (
        Answer(completion("好</think>的", reasoning_content="想")),
        "turn 1: </think> inside the reply or beside the thought that the server gave",
    ),
    "mark": (tagged(reply="好<|im_end|>"), "turn 1: <|im_end|> inside the reply or beside the thought"),
    "cut": (CUT, "turn 1: cut off at max_tokens"),
    "cut reply": (Answer(completion(tagged(), "length")), "turn 1: cut off at max_tokens"),
    "filter": (Answer(completion(tagged(), "content_filter")), "turn 1: stopped by the server's filter"),
    "diagnosis": (tagged(reply="从描述看你患有抑郁症。"), "turn 1: forbidden content: diagnosis ("),
    "named": (tagged(reply="这和惊恐障碍的人很像。"), "turn 1: forbidden content: a diagnosis that the client has not"),
    "manual": (tagged(reply="按DSM-5来看，先休息。"), "turn 1: forbidden content: a diagnosis that the client has not"),
    "english": (
        tagged(reply="It sounds like you have depression."),
        "turn 1: forbidden content: diagnosis (sounds like you",
    ),
    "drug": (tagged(reply="建议你服用舍曲林"), "turn 1: forbidden content: medication advice ("),
    "number": (tagged(reply="请拨打12320"), "turn 1: forbidden content: contact number ("),
}


@pytest.mark.parametrize("reply, reason", FAULTY.values(), ids=FAULTY)
def test_a_faulty_reply_is_asked_once_more_and_then_rejects_the_dialogue(tmp_path, reply, reason):
    rows = [talk("第一句", "第二句", id="bad"), talk("另一句", id="mended"), talk("别的话", id="good")]
    with model(by_words({"第一句": reply, "另一句": [reply, tagged()]}, tagged()), tmp_path) as ask:
        result = reason_reply.run(rows, reason_reply.Settings(), ask)
        assert len(ask.server.calls) == 5
    check_balance("reason_reply", ["bad", "mended", "good"], result)
    assert [(r.id, r.reason.startswith(reason)) for r in result.rejects] == [("bad", True)], result.rejects
    assert [(d.id, d.meta["trail"][-1]["sample"]) for d in result.rows] == [("mended", 1), ("good", 0)]
    assert result.report["faults"].popitem()[1] == 3


def test_a_call_that_failed_is_not_asked_twice_and_later_turns_not_at_all(tmp_path):
    with model(by_words({"第二句": FAULT}, tagged()), tmp_path) as ask:
        result = reason_reply.run([talk("第一句", "第二句", "第三句")], reason_reply.Settings(), ask)
        assert [call.text for call in ask.server.calls] == ["第一句", "第二句"]
    assert [r.reason for r in result.rejects] == ["turn 2: no reply: HTTP 500: boom"]
    assert result.report["faults"] == {"no reply": 1}


def test_what_the_client_named_may_be_spoken_of(tmp_path):
    reply = tagged(reply="你提到医院给出的结果是抑郁症，这一定不好受。")
    with model(by_words({}, reply), tmp_path) as ask:
        rows = [talk("医生说我有抑郁症", id="named"), talk("我不开心", "医生说我有抑郁症", id="later")]
        result = reason_reply.run(rows, reason_reply.Settings(), ask)
    assert [d.id for d in result.rows] == ["named"]
    assert result.rejects[0].reason.startswith("turn 1: forbidden content: a diagnosis that the client has not named (")


def test_dialogues_that_do_not_alternate_are_rejected_and_not_asked_about(tmp_path):
    client, counselor = Turn("client", "我"), Turn("counselor", "嗯")
    wrong = {
        "two": ([client, client, counselor], "two client turns in a row: 1 and 2; merge=true joins split turns"),
        "first": ([counselor, client, counselor], "starts with the counselor"),
        "alone": ([client], "no counselor turn"),
        "empty": ([client, Turn("counselor", " ")], "an empty turn: turn 2 (counselor)"),
        "none": ([], "no turn"),
    }
    rows = [Dialogue(id, "test", turns) for id, (turns, _) in wrong.items()]
    result = reason_reply.run(rows, reason_reply.Settings())
    assert {r.id: r.reason for r in result.rejects} == {id: reason for id, (_, reason) in wrong.items()}


def test_a_draft_earlier_thoughts_and_tags_are_settings(tmp_path):
    settings = reason_reply.Settings(draft=True, earlier_thoughts=True, think_tags=True)
    source = talk("第一句", "第二句")
    source.turns[1].content += f"\n\n{GUIDE}"
    with model(by_words({}, tagged()), tmp_path) as ask:
        reason_reply.run([source], settings, ask)
        first, second = [call.body["messages"] for call in ask.server.calls]
    assert [m["content"] for m in second[1:]] == ["第一句", tagged(), "第二句"]
    for messages, draft in ((first, "原来的回复1"), (second, "原来的回复2")):
        assert (
            f"<草稿>\n{draft}\n</草稿>" in messages[0]["content"]
            and "写在一对<think>和</think>之间" in messages[0]["content"]
        )


def test_a_dialogue_of_two_hundred_turns_is_reasoned_through(tmp_path):
    source = talk(*[f"第{n}句" for n in range(100)])
    with model(counsellor.answer, tmp_path) as ask:
        result = reason_reply.run([source], reason_reply.Settings(), ask)
        assert len(ask.server.calls[-1].body["messages"]) == 200
    assert len(result.rows[0].turns) == 200 and all(turn.thought for turn in result.rows[0].turns[1::2])


# the history, read in the requests


def expected(dialogue: Dialogue) -> tuple[list[list[dict]], list[Turn]]:
    """Returns the history of every request about the dialogue, and its turns, told without the step."""
    histories, said, turns = [], [], []
    for turn in dialogue.turns:
        if turn.role == "counselor":
            histories.append(list(said))
            thought, text = counsellor.reasoned(said)
            if CRISIS in said[-1]["content"]:
                text += f"\n\n{GUIDE}"
            turn = Turn("counselor", text, thought)
        turns.append(turn)
        if turn.role != "system":
            said.append({"role": {"client": "user"}.get(turn.role, "assistant"), "content": turn.content})
    return histories, turns


def histories(server: ModelServer) -> Counter:
    assert all(call.body["messages"][0]["role"] == "system" for call in server.calls)
    return Counter(json.dumps(call.body["messages"][1:], ensure_ascii=False) for call in server.calls)


def true_histories(rows: list[Dialogue]) -> Counter:
    return Counter(json.dumps(history, ensure_ascii=False) for row in rows for history in expected(row)[0])


def test_every_request_of_200_dialogues_holds_exactly_the_dialogue_so_far(tmp_path):
    rows = counsellor.dialogues(200)
    with model(counsellor.answer, tmp_path) as ask:
        result = reason_reply.run(rows, reason_reply.Settings(), ask)
        assert histories(ask.server) == true_histories(rows)
        for call in ask.server.calls:
            roles = [message["role"] for message in call.body["messages"]]
            assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)][: len(roles)] and roles[-1] == "user"
        assert ask.server.most_in_flight > 16
    assert [row.turns for row in result.rows] == [expected(row)[1] for row in rows]
    assert result.report["turns"] == len(true_histories(rows)) > 850
    assert len(result.files["crisis"]) == 5 == sum(GUIDE in t.content for row in result.rows for t in row.turns)


RUN = """
import sys
from pathlib import Path
from data_pipeline import llm
from data_pipeline.records import write_jsonl
from data_pipeline.steps import reason_reply
from tests.data_pipeline import counsellor

url, folder = sys.argv[1], Path(sys.argv[2])
ask = llm.asker(llm.Server(url, "tiny", concurrency=16), folder / "ledger.sqlite", "reason_reply")
result = reason_reply.run(counsellor.dialogues(200), reason_reply.Settings(), ask)
write_jsonl(folder / "rows.jsonl", result.rows)
"""


def test_histories_are_true_after_kills_and_nothing_finished_is_asked_again(tmp_path):
    rows = counsellor.dialogues(200)
    true = true_histories(rows)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with counsellor.server(latency=0.02) as server:
        command = [sys.executable, "-c", RUN, server.url, str(tmp_path)]
        for moment in sorted(random.Random(6).sample(range(100, true.total()), 3)):
            with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as process:
                while len(server.calls) < moment and process.poll() is None:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
            time.sleep(0.2)  # for requests that are still on their way
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, check=True)
        asked = histories(server)
    assert set(asked) == set(true)
    assert 0 < asked.total() - true.total() <= 3 * 16
    assert [d.turns for d in read_records(tmp_path / "rows.jsonl", Dialogue)] == [expected(row)[1] for row in rows]


# validate


def reasoned(id: str = "d", text: str = "我很累", **meta) -> Dialogue:
    return Dialogue(id, "test", [Turn("client", text), Turn("counselor", REPLY, THOUGHT)], meta)


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

    rows = [post("c", f"{CRISIS}，撑不下去了。", where="posts.jsonl line 9"), post()]
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


@pytest.mark.parametrize("settings", [{"min_rounds": 0}, {"min_rounds": 4}, {"max_rounds": "3"}])
def test_numbers_of_rounds_that_make_no_sense_are_refused(settings):
    with pytest.raises(BadInput, match="plan_dialogue: m.._rounds="):
        plan_dialogue.Settings(**settings)


def test_english_prompts_say_what_the_steps_need(tmp_path):
    """Each English prompt is rendered by its step, and its answer read."""

    def reply(messages):
        step = counsellor.step_of(messages)
        if step == "write_dialogue":
            return {"rounds": [ROUND] * messages[0]["content"].count("\nRound ")}
        return counsellor.answer(messages)

    rows = [Post("p", "reddit", "Failed again", "I failed my exam and I want to kill myself.", [])]
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


def test_names_of_diagnoses_are_told_from_names_of_moods():
    moods = ("我很抑郁，也焦虑", "害怕社交", "有点强迫自己", "考精神病学的研究生", "I feel depressed, my anxiety")
    for text in moods:
        assert named_diagnoses(text) == set(), text
    for text in ("可能是重度抑郁", "双相障碍", "OCD", "a panic disorder", "Bipolar", "符合诊断标准", "icd-11"):
        assert named_diagnoses(text), text


def test_few_counselors_of_smile_name_a_diagnosis_first():
    found = turns = 0
    for row in smilechat.read(real_data("smile"), merge=True):
        client = ""
        for turn in row.turns if isinstance(row, Dialogue) else ():
            if turn.role == "client":
                client += turn.content
            else:
                turns += 1
                found += bool(named_diagnoses(turn.content) - named_diagnoses(client))
    assert turns > 1500 and 1 <= found <= 8  # read one by one: three, and each does name one


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
