"""Thought and reply of every counselor turn are read, checked, asked once more, and rejected as what they are."""

import copy

import pytest

from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Dialogue, Turn
from data_pipeline.safety.reply_rules import named_diagnoses
from data_pipeline.sources import smilechat
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.reason_reply import NAME, Settings
from data_pipeline.synthesis import apply
from tests.conftest import real_data
from tests.data_pipeline import counsellor
from tests.data_pipeline.scripted import CUT, FAULT, model
from tests.data_pipeline.steps.talks import (
    ALONE,
    CRISIS,
    GUIDE,
    REPLY,
    THOUGHT,
    asking,
    by_words,
    plan_of,
    tagged,
    talk,
)
from tests.model_server import Answer, completion


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
        result = apply.run(NAME, [source], Settings(), ask)
        (call,) = ask.server.calls
    (row,) = result.rows
    assert row.turns == [Turn("system", "用REBT咨询"), Turn("client", "我很累"), Turn("counselor", REPLY, THOUGHT)]
    prompt = prompt_hash("reason_reply.zh")
    assert row.meta["trail"] == [{"step": "x"}, {"step": "reason_reply", "row": "d/t1", "sample": 0, "prompt": prompt}]
    assert source.turns[2].content == "原来的回复1" and len(source.meta["trail"]) == 1
    system, user = call.body["messages"]
    assert "用REBT咨询" in system["content"] and "原来的回复1" not in system["content"]
    assert user == {"role": "user", "content": "我很累"}


FAULTY = {  # the reply, the reject's code, and how its detail begins
    "unclosed": ("<think>想了一半", "the thought is not closed, or there are several", "turn 1"),
    "twice": (f"{tagged()}</think>好", "the thought is not closed, or there are several", "turn 1"),
    "empty thought": (tagged(" "), "an empty thought", "turn 1"),
    "empty reply": (tagged(reply=""), "an empty reply", "turn 1"),
    "no thought": (
        REPLY,
        "no thought",
        "turn 1: a model that does not think by itself needs think_tags: true",
    ),
    "beside": (
        Answer(completion("好</think>的", reasoning_content="想")),
        "</think> inside the reply or beside the thought that the server gave",
        "turn 1",
    ),
    "mark": (
        tagged(reply="好<|im_end|>"),
        "<|im_end|> inside the reply or beside the thought that the server gave",
        "turn 1",
    ),
    "cut": (CUT, "cut off at max_tokens", "turn 1"),
    "cut reply": (Answer(completion(tagged(), "length")), "cut off at max_tokens", "turn 1"),
    "filter": (Answer(completion(tagged(), "content_filter")), "stopped by the server's filter", "turn 1"),
    "diagnosis": (tagged(reply="从描述看你患有抑郁症。"), "forbidden content", "turn 1: diagnosis ("),
    "named": (
        tagged(reply="这和惊恐障碍的人很像。"),
        "forbidden content",
        "turn 1: a diagnosis that the client has not named (",
    ),
    "manual": (
        tagged(reply="按DSM-5来看，先休息。"),
        "forbidden content",
        "turn 1: a diagnosis that the client has not named (",
    ),
    "english": (
        tagged(reply="It sounds like you have depression."),
        "forbidden content",
        "turn 1: diagnosis (sounds like you",
    ),
    "drug": (tagged(reply="建议你服用舍曲林"), "forbidden content", "turn 1: medication advice ("),
    "number": (tagged(reply="请拨打12320"), "forbidden content", "turn 1: contact number ("),
}


