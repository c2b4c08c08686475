"""Rationales whose answer is the key, improved round by round, and taken back where a round does not help."""

import json
from copy import deepcopy

import pytest
from pydantic import ValidationError

from data_pipeline.llm import recorded
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Question, Response, write_jsonl
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.write_rationales import COMPARE, NAME, OPTIMISE, STEP, Settings, gives_away, read_rationale
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import CUT, FAULT, model
from tests.model_server import Answer, completion

FIRST = render("rationale_prompt")


def question(id: str = "q", **fields) -> Question:
    options = ["差别感觉阈限", "绝对感觉阈限", "感受性", "适应"]
    return Question(**{"id": id, "source": "book", "subject": "普通心理学", "kind": "single", "stem": f"第{id}题是",
                       "options": options, "answer": "A", "meta": {"where": f"own.csv row {id}"}} | fields)  # fmt: skip


def answer(letters: str = "A", thought: str = "先看概念，再看选项。") -> str:
    return f"<think>{thought}</think>\n答案：{letters}"


def replies(tmp_path, *rows):
    """Returns the `ask` of recorded replies: (step, row, sample, text or JSON object)."""
    lines = [
        {"step": step, "row": row, "sample": sample, "text": text if isinstance(text, str) else json.dumps(text)}
        for step, row, sample, text in rows
    ]
    write_jsonl(tmp_path / "replies.jsonl", lines)
    return recorded.asker(tmp_path)


def test_every_round_starts_from_the_last_instance_that_was_right(tmp_path):
    ask = replies(
        tmp_path,
        (NAME, "q", 0, answer(thought="第零轮")),
        (OPTIMISE, "q", 1, {"prompt": "提示一"}),
        (NAME, "q", 1, answer("B", "第一轮")),
        (OPTIMISE, "q", 2, {"prompt": "提示二"}),
        (NAME, "q", 2, answer("A", "第二轮")),
        (OPTIMISE, "q", 3, {"prompt": "提示三"}),
        (NAME, "q", 3, "<think>第三轮</think>说不准"),
    )
    asked = []

    def watched(requests):
        asked.extend(requests)
        return ask(requests)

    result = apply.run(NAME, [question()], Settings(rounds=3), watched)
    (row,) = result.rows
    assert (row.rationale, row.meta["rationale"]) == ("第二轮", {"prompt": "提示二", "round": 2})
    traces = [(t["round"], t["prompt"], t["letters"], t["taken"], t["why"]) for t in result.files["traces"]]
    assert traces == [
        (0, FIRST, "A", True, ""),
        (1, "提示一", "B", False, "wrong: B"),
        (2, "提示二", "A", True, ""),
        (3, "提示三", None, False, "unreadable"),
    ]
    derived = {r.sample: r.messages[0]["content"] for r in asked if r.step == OPTIMISE}
    assert FIRST in derived[2] and "第零轮" in derived[2], "round 1 was wrong: reverted"
    assert "提示二" in derived[3] and "第二轮" in derived[3], "round 2 was right: taken over"
    systems = [r.messages[0]["content"] for r in asked if r.step == NAME]
    assert [s.split("\n")[0] for s in systems] == [FIRST, "提示一", "提示二", "提示三"]
    assert all("<think></think>" in s for s in systems), "the format is no part of what is rewritten"
    calls = [(entry["step"], entry["row"], entry["sample"]) for entry in row.meta["trail"]]
    assert calls == [(NAME, "q", 0), *[(step, "q", n) for n in (1, 2, 3) for step in (OPTIMISE, NAME)]]
    assert row.meta["trail"][1]["prompt"] == prompt_hash(OPTIMISE)
    assert result.report["final_round"] == {"2": 1} and not result.files["unsolved"]


def test_rounds_are_asked_for_all_questions_at_once(tmp_path):
    sizes = []

    def ask(requests):
        sizes.append((requests[0].step, len(requests)))
        text = '{"prompt": "先辨析概念"}' if requests[0].step == OPTIMISE else answer()
        return [Response(text, "stop", 1) for _ in requests]

    apply.run(NAME, [question(str(n)) for n in range(20)], Settings(rounds=1), ask)
    assert sizes == [(NAME, 20), (OPTIMISE, 20), (NAME, 20)]


