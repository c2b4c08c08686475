"""CPsyExam: no gold in any prompt, examples that depend on seed and item alone, averages that nobody mixes."""

import json
import random
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.prompts import question_messages, render
from data_pipeline.records import Response
from eval.benchmarks import cpsyexam as bench
from eval.contract import Judgement, Scoring
from eval.items import fingerprint
from eval.measure import read_all
from tests.eval.scored import figures

KINDS = {"single": "单项选择题", "multi": "多项选择题"}


def row(number: int, kind: str, answer: str | None, subject: str) -> dict:
    made = {
        "subject_name": subject, "question_type": kind, "kind": "knowledge", "question": f"{subject}第{number}题（ ）",
        "options": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": ""}, "explanation": f"解析{number}" * (number % 2),
        "id": f"{subject}-{kind}-{number}",
    }  # fmt: skip
    return made if answer is None else made | {"answer": answer}


def write(folder: Path, split: str, files: dict[str, list[dict]]) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / split / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def rows(family: str, subject: str, kind: str, keys: list[str | None]) -> dict[str, list[dict]]:
    return {f"{family}-GEE-{subject}-{KINDS[kind]}": [row(n, kind, key, subject) for n, key in enumerate(keys)]}


@pytest.fixture
def small(tmp_path) -> Path:
    """Train: two KG subjects, one CA; test: four cells, one with two subject files."""
    for kind, key in {"single": "A", "multi": "AB"}.items():
        write(tmp_path, "train", rows("KG", "普心", kind, [key] * 9) | rows("KG", "社心", kind, [key] * 2))
        write(tmp_path, "train", rows("CA", "诊断", kind, [key] * 6))
    write(tmp_path, "test", rows("KG", "普心", "single", ["A"] * 12) | rows("KG", "社心", "single", ["B"] * 4))
    write(tmp_path, "test", rows("KG", "普心", "multi", ["AB"] * 4) | rows("CA", "诊断", "single", ["C"] * 5))
    write(tmp_path, "test", rows("CA", "诊断", "multi", ["ABCD"] * 2))
    return tmp_path


def answered(items, letters) -> list[list[Response]]:
    return [[Response(f"<think>想</think>答案：{letters(item.question)}", "stop", 9)] for item in items]


def said(score: float | None, failed: bool = False) -> Judgement:
    return Judgement({"judge_score": score}, failed)


def prompts(items) -> list[str]:
    return [json.dumps(question_messages(i.question, i.shots), ensure_ascii=False) for i in items]


# --- no gold in the prompt --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [0, 5])
def test_the_prompt_of_every_test_question_is_the_same_whatever_its_answer(cpsyexam, tmp_path, shots):
    zipfile.ZipFile(cpsyexam / "cpsyexam.zip").extractall(tmp_path)
    shutil.copy(cpsyexam / "mapping.json", tmp_path)
    withheld = bench.load(tmp_path, shots=shots)
    assert len(withheld.items) + len(withheld.rejects) == 3902
    before = prompts(withheld.items)
    draw = random.Random(1)
    for _ in range(2):
        for file in (tmp_path / "test").glob("*.json"):
            changed = json.loads(file.read_bytes())
            for question in changed:
                question["answer"] = draw.choice("AB") if question["question_type"] == "single" else "AB"
                question["explanation"] = f"解析：正确答案就是{question['answer']}，口令{draw.random()}"
            file.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")
        after = bench.load(tmp_path, shots=shots)
        assert prompts(after.items) == before
        assert all(i.question.answer and "口令" in i.question.rationale for i in after.items)


@pytest.mark.parametrize("shots", [0, 5])
def test_the_prompt_of_every_train_question_is_the_same_whatever_its_answer(cpsyexam, shots):
    items = bench.load(cpsyexam, split="train", shots=shots).items
    before = prompts(items)
    changed = [
        replace(
            i, record=replace(i.question, answer="D" if i.question.answer != "D" else "A", rationale="口令"), shots=()
        )
        for i in items
    ]
    if shots:
        bench.add_shots(changed, cpsyexam, shots, 42)
    assert prompts(changed) == before