@pytest.mark.parametrize("reply, code, detail", FAULTY.values(), ids=FAULTY)
def test_a_faulty_reply_is_asked_once_more_and_then_rejects_the_dialogue(tmp_path, reply, code, detail):
    rows = [talk("第一句", "第二句", id="bad"), talk("另一句", id="mended"), talk("别的话", id="good")]
    with model(by_words({"第一句": reply, "另一句": [reply, tagged()]}, tagged()), tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
        assert len(ask.server.calls) == 5
    check_balance(NAME, ["bad", "mended", "good"], result)
    (reject,) = result.rejects
    assert (reject.id, reject.code) == ("bad", code) and reject.detail.startswith(detail)
    assert [(d.id, d.meta["trail"][-1]["sample"]) for d in result.rows] == [("mended", 1), ("good", 0)]
    rule = detail.removeprefix("turn 1: ").partition(" (")[0]
    assert result.report["faults"] == {f"{code}: {rule}" if code == "forbidden content" else code: 3}


def test_a_call_that_failed_is_not_asked_twice_and_later_turns_not_at_all(tmp_path):
    with model(by_words({"第二句": FAULT}, tagged()), tmp_path) as ask:
        result = apply.run(NAME, [talk("第一句", "第二句", "第三句")], Settings(), ask)
        assert [call.text for call in ask.server.calls] == ["第一句", "第二句"]
    assert [r.reason for r in result.rejects] == ["no reply: turn 2: HTTP 500: boom"]
    assert result.report["faults"] == {"no reply": 1}


def test_what_the_client_named_may_be_spoken_of(tmp_path):
    reply = tagged(reply="你提到医院给出的结果是抑郁症，这一定不好受。")
    with model(by_words({}, reply), tmp_path) as ask:
        rows = [talk("医生说我有抑郁症", id="named"), talk("我不开心", "医生说我有抑郁症", id="later")]
        result = apply.run(NAME, rows, Settings(), ask)
    assert [d.id for d in result.rows] == ["named"]
    assert result.rejects[0].code == "forbidden content"
    assert result.rejects[0].detail.startswith("turn 1: a diagnosis that the client has not named (")


def test_dialogues_that_do_not_alternate_are_rejected_and_not_asked_about(tmp_path):
    client, counselor = Turn("client", "我"), Turn("counselor", "嗯")
    wrong = {
        "two": (
            [client, client, counselor],
            "two client turns in a row: 1 and 2; options: {merge: true} joins split turns",
        ),
        "first": ([counselor, client, counselor], "starts with the counselor"),
        "alone": ([client], "no counselor turn"),
        "empty": ([client, Turn("counselor", " ")], "an empty turn: turn 2 (counselor)"),
        "none": ([], "no turn"),
    }
    rows = [Dialogue(id, "test", turns) for id, (turns, _) in wrong.items()]
    result = apply.run(NAME, rows, Settings())
    assert {r.id: r.reason for r in result.rejects} == {id: reason for id, (_, reason) in wrong.items()}


def test_a_draft_earlier_thoughts_and_tags_are_settings(tmp_path):
    settings = Settings(draft=True, earlier_thoughts=True, think_tags=True)
    source = talk("第一句", "第二句")
    source.turns[1].content += f"\n\n{GUIDE}"
    with model(by_words({}, tagged()), tmp_path) as ask:
        apply.run(NAME, [source], settings, ask)
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
        result = apply.run(NAME, [source], Settings(), ask)
        assert len(ask.server.calls[-1].body["messages"]) == 200
    assert len(result.rows[0].turns) == 200 and all(turn.thought for turn in result.rows[0].turns[1::2])


def test_last_words_in_a_crisis_get_an_answer_and_others_stay_as_they_are(tmp_path):
    rows = [talk("我很累", id=words) for words in (CRISIS, "谢谢")]
    for row in rows:
        row.turns.append(Turn("client", row.id))
    with model(by_words({}, tagged()), tmp_path) as ask:
        crisis, usual = apply.run(NAME, rows, Settings(draft=True), ask).rows
    assert crisis.turns[-1] == Turn("counselor", f"{REPLY}\n\n{GUIDE}", THOUGHT) and crisis.turns[1].content == REPLY
    assert [t.role for t in usual.turns] == ["client", "counselor", "client"] and len(rows[0].turns) == 3


def test_the_rows_that_went_in_are_unchanged():
    rows = [
        talk("我很累", "还是很累", id="usual", trail=[{"step": "x"}]),
        talk("我很累", CRISIS, id="c", answer="guidance"),
        talk("甲事", id="bad"),
    ]
    rows[1].turns.append(Turn("client", CRISIS))
    rows[0].turns[1].thought = "原来的思考"
    before = copy.deepcopy(rows)
    result = apply.run(NAME, rows, Settings(), asking(by_words({"甲事": "没有思考"}, tagged())))
    assert [row.id for row in result.rows] == ["usual", "c"] and rows == before


def test_two_dialogues_with_one_id_do_not_cross_their_replies():
    rows = [talk("甲事", "甲事又来"), talk("乙事"), talk("丙事")]
    replies = {name: tagged(reply=f"{REPLY}{name}") for name in ("甲事", "丙事")} | {"乙事": "没有思考"}
    result = apply.run(NAME, rows, Settings(), asking(by_words(replies, tagged())))
    said = [[turn.content for turn in row.turns[1::2]] for row in result.rows]
    assert said == [[f"{REPLY}甲事"] * 2, [f"{REPLY}丙事"]]
    assert [(reject.code, reject.detail[:6]) for reject in result.rejects] == [("no thought", "turn 1")]


def test_lengths_are_of_the_dialogues_that_go_on():
    replies = {"甲事": tagged("想", "好的"), "乙事": tagged("想一想", "好的好的"), "丙事": "没有思考"}
    rows = [talk("甲事", "乙事"), talk("乙事", "丙事")]
    report = apply.run(NAME, rows, Settings(), asking(by_words(replies, tagged()))).report
    assert (report["median_thought_chars"], report["median_reply_chars"]) == (2, 3)
    assert (report["turns"], report["dialogues"]) == (3, 1)
    nothing = apply.run(NAME, [], Settings(), asking(by_words(replies, tagged()))).report
    assert (nothing["median_thought_chars"], nothing["faults"]) == (0, {})


def test_the_plan_of_calls_holds_when_every_reply_has_a_fault():
    rows = [talk("我很累", CRISIS, id="c"), talk(CRISIS, "我很累", id="last")]
    for row in rows:
        row.turns.append(Turn("client", CRISIS))
    ask = asking(lambda messages: "没有思考")
    result = apply.run(NAME, rows, Settings(), ask)
    plan = plan_of(NAME, Size(2, turns=4))
    assert len(ask.requests) == plan.most == 12 and plan.expected == 4
    assert sum(len(row.turns) for row in result.rows) / 2 == plan.most_out.turns == 6
    assert all(turn.content == ALONE for row in result.rows for turn in row.turns[1::2])


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
