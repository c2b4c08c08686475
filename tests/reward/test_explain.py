"""`python -m reward.explain`, run as a user runs it."""

import subprocess
import sys

import pytest

from reward.answer import read_strict_match
from reward.explain import form_fault
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
    told = explain("<think>因为听觉</think>答案：B", OPTIONS, "key=B")
    for part in ("4 characters", "B=听觉", "strict-match      B: in the form", "flexible-extract  B: stated"):
        assert part in told
    assert "B announced <- '答案:B'" in told and "readable          1" in told
    assert told.strip().endswith("= 0.1 x format 1 + 0.9 x credit 1 (B for the key B by strict_match, strict) = 1")


def test_both_readings_are_shown_and_one_pays():
    words = ("<think>因为</think>故选 A、C。", OPTIONS, "key=A、C")
    told = explain(*words)
    assert "strict-match      unreadable: after the thought, not one line `答案：`" in told
    assert "flexible-extract  AC: stated" in told and told.strip().endswith("by strict_match, strict) = 0")
    told = explain(*words, "reading=flexible_extract")
    assert told.strip().endswith("credit 1 (AC for the key AC by flexible_extract, strict) = 0.9")


def test_what_is_unreadable_or_malformed_says_why():
    told = explain("答案：A 或 B", OPTIONS, "key=B")
    assert "none announced <- '答案:A 或 B'" in told and "unreadable: no answer" in told and "no thought" in told
    assert told.strip().endswith("credit 0 (nothing for the key B by strict_match, strict) = 0")
    assert "if the chat template opens it: think_prefilled=true" in explain("因为</think>答案：B", OPTIONS)


def test_the_settings_of_the_recipe_are_taken():
    told = explain("因为</think>答案：A", OPTIONS, "key=BA", "think_prefilled=true", "multi_rule=subset")
    assert "credit 0.5 (A for the key AB by strict_match, subset) = 0.55" in told
    gate = ("format_gate=true", "format_weight=0.2", "reading=flexible_extract")
    assert "0.8 x credit 0 (format_gate: 1 only in the form) = 0" in explain("答案：A", OPTIONS, "key=A", *gate)


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
        (("答案：A", OPTIONS, "key=E"), "key='E': must be letters of A to D"),
        (("答案：A", OPTIONS, "key="), "key='': must be letters of A to D"),
        (("答案：A", "options=甲"), "options=甲: 2 to 26 texts"),
        (("答案：A", "options=甲,,乙"), "2 to 26 texts"),
        (("答案：A", 'options=["甲", 1]'), "2 to 26 texts"),
        (("答案：A", 'options=["甲", '), "not a JSON list"),
        (("答案：A", "multi_rule=loose"), "multi_rule=loose: must be strict or subset or jaccard"),
        (("答案：A", OPTIONS, "key=甲"), "key='甲': must be letters of A to D"),
        (("答案：A", "reading=loose"), "reading=loose: must be strict_match or flexible_extract"),
        (("答案：A", "format_weight=nan"), "format_weight=nan: must be a number from 0 to 1"),
        (("答案：A", "think_prefilled=yes"), "think_prefilled=yes: must be true or false"),
        ((b"\xff", "key=A"), "RESPONSE: not UTF-8"),
        (("-", "key=A"), "standard input: not UTF-8 (invalid start byte at byte 0)"),
    ],
)
def test_a_wrong_word_is_refused(words, expected):
    refused(run(*words, stdin=b"\xff"), expected)


def test_the_verdict_on_the_form_is_the_one_that_is_scored():
    for row in ROWS:
        given = (row["response"], row["options"], row["think_prefilled"])
        assert (form_fault(*given) is None) == (read_strict_match(*given) is not None), row["id"]