def test_what_is_never_right_goes_on_without_a_rationale_and_is_reported(tmp_path):
    script = {
        "right": answer(),
        "wrong": answer("B"),
        "unreadable": "<think>想</think>说不准",
        "bare": "答案：A",
        "cut": CUT,
        "down": FAULT,
        "split": Answer(completion("答案：A", reasoning_content="服务器分开的思考")),
    }
    rows = [question(name) for name in script]
    rows += [question("open", kind="open", options=[], answer=""), question("given", rationale="作者写的解析")]

    def reply(messages):
        return next(text for name, text in script.items() if f"第{name}题是" in messages[-1]["content"])

    with model(reply, tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(rounds=0), ask)
        assert len(ask.server.calls) == len(script), "neither the open question nor the one with a rationale is asked"
    check_balance(NAME, [q.id for q in rows], result)
    rationales = {q.id: q.rationale for q in result.rows}
    assert rationales == {
        "right": "先看概念，再看选项。",
        "wrong": "",
        "unreadable": "",
        "bare": "",
        "cut": "",
        "split": "服务器分开的思考",
        "given": "作者写的解析",
    }
    unsolved = {row["id"]: row["why"] for row in result.files["unsolved"]}
    assert unsolved == {
        "wrong": "wrong: B",
        "unreadable": "unreadable",
        "bare": "no thought",
        "cut": "cut: the answer reached max_tokens",
    }
    reasons = {r.id: (r.where, r.reason) for r in result.rejects}
    assert set(reasons) == {"down", "open"}
    assert reasons["down"][0] == "own.csv row down" and reasons["down"][1].startswith("no answer: HTTP 500")
    counts = {name: result.report[name] for name in ("in", "brought_a_rationale", "solved", "unsolved", "failed")}
    assert counts == {"in": 9, "brought_a_rationale": 1, "solved": 2, "unsolved": 4, "failed": 1}


def test_a_round_that_fails_leaves_the_instance_and_the_next_run_asks_it_again(tmp_path):
    down = [True]

    def reply(messages):
        if "提示词专家" in messages[0]["content"]:
            return FAULT if down[0] else {"prompt": "先辨析概念"}
        return answer(thought="改过" if "先辨析概念" in messages[0]["content"] else "最初")

    with model(reply, tmp_path) as ask:
        first = apply.run(NAME, [question()], Settings(rounds=1), ask)
        down[0] = False
        second = apply.run(NAME, [question()], Settings(rounds=1), ask)
        third = apply.run(NAME, [question()], Settings(rounds=1), ask)
        assert len(ask.server.calls) == 4, "answer, fault; then only the candidate and its answer"
    assert first.rows[0].rationale == "最初" and "no candidate: no reply: HTTP 500" in first.files["traces"][1]["why"]
    assert second.rows[0].rationale == "改过" and second == third


@pytest.mark.parametrize("candidate", [{"prompt": ["一", "二"]}, {"prompts": "提示"}, {"prompt": " "}])
def test_a_candidate_of_the_wrong_shape_changes_nothing(tmp_path, candidate):
    def reply(messages):
        return candidate if "提示词专家" in messages[0]["content"] else answer()

    with model(reply, tmp_path) as ask:
        result = apply.run(NAME, [question()], Settings(rounds=1), ask)
    assert result.rows[0].meta["rationale"] == {"prompt": FIRST, "round": 0}
    assert result.report["rounds"]["1"] == {"no candidate": 1}


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("请说明为什么答案是A。", "names an option (答案是A)"),
        ("先排除 B，再比较其余各项。", "names an option (排除 B)"),
        ("请讲清楚D项不对的理由。", "names an option"),
        ("请用ABC理论和A型人格的研究逐项说明，正确的选项要讲清依据。", ""),
        ("请重点说明差别感觉阈限的含义。", "it quotes A"),
        ("请区分阈限与感受性，逐个选项辨析。", ""),
        ("请说明绝对感觉阈限为什么不对。", ""),  # a wrong option: a hint, but not the answer
    ],
)
def test_a_candidate_prompt_must_not_hold_the_answer(tmp_path, prompt, told):
    fault = gives_away(prompt, question())
    assert fault is None if not told else fault and fault.code == "gives the answer away" and told in fault.detail
    asked = replies(
        tmp_path,
        (NAME, "q", 0, answer()),
        (OPTIMISE, "q", 1, {"prompt": prompt}),
        *([] if told else [(NAME, "q", 1, answer())]),  # no reply is recorded: what leaks is not asked
    )
    (row,) = apply.run(NAME, [question()], Settings(rounds=1), asked).rows
    assert row.meta["rationale"]["round"] == (0 if told else 1)


