"""Every example of reward/rules.md reads and scores as the file says."""

import inspect
import json
import re

import pytest

from reward.answer import MAX_ANSWER_CHARS, read_answer
from reward.psyche import MULTI_RULES, compute_score, is_well_formed
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "reward" / "rules.md").read_text(encoding="utf-8")
OPTIONS = "视觉,听觉,思维,想象"


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
            rows.append(row | {"response": row["response"].replace("↵", "\n")})
    return rows


EXAMPLES = examples()


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: row["response"].replace("\n", "↵"))
def test_an_example_of_the_rules_is_what_the_code_does(row):
    options, prefilled = row.get("options", OPTIONS).split(","), row.get("think_prefilled") == "true"
    if "reading" in row:
        assert (read_answer(row["response"], options, prefilled) or "-") == row["reading"]
    if "format" in row:
        assert is_well_formed(row["response"], prefilled) == bool(int(row["format"]))
    if "score" in row:
        found = compute_score("", row["response"], row["key"], {"options": options}, **json.loads(row["kwargs"]))
        assert found["score"] == pytest.approx(float(row["score"]))


def test_every_row_is_run_and_every_setting_explained():
    assert len(EXAMPLES) == len(re.findall(r"^\| `.*\n", TEXT, re.MULTILINE)) - 4 > 80  # 4: the table of reward_kwargs
    assert {"reading", "format", "score"} <= {heading for row in EXAMPLES for heading in row}
    settings = list(inspect.signature(compute_score).parameters)[4:]
    assert all(word in TEXT for word in (*settings, *MULTI_RULES, f"{MAX_ANSWER_CHARS:,}"))