def test_examples_are_of_the_same_subject_never_the_question_itself(cpsyexam):
    loaded = bench.load(cpsyexam, split="train", shots=5)
    for item in loaded.items:
        stems = [bench.normalise(q.stem) for q in item.shots]
        assert len(set(stems)) == 5 and bench.normalise(item.question.stem) not in stems
        assert all(q.kind == item.question.kind and q.answer for q in item.shots)
    same = sum(q.meta["file"] == i.question.meta["file"] for i in loaded.items for q in i.shots)
    assert same > 0.98 * 5 * len(loaded.items)
    assert any("too few examples of their subject" in note for note in loaded.notes)


def test_examples_depend_on_seed_and_item_alone(small):
    items = bench.load(small, shots=5).items
    some = [replace(i, shots=()) for i in items[::-3]]
    bench.add_shots(some, small, 5, 42)
    whole = {i.question.id: i.shots for i in items}
    assert all(whole[i.question.id] == i.shots for i in some)
    assert [i.shots for i in bench.load(small, shots=5, seed=43).items] != [i.shots for i in items]


def test_too_few_examples_are_filled_from_the_same_family_and_type(small):
    loaded = bench.load(small, shots=5)
    item = next(i for i in loaded.items if i.question.id == "cpsyexam/test/KG-GEE-社心-单项选择题/4")
    assert [q.subject for q in item.shots] == ["社心"] * 2 + ["普心"] * 3
    assert {q.kind for q in item.shots} == {"single"}
    twin = next(i for i in loaded.items if i.question.id == "cpsyexam/test/KG-GEE-社心-单项选择题/1")
    assert [q.subject for q in twin.shots] == ["社心"] + ["普心"] * 4  # train holds its very question
    assert "4 of 27 items: too few examples of their subject, filled from the same family and type" in loaded.notes


def test_examples_stand_before_the_question_as_training_teaches_them(small):
    item = next(i for i in bench.load(small, shots=5).items if {bool(q.rationale) for q in i.shots} == {True, False})
    messages = question_messages(item.question, item.shots)
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 5, "user"]
    for shot, answer in zip(item.shots, messages[2::2], strict=True):
        thought = f"<think>\n{shot.rationale}\n</think>\n\n" if shot.rationale else ""
        assert answer["content"] == f"{thought}答案：{shot.answer}"
    assert messages[-1] == question_messages(item.question)[-1]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_item_weighted_and_subject_macro_averages_differ_and_are_named(small):
    items = bench.load(small).items
    found = figures("cpsyexam", items, answered(items, lambda q: "A"), resamples=50)
    accuracy = {c: found["cells"][c]["accuracy"] for c in bench.CELLS}
    assert accuracy == {"KG_single": 12 / 16, "KG_multi": 0, "CA_single": 0, "CA_multi": 0}
    assert found["item_weighted"]["KG"] == 12 / 20
    assert found["item_weighted"]["CA"] == 0
    assert found["item_weighted"]["all"] == 12 / 27
    # the files of single: 普心 1.0, 社心 0.0, 诊断 0.0; of multi: 0.0 and 0.0
    assert found["subject_macro"]["single"] == pytest.approx(1 / 3)
    assert (found["subject_macro"]["multi"], found["subject_macro"]["average"]) == (0, pytest.approx(1 / 6))
    assert {s: v["accuracy"] for s, v in found["subjects"].items()} == {"普心": 12 / 16, "社心": 0, "诊断": 0}
    assert found["cells"]["CA_multi"]["elastic"] == 0.25
    assert found["published_columns"]["kg_scq_zero_shot"] == 75
    low, high = found["item_weighted"]["all_ci"]
    assert low <= 12 / 27 <= high