def test_words_of_the_question_itself_are_no_leak():
    assert not gives_away("请先说明差别感觉阈限。", question(stem="与差别感觉阈限同义的是"))


def test_the_judge_must_prefer_the_new_rationale_wherever_it_stands(tmp_path):
    rows = [question(str(n)) for n in range(12)]
    shown = []

    def reply(messages):
        text = messages[-1]["content"]
        if "提示词专家" in text:
            return {"prompt": "先辨析概念"}
        if "哪一份更适合" in text:
            shown.append(text.index("改过") < text.index("最初"))
            better = "相当" if "第3题" in text else "甲" if shown[-1] == ("第4题" not in text) else "乙"
            return {"better": better, "reasons": "更清楚"}
        return answer(thought="改过" if "先辨析概念" in messages[0]["content"] else "最初")

    with model(reply, tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(rounds=1, judge=True), ask)
    assert {q.id: q.rationale for q in result.rows} == {str(n): "最初" if n in (3, 4) else "改过" for n in range(12)}
    assert 0 < sum(shown) < 12, "the new one stands first for some and second for others"
    assert result.report["rounds"]["1"] == {"taken": 10, "not better": 2}
    assert [e["step"] for e in result.rows[0].meta["trail"]] == [NAME, OPTIMISE, NAME, COMPARE]


def test_what_comes_in_stays_as_it_was(tmp_path):
    rows = [question(meta={"trail": [{"step": "filter_quality"}]}), question("wrong")]
    rows += [question("given", rationale="解"), question("open", kind="open", options=[], answer="")]
    before = deepcopy(rows)

    def reply(messages):
        if "提示词专家" in messages[0]["content"]:
            return {"prompt": "先辨析概念"}
        return answer("B" if "第wrong题" in messages[-1]["content"] else "A")

    with model(reply, tmp_path) as ask:
        result = apply.run(NAME, rows, Settings(rounds=1), ask)
    assert len(result.rows) == 3 and rows == before


def test_no_more_calls_are_made_than_the_plan_says_at_most():
    asked = []

    def ask(requests):
        asked.extend(request.step for request in requests)
        return [Response(reply(request), "stop", 1) for request in requests]

    def reply(request):
        if request.step == NAME:
            return answer()
        if ".repair" not in request.step:
            return "好的"
        candidate, preference = '{"prompt": "先辨析概念"}', '{"better": "甲", "reasons": "更清楚"}'
        return candidate if request.step.startswith(OPTIMISE) else preference

    rows, names = [question(str(n)) for n in range(3)], ("asked", "invalid", "repaired", "failed")
    for judge, steps in ((False, [OPTIMISE]), (True, [OPTIMISE, COMPARE])):
        asked.clear()
        settings = Settings(rounds=2, judge=judge)
        assert STEP.calls
        plan = STEP.calls(settings, Size(rows=3), 0)
        result = apply.run(NAME, rows, settings, ask)
        assert len(asked) == plan.most == 3 * (1 + 2 * (5 if judge else 3)) and plan.expected < plan.most
        assert list(result.report["calls"].items()) == [
            (f"{step} {name}", 0 if name == "failed" else 6) for step in steps for name in names
        ]
    assert apply.run(NAME, rows, Settings(rounds=0), ask).report["calls"] == {}


def test_the_thought_is_what_the_tags_hold_and_a_stray_tag_is_none():
    def read(text, reasoning="", finish="stop"):
        return read_rationale(Response(text, finish, 1, reasoning), question())

    assert read(answer(thought=" 里面 "), "服务器的").rationale == "里面"
    assert read("答案：A", "半个</think>标签").why == "a tag inside the thought"
    assert read("<think>想了一半，答案：A").why == "unreadable"
    assert read("答案：A", "想", "length").why.startswith("cut")


def test_a_thought_that_the_chat_template_opened_is_a_rationale():
    """Of report 10: selection read such a reply, and every rationale of the same server was lost."""
    reply = read_rationale(Response("视觉由感觉器官直接引起。\n</think>\n\n答案：A", "stop", 9), question())
    assert (reply.rationale, reply.letters, reply.fault) == ("视觉由感觉器官直接引起。", "A", None)


@pytest.mark.parametrize("settings", [{"rounds": -1}, {"rounds": True}, {"rounds": 1.5}, {"judge": "no"}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError, match=f"{next(iter(settings))}\n"):
        Settings(**settings)
