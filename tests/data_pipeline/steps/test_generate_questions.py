"""Passages become questions with provenance, and a question whose letters and texts disagree is none."""

from copy import deepcopy

import pytest
from pydantic import ValidationError

from data_pipeline import prompts
from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash
from data_pipeline.records import Passage, note
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.generate_questions import NAME, STEP, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model
from tests.model_server import Answer, completion

OPTIONS = ["倒摄抑制", "前摄抑制", "首因效应", "超限抑制"]
SINGLE = {
    "kind": "single",
    "stem": "后学的妨碍先学的，是",
    "options": OPTIONS,
    "answer": "A",
    "answer_text": ["倒摄抑制"],
}
MULTI = {
    "kind": "multi",
    "stem": "下列属于抑制现象的有",
    "options": OPTIONS,
    "answer": "DBA",
    "answer_text": ["倒摄抑制", "前摄抑制", "超限抑制"],
}


def passage(id: str = "b1", text: str = "遗忘的原因之一是材料之间的干扰。", **meta) -> Passage:
    return Passage(id, "book", "普通心理学", text, meta)


def made(tmp_path, reply, *passages, **settings):
    with model(lambda messages: reply, tmp_path) as ask:
        result = apply.run(NAME, list(passages) or [passage()], Settings(**settings), ask)
    check_balance(NAME, [p.id for p in passages] or ["b1"], result)
    return result


def test_a_passage_becomes_questions_that_know_where_they_come_from(tmp_path):
    source = passage(where="book.md passage 1")
    note(source, "clean", removed=3)
    with model(lambda messages: {"questions": [SINGLE, MULTI]}, tmp_path) as ask:
        result = apply.run(NAME, [source], Settings(single=1, multi=1), ask)
        (call,) = ask.server.calls
    first, second = result.rows
    assert (first.id, first.answer, first.kind, first.options) == ("b1/q1", "A", "single", OPTIONS)
    assert (second.id, second.answer, second.kind) == ("b1/q2", "ABD", "multi")
    assert (first.source, first.subject, first.rationale) == ("book", "普通心理学", "")
    assert first.meta["parents"] == ["b1"] and first.meta["passage"] == "b1"
    assert first.meta["where"] == "book.md passage 1"
    call_of = {"step": NAME, "row": "b1", "sample": 0, "prompt": prompt_hash(NAME)}
    assert first.meta["trail"] == [{"step": "clean", "removed": 3}, call_of]
    assert source.meta["trail"] == [{"step": "clean", "removed": 3}], "a question's trail is a copy"
    for words in ("普通心理学", source.text, "1道单选题和1道多选题", "每题有4个选项（A、B、C、D）"):
        assert words in call.text
    assert result.report["kinds"] == {"single": 1, "multi": 1} and result.report["keys"] == {"A": 1, "ABD": 1}
    assert not result.rejects


def test_the_second_run_pays_nothing_and_gives_the_same(tmp_path):
    with model(lambda messages: {"questions": [SINGLE]}, tmp_path) as ask:
        runs = [apply.run(NAME, [passage(), passage("b2", "另一段。")], Settings(), ask) for _ in range(2)]
        assert len(ask.server.calls) == 2
    assert runs[0] == runs[1] and len(runs[0].rows) == 2


@pytest.mark.parametrize(
    "question",
    [
        SINGLE | {"options": [f"{letter}. {text}" for letter, text in zip("ABCD", OPTIONS, strict=True)]},
        SINGLE
        | {"options": [f"{c}、{text}" for c, text in zip("ABCD", OPTIONS, strict=True)], "answer_text": "A、倒摄抑制"},
        SINGLE | {"answer_text": " 倒摄抑制。", "explanation": "多余的键"},
        SINGLE | {"answer": " a "},
    ],
)
def test_spellings_that_leave_no_doubt_are_read(tmp_path, question):
    (row,) = made(tmp_path, {"questions": [question]}).rows
    assert (row.options, row.answer) == (OPTIONS, "A")


def test_the_texts_of_a_multi_answer_may_come_joined_or_in_another_order(tmp_path):
    joined = MULTI | {"answer_text": "倒摄抑制；前摄抑制、超限抑制"}
    turned = MULTI | {"answer_text": MULTI["answer_text"][::-1]}
    assert [q.answer for q in made(tmp_path, {"questions": [joined, turned]}).rows] == ["ABD", "ABD"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "B"}, "the answer text does not match the letters: B is 前摄抑制, told 倒摄抑制"),
        ({"answer_text": ["倒摄抑制", "前摄抑制"]}, "the answer text does not match"),
        ({"answer_text": []}, "the answer text does not match"),
        ({"answer": "E"}, "the answer names a letter beyond the options: E"),
        ({"answer": "AB", "answer_text": OPTIONS[:2]}, "several letters on a single-answer question"),
        ({"answer": "甲"}, "the answer is not letters alone"),
        ({"kind": "multi"}, "a single letter on a multi-answer question"),
        ({"options": OPTIONS[:3]}, "another number of options: 3, 4 were asked for"),
        ({"options": [*OPTIONS[:3], " "]}, "an empty option: D"),
        ({"options": [*OPTIONS[:3], "倒摄 抑制。"]}, "two options are the same"),
        ({"stem": " "}, "no question text"),
    ],
)
def test_a_question_that_contradicts_itself_is_rejected_and_its_neighbours_are_not(tmp_path, change, reason):
    result = made(tmp_path, {"questions": [MULTI, SINGLE | change, SINGLE]})
    assert [q.id for q in result.rows] == ["b1/q1", "b1/q3"], "the numbers are those of the reply"
    assert [r.id for r in result.rejects] == ["b1/q2"] and result.rejects[0].reason.startswith(reason)


