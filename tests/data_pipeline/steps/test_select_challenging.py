"""What several models answer decides where a question trains, and a failed request decides nothing."""

from copy import deepcopy

import pytest
from pydantic import ValidationError

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Response
from data_pipeline.steps import Size, check_balance
from data_pipeline.steps.select_challenging import NAME, STEP, Settings
from data_pipeline.synthesis import apply
from tests.data_pipeline.scripted import FAULT, model

FAILED = Response("", "failed", 0, error="HTTP 503: busy")


def question(id: str = "q", rationale: str = "解析", **fields) -> Question:
    return Question(**{"id": id, "source": "book", "subject": "普通心理学", "kind": "single", "stem": f"第{id}题是",
                       "options": ["甲", "乙", "丙", "丁"], "answer": "A", "rationale": rationale,
                       "meta": {"where": f"own.csv row {id}"}} | fields)  # fmt: skip


def selector(*answers):
    """An `ask` that gives each question the answers in turn: letters, None for an unreadable one, or a Response."""

    def ask(requests):
        return [_response(answers[request.sample]) for request in requests]

    return ask


def _response(answer):
    return answer if isinstance(answer, Response) else Response(f"答案：{answer}" if answer else "说不准", "stop", 1)


def one(*selectors, rationale: str = "解析", **settings):
    """Returns (the row or reject that one question became, the result)."""
    ask = {f"m{n}": selector(*answers) for n, answers in enumerate(selectors)}
    row = question(rationale=rationale)
    result = apply.run(NAME, [row], Settings(samples=len(selectors[0]), **settings), ask)
    check_balance(NAME, ["q"], result)
    (became,) = [*result.rows, *result.rejects]
    return became, result


def test_models_over_http_decide_by_the_papers_rule(tmp_path):
    rows = [question("易"), question("难"), question("多", kind="multi", answer="ACD")]

    def first(messages):
        text = messages[-1]["content"]
        return "答案：CDA" if "第多题" in text else "<think>想</think>答案：A" if "第易题" in text else "答案：B"

    def second(messages):
        text = messages[-1]["content"]
        return "答案：AC" if "第多题" in text else "我选 C"

    with model(first, tmp_path) as big, model(second, tmp_path / "second") as small:
        result = apply.run(NAME, rows, Settings(), {"big": big, "small": small})
        again = apply.run(NAME, rows, Settings(), {"big": big, "small": small})
        assert len(big.server.calls) == len(small.server.calls) == 3
    assert {q.id: q.meta["selection"]["split"] for q in result.rows} == {"易": "sft", "难": "grpo", "多": "sft"}
    assert [q.meta["selection"] for q in again.rows] == [q.meta["selection"] for q in result.rows]
    told = result.rows[0].meta["selection"]
    assert (told["right"], told["asked"], told["solve_rate"], told["agreement"]) == (1, 2, 0.5, 0.5)
    assert told["models"]["big"] == {"right": 1, "failed": 0, "answers": ["A"], "agreement": 1.0}
    assert {(e["step"], e["row"], e["sample"]) for e in result.rows[1].meta["trail"]} == {
        (f"{NAME}/big", "难", 0),
        (f"{NAME}/small", "难", 0),
    }
    assert result.report["splits"] == {"sft": 2, "grpo": 1}
    assert result.report["grpo_without_signal"]["solve_rate_0"] == 1
    assert result.report["models"]["big"]["right"] == 2 and result.report["models"]["small"]["right"] == 0


@pytest.mark.parametrize(
    ("selectors", "split"),
    [
        ([("A", "B"), ("B", "C")], "sft"),  # one right of four is enough
        ([("B", "B"), ("C", None)], "grpo"),
        ([(None, None), (None, None)], "grpo"),  # unreadable is wrong
        ([("A", FAILED), (FAILED, FAILED)], "sft"),  # a right answer settles it
        ([("B", "B"), ("B", FAILED)], "rejected"),  # the failed one may have been right
        ([(FAILED, FAILED), (FAILED, FAILED)], "rejected"),
    ],
)
def test_failed_requests_are_no_wrong_answers(selectors, split):
    row, result = one(*selectors)
    if split == "rejected":
        assert row.reason.startswith("selector failed: ") and row.reason.endswith("HTTP 503: busy")
        assert not result.rows and row.where == "own.csv row q"
    else:
        assert row.meta["selection"]["split"] == split


def test_a_selector_that_fails_is_asked_again_by_the_next_run(tmp_path):
    down = [True]
    with model(lambda messages: FAULT if down[0] else "答案：C", tmp_path) as ask:
        first = apply.run(NAME, [question()], Settings(), {"m": ask})
        down[0] = False
        second = apply.run(NAME, [question()], Settings(), {"m": ask})
    assert not first.rows and first.report["models"]["m"]["failed_requests"] == 1
    assert second.rows[0].meta["selection"]["split"] == "grpo"


def test_a_question_without_a_rationale_can_only_go_to_grpo():
    row, result = one(("A",), rationale="")
    assert row.meta["selection"]["split"] == "grpo" and "without a rationale" in row.meta["selection"]["why"]
    assert result.report["grpo_without_signal"] | {"settings": 0} == {
        "groups": 1,
        "solve_rate_0": 0,
        "solve_rate_1": 1,
        "settings": 0,
    }
    assert one(("B",), rationale="")[0].meta["selection"]["why"] == "challenging"
    # wrong and failed: GRPO either way, whether it would have been challenging or solved without a rationale
    row, result = one(("B",), (FAILED,), rationale="")
    assert row.meta["selection"]["split"] == "grpo" and not result.rejects
    assert row.meta["selection"]["why"] == "whatever the failed requests would have brought"
    # nothing is known: not even a question that could go nowhere else is sent there
    assert one((FAILED,), rationale="")[0].reason.startswith("selector failed")


