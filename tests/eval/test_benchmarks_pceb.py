"""PCEB: the loader says what a folder holds, and answerers of known skill get the scores that arithmetic gives."""

import csv
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from data_pipeline.errors import BadInput
from data_pipeline.prompts import question_messages
from data_pipeline.records import LETTERS, Question, Response
from eval.benchmarks import pceb
from eval.contract import Item
from eval.items import fingerprint
from tests.conftest import DATA, REPOSITORY
from tests.eval.scored import figures

COLUMNS = {c: c for c in pceb.SINGLE} | {c: f"{c}_strict" for c in pceb.MULTI}


def answered(items, letters) -> list[list[Response]]:
    return [[Response(f"<think>想</think>答案：{letters(item.question)}", "stop", 9)] for item in items]


def every_cell(per_cell: int = 2) -> list[Item]:
    """One small question set in all six cells; keys rotate."""
    items = []
    for cell in pceb.SINGLE + pceb.MULTI:
        kind = cell.rsplit("_")[1]
        for n in range(per_cell):
            key = LETTERS[n % 4] if kind == "single" else "AB" if n % 2 else "ABCD"
            options = ["甲", "乙", "丙", "丁"]
            items.append(Item(Question(f"{cell}/{n}", "pceb", cell[:4], kind, f"题{n}", options, key), cell))
    return items


@pytest.fixture
def real(request) -> list[Item]:
    return [i for i in pceb.load(request.getfixturevalue("pceb")).items if i.cell != pceb.ESSAY]


# --- the loader -------------------------------------------------------------------------------------------------------


def test_the_part_that_is_here_is_told_from_the_full_release(request, tmp_path):
    folder = request.getfixturevalue("pceb")
    loaded = pceb.load(folder)
    counts = Counter(i.cell for i in loaded.items)
    if counts == pceb.RELEASE:
        pytest.skip("a full release")
    assert len(loaded.rejects) == 1
    notes = "\n".join(loaded.notes)
    assert "6 of the 35 released files are missing" in notes
    assert "cases/mix/simulation/17-18技能题.json" in notes and "moral/multiple/simulation/ (one file)" in notes
    assert "a full release holds case_single 748, case_multi 878, moral_single 152, moral_multi 158" in notes
    for cell, full in pceb.RELEASE.items():
        assert f"partial: {cell} has {counts[cell]} of {full} items" in notes
    shutil.copytree(folder, tmp_path / "题库 (1)")
    assert fingerprint(loaded.items) == fingerprint(pceb.load(tmp_path / "题库 (1)").items)


