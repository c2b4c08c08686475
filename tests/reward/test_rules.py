"""Every example of reward/rules.md reads and scores as the file says."""

import inspect
import json
import re

import pytest

from reward.answer import MAX_ANSWER_CHARS, read_answer, read_strict_match
from reward.psyche import MULTI_RULES, READINGS, compute_score
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "reward" / "rules.md").read_text(encoding="utf-8")
OPTIONS = ["视觉", "听觉", "思维", "想象"]
READERS = {"strict-match": read_strict_match, "flexible-extract": read_answer}


def examples() -> list[dict[str, str]]:
    """Returns a dict per row of the tables whose first column is `response`, by the table's headings."""
    rows, headings = [], None
    for line in TEXT.splitlines():
        cells = re.findall(r"\s*(`[^`]*`|[^|`]*?)\s*\|", line[1:]) if line.startswith("|") else None
        if cells is None:
            headings = None
        elif cells[0] == "response":
            headings = cells
        elif headings and not cells[0].startswith("--"):
            assert len(cells) == len(headings) and re.fullmatch("`.+`", cells[0]), line
            row = dict(zip(headings, (cell.strip("`") for cell in cells), strict=True))
            rows.append(row | {"response": row["response"].replace("↵", "\n").replace("\\|", "|")})
    return rows


EXAMPLES = examples()


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: row["response"].replace("\n", "↵"))
def test_an_example_of_the_rules_is_what_the_code_does(row):
    prefilled = row.get("think_prefilled") == "true"
    for name, reader in READERS.items():
        if name in row:
            assert (reader(row["response"], OPTIONS, prefilled) or "-") == row[name]
    if "score" in row:
        scores = compute_score("", row["response"], row["key"], {"options": OPTIONS}, **json.loads(row["kwargs"]))
        assert scores["score"] == pytest.approx(float(row["score"]))


def test_every_row_is_run_and_every_setting_explained():
    kwargs = len(
        re.findall(r"^\| `(?:reading|format_weight|multi_rule|format_gate|think_prefilled)`", TEXT, re.MULTILINE)
    )
    assert len(EXAMPLES) == len(re.findall(r"^\| `.*\n", TEXT, re.MULTILINE)) - kwargs > 55 and kwargs == 5
    assert {*READERS, "score"} <= {heading for row in EXAMPLES for heading in row}
    settings = list(inspect.signature(compute_score).parameters)[4:]
    assert all(word in TEXT for word in (*settings, *MULTI_RULES, *READINGS, f"{MAX_ANSWER_CHARS:,}"))