@pytest.mark.parametrize(
    ("answers", "bounds", "rationale", "expected"),
    [
        ("AABB", (0.25, 0.75), "解析", "grpo"),
        ("ABBB", (0.25, 0.75), "解析", "grpo"),
        ("AAAA", (0.25, 0.75), "解析", "sft"),
        ("BBBB", (0.25, 0.75), "解析", "sft"),  # too hard, but its rationale is right
        ("BBBB", (0.25, 0.75), "", "below min_solve_rate: 0.25"),
        ("AAAA", (0.25, 0.75), "", "grpo"),
        ("BBBB", (None, 0.5), "解析", "grpo"),
        ("AABB", (None, 0.5), "解析", "grpo"),
        ("AAAB", (None, 0.5), "解析", "sft"),
    ],
)
def test_bounds_on_the_solve_rate_choose_what_grpo_gets(answers, bounds, rationale, expected):
    low, high = bounds
    row, result = one(tuple(answers), rationale=rationale, min_solve_rate=low, max_solve_rate=high)
    if result.rows:
        assert row.meta["selection"]["split"] == expected
    else:
        assert row.reason.startswith(expected)


def test_a_failed_request_decides_nothing_under_bounds_either():
    def became(*answers):
        return one(answers, min_solve_rate=0.25, max_solve_rate=0.5)[0]

    selection = became("A", "B", "B", FAILED).meta["selection"]  # a quarter or a half: GRPO either way
    assert selection["split"] == "grpo" and selection["solve_rate"] == 0.3333
    assert became("A", "A", "B", FAILED).reason.startswith("selector failed")  # a half or three quarters


def test_agreement_on_another_answer_makes_the_key_suspect():
    row, result = one(("B", "B"), ("B", "B"))
    assert result.files["suspect_keys"] == [{"id": "q", "where": "own.csv row q", "key": "A", "all": "B"}]
    assert row.meta["selection"]["split"] == "grpo", "a report, not a verdict"
    for other in ([("B", "B"), ("B", "C")], [("B", None), ("B", "B")], [("B", "B")], [("A", "A"), ("A", "A")]):
        assert one(*other)[1].files["suspect_keys"] == []


def test_samples_are_asked_with_their_own_seed_and_a_half_open_thought_is_read():
    asked = []

    def ask(requests):
        asked.extend(requests)
        return [Response("想好了</think>答案：A", "stop", 1) for _ in requests]

    rows = [question("a"), question("b", kind="open", options=[], answer="")]
    result = apply.run(NAME, rows, Settings(samples=2, params={"temperature": 0.7, "seed": 5}), {"m": ask})
    assert [(r.step, r.row, r.sample, r.params["seed"]) for r in asked] == [
        (f"{NAME}/m", "a", 0, 5),
        (f"{NAME}/m", "a", 1, 6),
    ]
    assert result.rows[0].meta["selection"]["solve_rate"] == 1
    assert [r.id for r in result.rejects] == ["b"]


def test_selectors_are_asked_one_after_the_other_each_for_all_questions_at_once():
    batches = []

    def named(name):
        def ask(requests):
            batches.append([(r.step, r.row, r.sample) for r in requests])
            return [Response("答案：A", "stop", 1) for _ in requests]

        return ask

    rows = [question("a"), question("b")]
    result = apply.run(NAME, rows, Settings(samples=2), {"m": named("m"), "n": named("n")})
    assert batches == [[(f"{NAME}/{name}", row, n) for row in "ab" for n in (0, 1)] for name in "mn"]
    model = {"right": 4, "answers": 4, "unreadable": 0, "failed_requests": 0}
    assert result.report["models"] == {"m": model, "n": model}


def test_what_comes_in_stays_as_it_was():
    rows = [question("a", meta={"trail": [{"step": "filter_quality"}]}), question("b"), question("c", rationale="")]
    rows += [question("open", kind="open", options=[], answer="")]
    before = deepcopy(rows)
    answers = {"a": "答案：A", "b": "答案：B", "c": "说不准"}

    def ask(requests):
        return [Response(answers[r.row], "stop", 1) for r in requests]

    assert len(apply.run(NAME, rows, Settings(), {"m": ask, "n": ask}).rows) == 3 and rows == before


def test_no_more_calls_are_made_than_the_plan_says_at_most(tmp_path):
    settings, rows = Settings(samples=3), [question(str(n)) for n in range(2)]
    assert STEP.calls
    plan = STEP.calls(settings, Size(rows=2, chars=60), 2)
    with model(lambda messages: "说不准", tmp_path) as one, model(lambda messages: FAULT, tmp_path / "two") as two:
        apply.run(NAME, rows, settings, {"one": one, "two": two})
        assert len(one.server.calls) + len(two.server.calls) == plan.most == plan.expected == 12


@pytest.mark.parametrize("ask", [None, {}, selector("A")])
def test_without_a_selector_nothing_can_be_selected(ask):
    with pytest.raises(BadInput, match="no selector model"):
        apply.run(NAME, [question()], Settings(), ask)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"samples": 0}, "samples\n"),
        ({"samples": True}, "samples\n"),
        ({"samples": 4, "params": {"temperature": 0}}, "temperature 0"),
        ({"max_solve_rate": 50}, "max_solve_rate\n"),
        ({"min_solve_rate": 0.2}, "min_solve_rate=0.2 is above max_solve_rate=None"),
        ({"min_solve_rate": 0.6, "max_solve_rate": 0.5}, "no question would be left"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, named):
    with pytest.raises(ValidationError, match=named):
        Settings(**settings)
