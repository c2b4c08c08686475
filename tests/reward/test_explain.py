"""`python -m reward.explain`, run as a user runs it."""

import subprocess
import sys

import pytest

from reward.explain import format_fault
from reward.psyche import is_well_formed
from tests.conftest import REPOSITORY, refused
from tests.reward.corpus import ROWS

OPTIONS = "options=视觉,听觉,思维,想象"


def explain(*words: str | bytes, stdin: bytes = b"", code: int = 0) -> str:
    done = run(*words, stdin=stdin)
    assert done.returncode == code and not done.stderr, done.stderr
    return done.stdout


def run(*words: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "reward.explain", *words]
    done = subprocess.run(line, capture_output=True, input=stdin, cwd=REPOSITORY, timeout=60)
    return subprocess.CompletedProcess(line, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_right_answer_is_explained_to_its_score():
    told = explain("<think>因为听觉</think>答案：B\n因此选 B。", OPTIONS, "key=B")
    for part in (
        "4 characters",
        "B=听觉",
        "B <- '答案:B'",
        "B <- '选 B'",
        "B: stated",
        "well-formed",
        "readable     1",
    ):
        assert part in told
    assert told.strip().endswith("= 0.1 x format 1 + 0.9 x credit 1 (B for the key B, strict) = 1")


def test_what_is_unreadable_or_malformed_says_why():
    told = explain("答案：A 或 B", OPTIONS, "key=B")
    assert "none <- '答案:A'" in told and "unreadable: a statement that hedges" in told and "no thought" in told
    assert told.strip().endswith("credit 0 (nothing for the key B, strict) = 0")


def test_the_settings_of_the_recipe_are_taken():
    told = explain("因为</think>答案：A", OPTIONS, "key=BA", "think_prefilled=true", "multi_rule=subset")
    assert "credit 0.5 (A for the key AB, subset) = 0.55" in told
    told = explain("答案：A", OPTIONS, "key=A", "format_gate=true", "format_weight=0.2")
    assert "0.8 x credit 0 (format_gate: 1 only when well-formed) = 0" in told


def test_standard_input_options_as_json_and_reading_alone():
    told = explain("-", 'options=["一、二, 三", "[red]四"]', stdin="答案：B\n".encode())
    assert "A=一、二, 三  B=[red]四" in told and "B: stated" in told and "score" not in told


def test_help_shows_the_command():
    assert explain("--help") == explain() and "python -m reward.explain" in explain("--help")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("答案：A", "option=甲,乙"), "did you mean options=?"),
        (("答案：A", "key"), "after the response come options=, key="),
        (("key=A",), "the first word is the response"),
        (("答案：A", "key=A", "key=B"), "key= stands twice"),
        (("答案：A", OPTIONS, "key=E"), "key=E: letters of A to D"),
        (("答案：A", OPTIONS, "key="), "key=: letters of A to D"),
        (("答案：A", "options=甲"), "options=甲: 2 to 26 texts"),
        (("答案：A", "options=甲,,乙"), "2 to 26 texts"),
        (("答案：A", 'options=["甲", 1]'), "2 to 26 texts"),
        (("答案：A", 'options=["甲", '), "not a JSON list"),
        (("答案：A", "multi_rule=loose"), "multi_rule=loose: must be strict or subset or jaccard"),
        (("答案：A", "format_weight=nan"), "format_weight=nan: must be a number from 0 to 1"),
        (("答案：A", "think_prefilled=yes"), "think_prefilled=yes: must be true or false"),
        ((b"\xff", "key=A"), "RESPONSE: not UTF-8"),
        (("-", "key=A"), "standard input: not UTF-8 (invalid start byte at byte 0)"),
    ],
)
def test_a_wrong_word_is_refused(words, expected):
    refused(run(*words, stdin=b"\xff"), expected)


def test_the_format_verdict_is_the_one_that_is_scored():
    for row in ROWS:
        fault = format_fault(row["response"], row["think_prefilled"])
        assert (fault is None) == is_well_formed(row["response"], row["think_prefilled"]), row["id"]
        assert fault != "not well-formed", row["id"]