def test_perfect_and_all_letter_answerers(small):
    items = bench.load(small, shots=5).items
    perfect = figures("cpsyexam", items, answered(items, lambda q: q.answer))
    assert set(perfect["published_columns"].values()) == {100}
    assert perfect["shots"] == 5 and "all_five_shot" in perfect["published_columns"]
    everything = figures("cpsyexam", items, answered(items, lambda q: "ABCD"))
    assert {c: everything["cells"][c]["accuracy"] for c in bench.CELLS}["CA_multi"] == 1
    assert everything["item_weighted"]["all"] == 2 / 27


def test_an_empty_cell_leaves_no_average_that_holds_it(small):
    items = [i for i in bench.load(small).items if i.cell != "KG_multi"]
    found = figures("cpsyexam", items, answered(items, lambda q: q.answer))
    assert found["item_weighted"]["KG"] is found["item_weighted"]["all"] is None
    assert found["item_weighted"]["CA"] == 1
    assert found["notes"] == ["no average that holds KG_multi: no answered item"]


def test_failures_stay_in_the_denominator(small):
    items = bench.load(small).items
    responses = [[Response("", "failed", 0, error="500")] for _ in items]
    responses[0] = [Response(f"答案：{items[0].question.answer}", "stop", 5)]
    found = figures("cpsyexam", items, responses)
    assert (found["items"], found["failed"], found["unreadable"]) == (27, 26, 0)
    assert found["item_weighted"]["all"] == 1 / 27


# --- the split without answers ----------------------------------------------------------------------------------------


def test_the_released_test_split_is_kept_for_the_submission(cpsyexam):
    loaded = bench.load(cpsyexam)
    assert Counter(i.cell for i in loaded.items) == {
        "KG_single": 2313,
        "KG_multi": 779,
        "CA_single": 598,
        "CA_multi": 200,
    }
    assert {r.code for r in loaded.rejects} == {"a gap in the option letters"}
    assert any("answers of split test are withheld" in note for note in loaded.notes)
    responses = answered(loaded.items, lambda q: "BA" if q.kind == "multi" else "A")
    responses[0] = [Response("不知道", "stop", 3)]
    found = figures("cpsyexam", loaded.items, responses)
    assert found["item_weighted"]["all"] is found["cells"]["KG_single"]["accuracy"] is None
    assert (found["items"], found["unreadable"]) == (3890, 1)
    half = bench.submission(read_all(loaded.items, responses, Scoring()))
    assert half is not None
    assert list(half) == ["zero_shot"]
    assert sum(map(len, half["zero_shot"].values())) == 3890
    asked = json.loads(zipfile.ZipFile(cpsyexam / "cpsyexam.zip").read("test/CA-心理咨询-多项选择题.json"))
    sent = half["zero_shot"]["CA-心理咨询-多项选择题"]
    assert [r["question_id"] for r in sent] == [r["id"] for r in asked]
    assert sent[0].keys() == {"question_id", "question", "options", "prediction", "n_shot"}
    assert {r["prediction"] for r in sent} == {"AB"}
    first = half["zero_shot"][loaded.items[0].question.meta["file"]][0]
    assert first["prediction"] == ""


def test_a_question_without_a_key_among_answered_ones_is_rejected(small):
    file = small / "test" / "CA-GEE-诊断-多项选择题.json"
    data = json.loads(file.read_bytes())
    del data[1]["answer"]
    file.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    loaded = bench.load(small)
    assert [(r.id, r.reason) for r in loaded.rejects] == [("cpsyexam/test/CA-GEE-诊断-多项选择题/2", "no answer")]
    assert fingerprint(loaded.items) != fingerprint(bench.load(small, split="train").items)


