"""Metrics: counts stay in the denominator, and intervals hold what they should."""

import itertools
import math

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Response
from eval import metrics
from eval.benchmarks import heldout
from eval.contract import Item, Judgement
from reward.psyche import credit
from tests.eval.scored import figures


def question(kind: str, answer: str) -> Question:
    return Question(answer, "table", "", kind, "题", ["甲", "乙", "丙", "丁"], answer)


def respond(*texts: str) -> list[Response]:
    return [Response(text, "stop", 1) for text in texts]


def test_unreadable_responses_count_as_wrong_and_are_shown():
    questions = [question("single", "A"), question("single", "B"), question("multi", "AB")]
    responses = [respond("<think>x</think>答案：A", "不知道"), respond(*["<think>x</think>答案：A"] * 2),
                 respond("答案：A", "答案：AB")]  # fmt: skip
    responses[0][1].finish = "length"
    found = figures("heldout", [Item(q, q.kind) for q in questions], responses, resamples=200, seed=0)
    assert (found["items"], found["responses"], found["samples"]) == (3, 6, 2)
    assert found["cells"]["single"]["accuracy"] == 0.25
    assert found["cells"]["multi"]["accuracy"] == 0.5
    assert found["cells"]["multi"]["elastic"] == 0.75
    assert (found["unreadable"], found["cut_by_length"], found["failed"]) == (1, 1, 0)
    assert math.isclose(found["readable_rate"], 5 / 6)
    assert found["format_rate"] == 0.5


def test_a_kind_that_is_absent_has_no_accuracy():
    found = figures("heldout", [Item(question("single", "A"), "single")], [respond("A")], resamples=50)
    assert found["cells"]["multi"]["accuracy"] is None
    assert found["cells"]["single"]["accuracy"] == 1.0


def test_open_questions_of_a_run_are_judged_and_do_not_count_as_wrong():
    asked = Question("o", "table", "", "open", "为什么？", [], "", reference="因为")
    items = [Item(question("single", "A"), "single"), Item(asked, "open"), Item(asked, "open")]
    responses = [respond("答案：A"), respond("因为……"), respond("")]
    said = [[None], [Judgement({"judge_score": 70.0})], [None]]
    figure = figures("heldout", items, responses, said)
    assert (figure["accuracy"], figure["items"], figure["unreadable"]) == (1.0, 3, 1)
    assert figure["cells"]["open"]["judge_score"] == 35.0, "nothing to judge is 0"
    assert "accuracy" not in figure["cells"]["open"]
    assert "not judged: no judge is named" in figures("heldout", items, responses)["notes"][0]
    assert heldout.judge_messages(items[1], "答了这些")[0]["content"].count("答了这些") == 1
    assert heldout.read_judge('{"score": 7, "reason": "好"}') == {"judge_score": 70.0}
    assert heldout.read_judge("7分") == {"judge_score": None}


@pytest.mark.parametrize(
    ("response", "read", "strict"),
    [
        ("<think>想</think>\n答案：AB", "AB", "AB"),
        ("<think>想</think>\n因此选 AB。", "AB", None),
        ("答案：AB", "AB", None),
        ("<think>想</think>\n答案：A 或 B", None, None),
        ("<think>想</think>\n\\boxed{A}", "A", "A"),
    ],
)
def test_a_response_has_two_readings_and_the_strict_one_is_its_format(response, read, strict):
    scored = metrics.score_response(question("multi", "AB"), Response(response, "stop", 1))
    assert (scored.read, scored.strict_match) == (read, strict)
    assert (scored.acc, scored.strict_match_acc) == (read == "AB", strict == "AB")
    assert (scored.readable, scored.format) == (read is not None, strict is not None)
    failed = metrics.score_response(question("multi", "AB"), Response(response, "failed", 1))
    assert failed.read is failed.strict_match is None and failed.format == 0


def test_a_thought_that_nothing_opened_is_told_where_every_response_closes_one():
    items = [Item(question("single", "A"), "single"), Item(question("single", "B"), "single")]
    opened, cut = respond("想</think>答案：A", "想</think>答案：B"), Response("还在想", "length", 9)

    def told(*responses: Response, **scoring) -> bool:
        notes = figures("heldout", items, [[r] for r in responses], **scoring)["notes"]
        return any("closes a thought that nothing opened" in note for note in notes)

    assert told(*opened) and told(opened[0], cut)
    assert not told(*opened, think_prefilled=True) and not told(opened[0], *respond("<think>想</think>答案：A"))
    assert not told(cut, cut) and not told(*(Response(r.text, "failed", 0) for r in opened))


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample():
    for n, c in itertools.product(range(1, 7), range(7)):
        samples = [i < c for i in range(n)]
        for k in range(1, n + 1):
            draws = list(itertools.combinations(samples, k))
            assert metrics.pass_at(n, min(c, n), k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(
    ("read", "subset", "jaccard"),
    [
        ("ABD", 1, 1), ("AB", 2 / 3, 2 / 3), ("A", 1 / 3, 1 / 3), ("ABC", 0, 2 / 4), ("ABCD", 0, 3 / 4), ("C", 0, 0),
        (None, 0, 0),
    ],
)  # fmt: skip
def test_elastic_credit_of_both_rules(read, subset, jaccard):
    assert credit(read, "ABD", "subset") == subset
    assert credit(read, "ABD", "jaccard") == jaccard
    scored = metrics.score_response(question("multi", "ABD"), Response(f"答案：{read}", "stop", 1), "jaccard")
    assert scored.elastic == jaccard
    with pytest.raises(BadInput, match="elastic_rule=x: known are subset, jaccard"):
        metrics.score_response(question("multi", "ABD"), Response("", "stop", 1), "x")


def test_a_thought_that_the_server_split_off_is_a_thought():
    split = Response("答案：A", "stop", 5, reasoning="想一想，也许是 B")
    scored = metrics.score_response(question("single", "A"), split)
    assert (scored.read, scored.acc, scored.format) == ("A", 1, 1)
    assert metrics.answer_part(split) == "答案：A"
    assert metrics.score_response(question("single", "A"), split, think_prefilled=True) == scored
    assert metrics.answer_part(Response("想完</think>\n答案", "stop", 1), think_prefilled=True) == "答案"
