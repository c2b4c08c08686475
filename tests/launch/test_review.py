"""People's verdicts come into a run that exists by the same command; those on another content are told, not applied."""

import json
from pathlib import Path

import pytest

from data_pipeline.records import read_jsonl, write_jsonl
from tests.conftest import REPOSITORY, launch

STEP = "data/steps/questions/5_review"


@pytest.fixture(scope="module")
def made(run_name) -> tuple[str, list[dict]]:
    """Returns (name of a finished run, its sheet)."""
    done = launch("data", "recipe=demo", f"run={run_name}")
    assert done.returncode == 0, done.stderr
    return run_name, [row for _, row in read_jsonl(REPOSITORY / "runs" / run_name / STEP / "sample.jsonl")]


def judged(path: Path, rows: list[dict], verdicts: dict[int, str]) -> Path:
    write_jsonl(path, [row | {"verdict": verdicts.get(n, ""), "reviewer": path.stem} for n, row in enumerate(rows)])
    return path


def report(run: str) -> dict:
    return json.loads((REPOSITORY / "runs" / run / STEP / "report.json").read_text(encoding="utf-8"))


def test_verdicts_and_more_of_them_go_on_with_the_same_command(made, tmp_path):
    run, rows = made
    li = judged(tmp_path / "li.jsonl", rows, {0: "rejected", 1: "accepted"})
    command = ["recipe=demo", f"run={run}", f"synthesis.review.verdicts=[{li}]"]
    done = launch("data", *command)
    assert done.returncode == 0, done.stderr
    assert "review: " in done.stdout and "clean: " not in done.stdout
    assert report(run)["outcomes"] == {"accepted": 1, "rejected": 1}
    assert "is done already" in launch("data", *command).stdout

    judged(li, rows, {0: "rejected", 1: "rejected"})  # more verdicts in the same file
    assert launch("data", *command).returncode == 0 and report(run)["outcomes"] == {"rejected": 2}

    changed = [row | {"content": "0" * 12} if n == 2 else row for n, row in enumerate(rows)]
    wang = judged(tmp_path / "wang.jsonl", changed, {2: "rejected", 3: "accepted"})
    done = launch("data", *command[:2], f"synthesis.review.verdicts=[{li},{wang}]")
    assert done.returncode == 0, done.stderr
    told = "".join(done.stdout.split())
    assert "".join(f"{wang} row 3: {rows[2]['id']}: the question has changed since".split()) in told
    assert report(run)["outcomes"] == {"accepted": 1, "rejected": 2}
    outdated = list(read_jsonl(REPOSITORY / "runs" / run / STEP / "outdated.jsonl"))
    assert [row["id"] for _, row in outdated] == [rows[2]["id"]]


def test_agreement_is_told_and_a_judged_row_is_traced_to_its_end(made, tmp_path):
    run, rows = made
    several = next(n for n, row in enumerate(rows) if n > 2 and row["kind"] == "multi")
    answer = "BD" if rows[several]["answer"] != "BD" else "AC"
    sheets = []
    for name, second in (("li", "rejected"), ("wang", "accepted")):
        said = {0: "rejected", 1: second, 2: "accepted", several: "corrected"}
        sheets.append(judged(tmp_path / f"{name}.jsonl", rows, said))
        filled = [
            row | {"corrected_answer": answer * (n == several)} for n, (_, row) in enumerate(read_jsonl(sheets[-1]))
        ]
        write_jsonl(sheets[-1], filled)
    done = launch("data", "recipe=demo", f"run={run}", f"synthesis.review.verdicts=[{','.join(map(str, sheets))}]")
    assert done.returncode == 0, done.stderr
    told = "Cohen's kappa 0.64, 75% of pairs of verdicts equal, on 4 questions that two or more of 2 reviewers judged"
    assert f"questions/5_review: {told}" in done.stdout
    assert told in (REPOSITORY / "runs" / run / "data/datacard.md").read_text(encoding="utf-8")

    def traced(row: int) -> str:
        return launch("lineage", f"run={run}", f"row={rows[row]['id']}").stdout

    assert "ended: rejected by questions/5_review: rejected by people: li: rejected; wang: rejected" in traced(0)
    assert "ended: rejected by questions/5_review: reviewers disagree" in traced(1)
    corrected = traced(several)
    assert f'"answer": "{answer}"' in corrected and '"verdict": "corrected", "reviewers": ["li", "wang"]' in corrected
    assert "generate_questions: " in corrected and "ended: " in corrected


def test_a_limit_may_grow(made):
    run, _ = made
    done = launch("data", "recipe=demo", f"run={run}", "limit=29")
    assert done.returncode == 0 and "29 in" in done.stdout, done.stderr