def test_bad_requests_are_refused(small, tmp_path):
    with pytest.raises(BadInput, match="shots=3: CPsyExam is published with 0 and 5"):
        bench.load(small, shots=3)
    with pytest.raises(BadInput, match=r"shots=5: CPsyExam is published with 0 \(QA\)"):
        bench.load(small, shots=5, qa=True)
    with pytest.raises(BadInput, match="no split 'dev'; there is test, train"):
        bench.load(small, split="dev")
    with pytest.raises(BadInput, match="no such file or folder"):
        bench.load(tmp_path / "absent")
    write(small, "test", rows("CA", "诊断", "multi", ["AB"] * 201))
    with pytest.raises(BadInput, match="another version of the benchmark: it holds CA_multi 201 instead of 200"):
        bench.load(small)


# --- open questions ---------------------------------------------------------------------------------------------------


def test_qa_is_read_and_scored_by_the_judges_figures(cpsyexam):
    loaded = bench.load(cpsyexam, qa=True)
    assert Counter(i.cell for i in loaded.items) == {"QA_analyse": 100, "QA_knowledge": 99}
    assert [r.reason for r in loaded.rejects] == ["no answer"]
    items = [i for i in loaded.items if i.cell == "QA_knowledge"][:4]
    responses = [[Response("要点一、要点二", "stop", 9)] for _ in items]
    responses[3] = [Response("", "failed", 0, error="500")]
    unjudged = figures("cpsyexam", items, responses)
    assert unjudged["cells"]["QA_knowledge"]["judge_score"] is None
    assert "gpt-4-0125-preview" in unjudged["notes"][0]
    # 80, 60, a judgement that cannot be read, and a response that failed: nothing to judge
    judgements = [[said(80.0)], [said(60.0)], [said(None)], [None]]
    found = figures("cpsyexam", items, responses, judgements=judgements)
    cell = found["cells"]["QA_knowledge"]
    assert (cell["judge_score"], cell["unreadable_judgements"], cell["failed"], cell["items"]) == (140 / 3, 1, 1, 4)
    assert (found["judge_missing"], found["judge_failed"]) == (1, 0)
    assert "1 judgements are missing (0 requests failed, 1 replies cannot be read)" in found["notes"][0]
    assert found["published_columns"] == found["item_weighted"] == {}


def test_the_judges_prompt_holds_question_reference_and_answer(cpsyexam):
    question = bench.load(cpsyexam, qa=True).items[0].question
    prompt = render(
        "judge_exam_answer", subject=question.subject, family=question.meta["family"], question=question.stem,
        reference=question.reference, answer="考生写的",
    )  # fmt: skip
    assert all(text in prompt for text in (question.subject, question.stem, question.reference, "考生写的"))
    assert prompt.endswith("分数：数字")
    assert question.reference not in question_messages(question)[1]["content"]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("分数：85", 85), ("要点齐全。\n分数：72.5", 72.5), ("**分数：90**", 90), ("分数：“60”。", 60), ("95", 95),
        ("88分", 88), ("分数: 70/100", 70), ("<think>大概 90 分</think>分数：40", 40), ("理由……\n\n最终得分：0分", 0),
        ("分数：８５", 85), ("分数：100", 100), ("分数：{77}", 77),
        ("", None), ("答得不错，可以给高分。", None), ("我认为 85 分比较合适，因为要点齐全", None), ("分数：120", None),
        ("分数：-5", None), ("分数：80\n分数：90", None), ("分数：优秀", None), ("分数：80到90", None),
        ("<think>分数：80", None), ("第1点给50，第2点给30", None), ("分数：85，理由是要点齐全", None), ("1000", None),
    ],
)  # fmt: skip
def test_a_judgement_is_read_or_it_is_none(reply, score):
    assert bench.read_judgement(reply) == score


def test_the_published_averages_of_the_leaderboard_are_item_weighted():
    """GPT-4, KG, zero-shot: 76.56 and 10.76 give the README's 59.99 with the split's counts."""
    counts = bench.RELEASE["test"]
    weighted = (76.56 * counts["KG_single"] + 10.76 * counts["KG_multi"]) / (counts["KG_single"] + counts["KG_multi"])
    assert round(weighted, 2) == 59.99