def write(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    row = {"question": "下列正确的是", "options": {"A": "甲", "B": "乙"}, "answer": "A"}
    (folder / "x.json").write_text(json.dumps([row] * rows), encoding="utf-8")


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        pceb.load(tmp_path / "absent")
    write(tmp_path / "more" / "moral" / "single" / "second", 153)
    with pytest.raises(BadInput, match="another version of the benchmark: it holds moral_single 153 instead of 152"):
        pceb.load(tmp_path / "more")
    write(tmp_path / "odd" / "moral" / "judgement", 1)
    with pytest.raises(BadInput, match="another version of PCEB: moral/judgement/x.json is in no cell"):
        pceb.load(tmp_path / "odd")


def test_a_partial_folder_is_read_with_notes(tmp_path):
    write(tmp_path / "moral" / "single" / "second", 3)
    loaded = pceb.load(tmp_path)
    assert [i.cell for i in loaded.items] == ["moral_single"] * 3
    assert "partial: moral_single has 3 of 152 items" in loaded.notes
    assert "35 of the 35 released files are missing" in loaded.notes[0]


# --- answerers whose score is known -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["own", "real"])
def test_answerers_of_known_skill_get_the_expected_scores(which, request):
    items = every_cell(8) if which == "own" else request.getfixturevalue("real")
    by_cell = {c: [i.question for i in items if i.cell == c] for c in pceb.SINGLE + pceb.MULTI}

    def cells(letters, **options):
        found = figures("pceb", items, answered(items, letters), **options)
        assert found["unreadable"] == 0
        assert found["average_strict"] == pytest.approx(sum(found["cells"][c]["accuracy"] for c in by_cell) / 6)
        singles = [found["cells"][c]["accuracy"] for c in pceb.SINGLE]
        multis = [found["cells"][c]["elastic"] for c in pceb.MULTI]
        assert found["average_elastic"] == pytest.approx(sum(singles + multis) / 6)
        return found["cells"]

    def share(questions, credit):
        return pytest.approx(sum(credit(q) for q in questions) / len(questions))

    everything = lambda q: LETTERS[: len(q.options)]  # noqa: E731
    perfect, always_a, all_letters = cells(lambda q: q.answer), cells(lambda q: "A"), cells(everything)
    jaccard = cells(everything, elastic_rule="jaccard")
    for cell, questions in by_cell.items():
        assert perfect[cell]["accuracy"] == perfect[cell]["elastic"] == 1
        assert always_a[cell]["accuracy"] == share(questions, lambda q: q.answer == "A")
        assert always_a[cell]["elastic"] == share(questions, lambda q: ("A" in q.answer) / len(q.answer))
        assert all_letters[cell]["accuracy"] == share(questions, lambda q: q.answer == everything(q))
        assert all_letters[cell]["elastic"] == all_letters[cell]["accuracy"]
        assert jaccard[cell]["elastic"] == share(questions, lambda q: len(q.answer) / len(q.options))


@pytest.mark.parametrize("which", ["own", "real"])
def test_a_random_answerer_scores_as_chance_says(which, request):
    items = every_cell(400) if which == "own" else request.getfixturevalue("real")
    draw = random.Random(5)

    def letters(question):
        size = len(question.options)
        if question.kind == "single":
            return LETTERS[draw.randrange(size)]
        bits = draw.randrange(1, 2**size)  # every non-empty selection alike
        return "".join(LETTERS[i] for i in range(size) if bits >> i & 1)

    found = figures("pceb", items, answered(items, letters))
    for cell in pceb.SINGLE + pceb.MULTI:
        sizes = [len(i.question.options) for i in items if i.cell == cell]
        chances = [1 / n if cell in pceb.SINGLE else 1 / (2**n - 1) for n in sizes]
        spread = math.sqrt(sum(p * (1 - p) for p in chances)) / len(chances)
        assert abs(found["cells"][cell]["accuracy"] - sum(chances) / len(chances)) < 4 * spread


# --- scores -----------------------------------------------------------------------------------------------------------


def test_failures_stay_in_the_denominator_of_every_cell():
    items = every_cell(4)
    responses = answered(items, lambda q: q.answer)
    for n in range(0, len(items), 4):
        responses[n] = [Response("", "failed", 0, error="timeout")]
        responses[n + 1] = [Response("<think>想不完", "length", 2048)]
    found = figures("pceb", items, responses, resamples=50)
    assert found["average_strict"] == found["average_elastic"] == 0.5
    assert (found["items"], found["failed"], found["cut_by_length"], found["unreadable"]) == (24, 6, 6, 6)
    assert all(cell["items"] == 4 for name, cell in found["cells"].items() if name != pceb.ESSAY)
    assert found["average_strict_ci"][0] <= 0.5 <= found["average_strict_ci"][1]
    assert {s: v["accuracy"] for s, v in found["subjects"].items()} == {"case": 0.5, "mora": 0.5, "theo": 0.5}
    assert "inferred, not published" in found["elastic_rule_source"]
    assert found["complete"] is False


def test_a_cell_without_items_leaves_no_average():
    items = [i for i in every_cell() if i.cell != "moral_multi"]
    found = figures("pceb", items, answered(items, lambda q: q.answer))
    assert found["cells"]["moral_multi"]["accuracy"] is None
    assert found["average_strict"] is found["average_elastic"] is found["average_strict_ci"] is None
    assert found["notes"] == ["no averages: moral_multi without items"]
    assert found["published_columns"]["avg_strict"] is None
    assert found["published_columns"]["case_single"] == 100


def test_several_samples_give_the_mean_and_pass_at_k():
    items = every_cell(1)
    responses = [
        [Response(f"答案：{i.question.answer}", "stop", 1)] + [Response("不知道", "stop", 1)] * 3 for i in items
    ]
    found = figures("pceb", items, responses)
    assert found["average_strict"] == 0.25
    assert found["cells"]["case_single"]["pass_at"] == {"1": 0.25, "2": 0.5, "4": 1.0}
    assert found["samples"] == 4 and found["responses"] == 24


def test_an_unknown_elastic_rule_is_refused():
    items = every_cell(1)
    with pytest.raises(BadInput, match="elastic_rule=dice: known are subset, jaccard"):
        figures("pceb", items, answered(items, lambda q: "A"), elastic_rule="dice")


def test_essays_are_compared_by_their_answer_part_and_failures_are_nought():
    reference = "求助者的主要问题是考试焦虑，建议进行放松训练，并与家长沟通。"
    items = [
        Item(Question(f"e{n}", "pceb", "案例", "open", "请分析", [], "", reference=reference), pceb.ESSAY) for n in "ab"
    ]
    right, failed = Response(f"<think>别的话</think>{reference}", "stop", 9), Response(reference, "failed", 0)
    unclosed = Response(f"<think>{reference}", "length", 9)
    cell = figures("pceb", items, [[right], [right]])["cells"][pceb.ESSAY]
    half = figures("pceb", items, [[right], [failed]])["cells"][pceb.ESSAY]
    assert cell["rouge_1_count"] == pytest.approx(100) and cell["rouge_1_count_ci"] is None, "two that are alike"
    assert half["rouge_1_count_ci"] is not None
    for name in ("rouge_1_set", "rouge_l_count", "bleu_4_word", "bleu_4_char"):
        assert half[name] == pytest.approx(cell[name] / 2)
    found = figures("pceb", items, [[unclosed], [failed]])["cells"][pceb.ESSAY]
    assert (found["rouge_1_count"], found["unreadable"], found["cut_by_length"], found["failed"]) == (0, 1, 1, 1)


def test_the_prompt_of_an_essay_asks_for_no_letters(request):
    essay = next(i.question for i in pceb.load(request.getfixturevalue("pceb")).items if i.cell == pceb.ESSAY)
    messages = question_messages(essay)
    assert "选项" not in messages[0]["content"]
    assert "问答题：" in messages[1]["content"] and essay.context in messages[1]["content"]
    assert essay.reference not in messages[1]["content"]


# --- the published table ----------------------------------------------------------------------------------------------


def published() -> list[dict]:
    return yaml.safe_load((REPOSITORY / "recipes/published/pceb.yaml").read_text(encoding="utf-8"))["results"]


def test_both_averages_of_all_18_rows_follow_from_their_cells():
    rows = published()
    assert len(rows) == 18
    for row in rows:
        strict, elastic = pceb.averages(
            {c: row[column] for c, column in COLUMNS.items()}, {c: row[f"{c}_elastic"] for c in pceb.MULTI}
        )
        assert strict == pytest.approx(row["avg_strict"], abs=0.01), row["model"]
        assert elastic == pytest.approx(row["avg_elastic"], abs=0.01), row["model"]


def test_the_columns_of_a_result_are_those_of_the_published_table():
    items = every_cell(1)
    columns = figures("pceb", items, answered(items, lambda q: q.answer))["published_columns"]
    assert columns.keys() <= published()[0].keys()
    assert set(columns.values()) == {100.0}


def test_the_published_rows_are_those_that_were_collected():
    file = DATA.parent / "facts" / "published_pceb.csv"
    if not file.is_file():
        pytest.skip("published_pceb.csv is not at hand")
    with file.open(encoding="utf-8") as lines:
        collected = {row.pop("model"): row for row in csv.DictReader(lines)}
    rows = {row["model"]: row for row in published()}
    assert rows.keys() == collected.keys()
    for model, row in collected.items():
        assert {k: float(v) for k, v in row.items() if k != "source"} == {
            k: rows[model][k] for k in row if k != "source"
        }
