"""Metrics: counts stay in the denominator, and intervals hold what they should."""

import math
import random

from data_pipeline.records import Question
from eval import metrics


def question(kind: str, answer: str) -> Question:
    return Question(answer, "table", "", kind, "题", ["甲", "乙", "丙", "丁"], answer)


def test_unreadable_responses_count_as_wrong_and_are_shown():
    questions = [question("single", "A"), question("single", "B"), question("multi", "AB")]
    responses = [["<think>x</think>答案：A", "不知道"], ["<think>x</think>答案：A"] * 2, ["答案：A", "答案：AB"]]
    scores = [[metrics.score_question(q, r) for r in rs] for q, rs in zip(questions, responses, strict=True)]
    found = metrics.summarise(questions, scores, cut=1, resamples=200, seed=0)
    assert (found["n"], found["n_single"], found["n_multi"], found["samples"]) == (3, 2, 1, 2)
    assert found["single_accuracy"] == 0.25
    assert found["multi_strict_accuracy"] == 0.5
    assert found["multi_elastic_accuracy"] == 0.75
    assert math.isclose(found["unreadable_rate"], 1 / 6)
    assert found["format_rate"] == 0.5
    assert found["cut_by_length"] == 1


def test_a_kind_that_is_absent_has_no_accuracy():
    found = metrics.summarise(
        [question("single", "A")], [[metrics.score_question(question("single", "A"), "A")]], 0, 50, 0
    )
    assert found["multi_strict_accuracy"] is None
    assert found["single_accuracy"] == 1.0


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    draw, covered = random.Random(1), 0
    for trial in range(200):
        sample = [float(draw.random() < 0.3) for _ in range(60)]
        low, high = metrics.bootstrap(sample, 300, trial)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_the_paired_gain_sees_a_small_but_steady_difference():
    draw = random.Random(2)
    before = [draw.random() for _ in range(40)]
    after = [b + 0.02 for b in before]
    gain = metrics.paired_gain(before, after, 500, 0)
    assert math.isclose(gain["gain"], 0.02)
    assert gain["ci_low"] > 0
    assert metrics.paired_gain(before, before, 500, 0) == {"gain": 0.0, "ci_low": 0.0, "ci_high": 0.0}