def test_no_more_questions_are_taken_than_were_asked_for(tmp_path):
    reply = {"questions": [SINGLE, SINGLE | {"answer": "B"}, MULTI, SINGLE, MULTI]}
    result = made(tmp_path, reply, single=2, multi=1)
    assert [q.id for q in result.rows] == ["b1/q1", "b1/q3"], "the first ones of each kind"
    reasons = [(r.id, r.code, r.reason) for r in result.rejects[1:]]
    code = "more questions than asked for"
    assert reasons == [("b1/q4", code, f"{code}: 2 single"), ("b1/q5", code, f"{code}: 1 multi")]
    assert result.report["faults"] == {code: 2, "the answer text does not match the letters": 1}
    none = made(tmp_path / "none", {"questions": [MULTI]}, multi=0)
    assert [r.id for r in none.rejects] == ["b1/q1", "b1"] and none.report["passages_without_questions"] == 1


def test_what_comes_in_stays_as_it_was(tmp_path):
    rows = [passage(where="book.md passage 1"), passage("b2", "另一段。")]
    note(rows[0], "clean", removed=3)
    before = deepcopy(rows)
    result = made(tmp_path, {"questions": [SINGLE, MULTI]}, *rows)
    result.rows[0].meta["trail"].append({})
    assert rows == before


def test_no_more_calls_are_made_and_rows_come_than_the_plan_says_at_most(tmp_path):
    settings, many = Settings(single=1, multi=2), {"questions": [SINGLE, MULTI] * 5}
    assert STEP.calls
    plan = STEP.calls(settings, Size(rows=2, chars=60), 0)
    with model(lambda messages: many if len(messages) > 1 else "好的", tmp_path) as ask:
        result = apply.run(NAME, [passage(), passage("b2", "另一段。")], settings, ask)
        assert len(ask.server.calls) == plan.most == 4 and plan.expected == 2
    assert len(result.rows) == plan.most_out.rows == 6


def test_a_passage_that_gives_nothing_is_rejected_itself(tmp_path):
    wrong = made(tmp_path, {"questions": [SINGLE | {"answer": "B"}]})
    assert [r.id for r in wrong.rejects] == ["b1/q1", "b1"] and "none of its 1 questions" in wrong.rejects[1].reason
    empty = made(tmp_path / "empty", {"questions": []})
    assert [(r.id, r.reason) for r in empty.rejects] == [("b1", "no questions: an empty list")]


@pytest.mark.parametrize(
    ("reply", "reason", "calls"),
    [
        ({"questions": [SINGLE | {"options": dict(zip("ABCD", OPTIONS, strict=True))}]}, "wrong shape: questions.0", 2),
        ({"items": [SINGLE]}, "wrong shape: questions: Field required", 2),
        ([SINGLE], "not a JSON object but list", 2),
        ("好的，题目如下：", "not JSON", 2),
        (Answer(completion('{"questions": [{"kind"', "length")), "cut off at max_tokens", 1),
        (FAULT, "no reply: HTTP 500", 1),
    ],
)
def test_a_reply_that_is_no_question_list_is_a_reject_of_the_passage_alone(tmp_path, reply, reason, calls):
    def answer(messages):
        return {"questions": [SINGLE]} if "好的段落" in messages[0]["content"] else reply

    with model(answer, tmp_path) as ask:
        result = apply.run(NAME, [passage(), passage("b2", "好的段落。")], Settings(), ask)
        assert len(ask.server.calls) == calls + 1, "one repair, and none where it cannot help"
    assert [q.id for q in result.rows] == ["b2/q1"]
    (reject,) = result.rejects
    assert reject.id == "b1" and reason in reject.reason
    assert result.report["calls"]["failed"] == 1


def test_a_wrong_shape_is_repaired_once(tmp_path):
    def answer(messages):
        return {"questions": [SINGLE]} if len(messages) > 1 else {"questions": SINGLE}

    with model(answer, tmp_path) as ask:
        result = apply.run(NAME, [passage()], Settings(), ask)
    assert len(result.rows) == 1 and result.report["calls"]["repaired"] == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"single": -1}, "single\n"),
        ({"multi": 27}, "multi\n"),
        ({"single": True}, "single\n"),
        ({"single": 0, "multi": 0}, "ask for no question; raise one"),
        ({"options": 1}, "options\n"),
        ({"option": 4}, "option\n"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, named):
    with pytest.raises(ValidationError, match=named):
        Settings(**settings)


def test_a_prompt_with_an_unknown_variable_is_the_users_error(tmp_path, monkeypatch):
    (tmp_path / "generate_questions.jinja").write_text("请为{{ audience }}命题：{{ text }}", encoding="utf-8")
    monkeypatch.setattr(prompts, "PROMPTS", tmp_path)
    prompts._template.cache_clear()
    try:
        with pytest.raises(BadInput, match="prompt generate_questions.jinja: 'audience' is undefined.*subject, text"):
            apply.run(NAME, [passage()], Settings(), lambda requests: pytest.fail("nothing may be asked"))
        (tmp_path / "filter_quality.jinja").write_text("{% if x %}\n没有结尾", encoding="utf-8")
        with pytest.raises(BadInput, match=r"prompt filter_quality.jinja line \d"):
            prompts.render("filter_quality")
    finally:
        prompts._template.cache_clear()
