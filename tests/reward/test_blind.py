"""Sets of 60 honest responses and 60 hacks each, written by somebody who had not seen the rules, scored once, then
committed. Since then they are known: what is chosen on them is not blind.

As the first fell (2026-11-29): strict-match pays 0 of 60 hacks and reads 20 of 20 honest responses in the form;
flexible-extract is right on 54 of 60 hacks (3 are read that state nothing, 3 that commit themselves are not) and on 56
of 60 honest ones, and reads another letter on none.

As the second fell (2026-11-29, after the rules had been chosen on the first): strict-match pays 0 of 60 hacks;
flexible-extract is right on 57 of 60 hacks and on 50 of 60 honest responses, 89.2 % together, and reads another letter
on one, a list of two options called right. Then rules were chosen on it too.
"""

import json
from pathlib import Path

import pytest

from reward.answer import read_answer, read_strict_match


def rows(name: str) -> list[dict]:
    lines = (Path(__file__).parent / "blind" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(row: dict) -> list[str]:
    assert list(row["options"]) == sorted(row["options"])
    return list(row["options"].values())


@pytest.mark.parametrize("name", ["hacks", "honest", "second"])
def test_strict_match_reads_the_form_and_nothing_else(name):
    assert len(rows(name)) in (60, 120)
    for row in rows(name):
        assert read_strict_match(row["response"], texts(row)) == row["strict"], row["id"]


@pytest.mark.parametrize("names", [("hacks", "honest"), ("second",)])
def test_flexible_extract_is_right_on_nine_of_ten_and_reads_another_letter_on_none(names):
    right = 0
    for row in [row for name in names for row in rows(name)]:
        letters = read_answer(row["response"], texts(row))
        right += letters == row["flexible"]
        if row["flexible"] is not None:
            assert letters in (None, row["flexible"]), row["id"]
    assert right >= 0.9 * 120
