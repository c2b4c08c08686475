"""Samples go out to people and verdicts come back: through spreadsheets, with agreement, and every change on record."""

import csv
import io
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from nltk.metrics.agreement import AnnotationTask
from pydantic import ValidationError

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, note, read_jsonl, write_jsonl
from data_pipeline.steps import Result, check_balance
from data_pipeline.steps.review import Settings, agreement, apply, sample
from data_pipeline.synthesis import apply as synthesis
from data_pipeline.verdicts import (
    FILLED,
    Judged,
    Verdict,
    content_hash,
    read_verdicts,
    sample_rows,
    write_sample,
)
from tests.data_pipeline.tables.workbooks import write_workbook


def question(number: int, subject: str = "普通心理学", kind: str = "single", **more) -> Question:
    stem = f"第{number}题：下列现象中，属于知觉恒常性的是（　　）。“引号”,逗号\n第二行"
    options = [f"现象{number}甲", "-0.5", "=1+1", "从远处看人仍觉得一样高"]
    made = Question(f"q{number}", "passages", subject, kind, stem, options, "D", meta={}, **more)
    note(made, "generate_questions", row=f"p{number}", sample=0, prompt="abc")
    return made


QUESTIONS = [question(i) for i in range(6)]


def judge(path, rows: list[dict], name: str, verdicts: dict[str, tuple], encoding: str = "utf-8-sig", **change):
    """Writes a reviewer's copy as a spreadsheet does; `verdicts` is {id: (verdict, corrected answer, comment)}."""
    folder = path.parent / f"of_{path.stem}"
    folder.mkdir()
    text = write_sample(folder, rows)["sample.csv"].read_bytes().decode("utf-8-sig")
    header, *cells = csv.reader(io.StringIO(text, newline=""))
    places = {name: header.index(name) for name in ("id", "content", "stem", *FILLED)}
    for row in cells:
        if row[places["id"]] in verdicts:
            given = (*verdicts[row[places["id"]]], "", "")[:3]
            for column, value in zip(FILLED, (*given, name), strict=True):
                row[places[column]] = value
    for column, value in change.items():  # in the first row
        cells[0][places[column]] = value
    table = io.StringIO(newline="")
    csv.writer(table, delimiter="\t" if encoding == "utf-16" else ",").writerows([header, *cells])
    path.write_bytes(table.getvalue().encode(encoding))
    return path


def decided(questions: list[Question], verdicts: list[Verdict], settings: Settings) -> Result:
    return synthesis.selected("review", questions, apply(questions, Judged(verdicts, []), settings))


def fresh() -> list[Question]:
    return [replace(q, meta={"trail": list(q.meta["trail"])}) for q in QUESTIONS]


def test_the_sample_has_every_stratum_and_the_shares_of_all():
    sizes = {
        ("普通心理学", "single"): 600,
        ("普通心理学", "multi"): 300,
        ("变态心理学", "single"): 99,
        ("统计", "multi"): 1,
    }
    pool = [question(i, *stratum) for i, stratum in enumerate(s for s, n in sizes.items() for _ in range(n))]
    places = sample(pool, 100, seed=1)
    drawn = [pool[place] for place in places]
    counts = Counter((q.subject, q.kind) for q in drawn)
    assert len(drawn) == 100 and counts[("统计", "multi")] == 1
    for stratum, size in sizes.items():
        assert abs(counts[stratum] - size / 10) <= 1.1
    assert places == sample(pool, 100, seed=1) == sorted(places) != sample(pool, 100, seed=2)
    assert len(sample(pool, 5000, seed=1)) == len(pool)


def test_questions_of_different_steps_are_different_strata():
    pool = [question(i) for i in range(50)] + [replace(question(99), meta={})]
    assert 50 in sample(pool, 2, seed=3)


def test_the_sheet_opens_in_a_spreadsheet_and_computes_nothing(tmp_path):
    numbered = replace(QUESTIONS[0], id="001")
    paths = write_sample(tmp_path, sample_rows([numbered, replace(QUESTIONS[1], options=["甲", "乙"], answer="A")]))
    content = paths["sample.csv"].read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    header, first, second = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert ",".join(header) == (
        "id,content,subject,kind,context,stem,A,B,C,D,answer,rationale,verdict,corrected_answer,comment,reviewer"
    )
    assert first[0] == "'001" and first[5] == numbered.stem
    assert first[6:10] == ["现象0甲", "'-0.5", "'=1+1", "从远处看人仍觉得一样高"] and second[6:10] == [
        "甲",
        "乙",
        "",
        "",
    ]
    rows = [row for _, row in read_jsonl(paths["sample.jsonl"])]
    assert rows == sample_rows([numbered, replace(QUESTIONS[1], options=["甲", "乙"], answer="A")])
    judged = judge(tmp_path / "li.csv", rows, "李", {"'001": ("接受",)})
    assert read_verdicts([judged], [numbered]).verdicts[0].id == "001"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "gb18030", "utf-16"])
def test_verdicts_come_back_however_the_sheet_was_saved(tmp_path, encoding):
    given = {"q0": ("接受",), "q1": ("修改", "a", "选项甲才对"), "q3": ("Rejected", "", "题干不清")}
    path = judge(tmp_path / "li.csv", sample_rows(QUESTIONS), "李老师", given, encoding)
    assert [
        (v.id, v.reviewer, v.verdict, v.corrected_answer, v.comment) for v in read_verdicts([path], QUESTIONS).verdicts
    ] == [
        ("q0", "李老师", "accepted", "", ""),
        ("q1", "李老师", "corrected", "A", "选项甲才对"),
        ("q3", "李老师", "rejected", "", "题干不清"),
    ]


def test_verdicts_come_back_in_a_workbook(tmp_path):
    header, *cells = csv.reader(
        io.StringIO(judge(tmp_path / "li.csv", sample_rows(QUESTIONS), "李", {}).read_text("utf-8-sig"))
    )
    places = {name: header.index(name) for name in FILLED}
    for name, text in zip(FILLED, ("修改", "a", "3", "李"), strict=True):
        cells[1][places[name]] = text
    path = write_workbook(tmp_path / "li.xlsx", {"sample": [header, *cells]})
    (verdict,) = read_verdicts([path], QUESTIONS).verdicts
    assert (verdict.id, verdict.verdict, verdict.corrected_answer, verdict.comment) == ("q1", "corrected", "A", "3")
    assert verdict.where == f"{path} sheet sample row 3"


def test_the_jsonl_of_the_review_page_is_read_too(tmp_path):
    rows = sample_rows(QUESTIONS)
    rows[2] |= {"verdict": "corrected", "corrected_answer": "B", "reviewer": "王"}
    rows[4] |= {"verdict": "accepted"}  # the file has one name: it is all theirs
    write_jsonl(tmp_path / "wang.jsonl", rows)
    found = read_verdicts([tmp_path / "wang.jsonl"], QUESTIONS).verdicts
    assert [(v.id, v.reviewer, v.corrected_answer) for v in found] == [("q2", "王", "B"), ("q4", "王", "")]
    assert found[0].where == f"{tmp_path / 'wang.jsonl'} row 3"


def test_kappas_equal_those_of_nltk():
    rng = random.Random(4)
    words = ["accepted"] * 6 + ["corrected"] * 2 + ["rejected"]
    for reviewers in ("ab", "abc", "abcde"):
        verdicts = []
        for number in range(120):
            common = rng.choice(words)
            for name in reviewers:
                word = common if rng.random() < 0.7 else rng.choice(words)
                verdicts.append(Verdict(f"q{number}", name, word, "", "", ""))
        task = AnnotationTask([(v.reviewer, v.id, v.verdict) for v in verdicts])
        found = agreement(verdicts)
        assert found["questions"] == 120 and found["reviewers"] == list(reviewers)
        assert found["kappa"] == pytest.approx(task.kappa() if len(reviewers) == 2 else task.pi(), abs=1e-4)
        assert found["agreed"] == pytest.approx(task.avg_Ao(), abs=1e-4)


def test_kappa_of_a_published_example():
    # Fleiss 1971 in the form of the usual worked example: ten subjects, fourteen raters, five categories, kappa 0.210
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
             [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    verdicts = []
    for subject, counts in enumerate(table):
        words = [str(category) for category, count in enumerate(counts) for _ in range(count)]
        verdicts += [Verdict(str(subject), f"r{rater:02}", word, "", "", "") for rater, word in enumerate(words)]
    assert agreement(verdicts)["kappa"] == pytest.approx(0.210, abs=5e-4)
    assert agreement(verdicts)["measure"] == "Fleiss"


def test_kappa_is_not_claimed_where_it_says_nothing():
    same = [Verdict(f"q{i}", name, "accepted", "", "", "") for i in range(9) for name in "ab"]
    assert (agreement(same)["kappa"], agreement(same)["agreed"]) == (None, 1.0)
    assert agreement(same[::2])["questions"] == 0 and agreement(same[::2])["kappa"] is None
    assert agreement(same, adjudicator="b")["questions"] == 0


def verdicts_of(**judged) -> list[Verdict]:
    """{"q1": "aA-"}: first reviewer accepts, second corrects to A, third rejects; a blank: not judged."""
    verdicts = []
    for id, marks in judged.items():
        for name, mark in zip(("李", "王", "张"), marks, strict=False):
            word = {"a": "accepted", "-": "rejected", " ": ""}.get(mark, "corrected")
            if word:
                verdicts.append(Verdict(id, name, word, mark if word == "corrected" else "", f"{name}说", "x"))
    return verdicts


def test_what_most_say_is_done_and_put_on_record():
    questions = fresh()
    questions[1].rationale = "因为……所以选D"
    result = decided(questions, verdicts_of(q0="aa-", q1="AAa", q2="--a", q3="a-", q4="AB"), Settings())
    check_balance("review", [q.id for q in QUESTIONS], result)
    assert [q.id for q in result.rows] == ["q0", "q1", "q5"]
    corrected = result.rows[1]
    assert (corrected.answer, corrected.rationale) == ("A", "")
    assert corrected.meta["trail"][-1] == {
        "step": "review", "verdict": "corrected", "reviewers": ["李", "王", "张"], "field": "answer", "old": "D",
        "new": "A", "old_rationale": "因为……所以选D",
    }  # fmt: skip
    assert result.rows[0].meta["trail"][-1]["verdict"] == "accepted" and len(result.rows[2].meta["trail"]) == 1
    reasons = {r.id: r.reason for r in result.rejects}
    assert reasons["q2"].startswith("rejected by people") and "李说" in reasons["q2"]
    assert reasons["q3"].startswith("reviewers disagree") and reasons["q4"].startswith("reviewers disagree")
    assert [d["id"] for d in result.files["disagreements"]] == ["q0", "q1", "q2", "q3", "q4"]
    assert result.files["disagreements"][4]["verdicts"] == {"李": "corrected A", "王": "corrected B"}
    counts = {key: result.report[key] for key in ("in", "out", "rejected", "reviewed")}
    assert counts == {"in": 6, "out": 3, "rejected": 3, "reviewed": 5}
    assert result.report["outcomes"] == {"accepted": 1, "corrected": 1, "rejected": 1, "undecided": 2}


def test_an_adjudicator_decides_and_undecided_ones_may_stay():
    given = verdicts_of(q3="a-", q4="ABB")
    settled = decided(fresh(), given, Settings(adjudicator="李"))
    assert [q.answer for q in settled.rows] == ["D", "D", "D", "D", "A", "D"] and not settled.rejects
    kept = decided(fresh(), given[:2], Settings(undecided="keep"))
    assert len(kept.rows) == 6 and kept.rows[3].meta["trail"][-1]["verdict"] == "undecided"


def test_without_verdicts_all_rows_pass_and_the_report_says_so(tmp_path):
    result = synthesis.run("review", fresh(), Settings(size=3))
    assert len(result.rows) == 6 and len(result.files["sample"]) == 3
    assert (result.report["reviewed"], result.report["sample"]) == (0, 3)
    assert result.report["told"].startswith("not reviewed by people")
    ids = [row["id"] for row in result.files["sample"]]
    li = judge(tmp_path / "li.csv", result.files["sample"], "李", {ids[0]: ("拒绝",), ids[1]: ("接受",)})
    wang = judge(tmp_path / "wang.csv", result.files["sample"], "王", {ids[0]: ("拒绝",), ids[1]: ("修改", "B")})
    reviewed = synthesis.run("review", fresh(), Settings(size=3, verdicts=[str(li), str(wang)]))
    check_balance("review", [q.id for q in QUESTIONS], reviewed)
    assert {r.id for r in reviewed.rejects} == set(ids[:2])
    kappa = "Cohen's kappa 0.33, 50% of pairs of verdicts equal, on 2 questions that two or more of 2 reviewers judged"
    assert reviewed.report["told"] == kappa
    assert reviewed.report["unjudged"] == 1 and reviewed.report["agreement"]["measure"] == "Cohen"
    assert reviewed.files["sample"] == result.files["sample"]


WRONG = {
    "an unknown id": ({"id": "q77"}, ("row 2, id", "'q77' is no question of this run", "sample.csv")),
    "ids mixed up by sorting": ({"id": "q3"}, ("row 2, content", "is that of 'q0', not of 'q3'", "sort")),
    "stems mixed up by sorting": ({"stem": "毫不相干的另一道题"}, ("row 2, stem", "not the stem of 'q0'", "sort")),
    "an unknown verdict": ({"verdict": "不确定"}, ("row 2, verdict", "'不确定'", "接受")),
    "no corrected answer": ({"verdict": "修改"}, ("row 2, corrected_answer", "empty")),
    "an answer beyond the options": (
        {"verdict": "corrected", "corrected_answer": "E"},
        ("row 2, corrected_answer", "beyond the options: E", "A to D"),
    ),
    "two letters on a single": ({"verdict": "corrected", "corrected_answer": "A、B"}, ("several letters",)),
    "the same answer": ({"verdict": "corrected", "corrected_answer": "D"}, ("'D' is the answer that stands",)),
    "an answer out of place": ({"corrected_answer": "B"}, ("row 2, corrected_answer", "accepted")),
    "an answer without a verdict": ({"verdict": "", "corrected_answer": "B"}, ("row 2, verdict", "''")),
    "no name": ({"reviewer": ""}, ("row 2, reviewer", "write who judged")),
}


@pytest.mark.parametrize("change, expected", WRONG.values(), ids=list(WRONG))
def test_a_wrong_cell_is_named_with_its_cure(tmp_path, change, expected):
    stems = [replace(q, stem=f"{'甲乙丙丁戊己'[i] * 12}{q.stem}") for i, q in enumerate(QUESTIONS)]
    path = judge(tmp_path / "li.csv", sample_rows(stems), "李", {"q0": ("accepted",)}, **change)
    with pytest.raises(BadInput) as error:
        read_verdicts([path], stems)
    assert str(path) in str(error.value)
    for text in expected:
        assert text in str(error.value)


def test_a_verdict_holds_for_the_content_that_was_judged_and_for_no_other(tmp_path):
    given = {"q0": ("拒绝",), "q1": ("接受",), "q2": ("拒绝",), "q3": ("修改", "A")}
    path = judge(tmp_path / "li.csv", sample_rows(QUESTIONS), "李", given)
    now = [question for question in fresh() if question.id != "q2"]
    now[0].options[0] = "另一个现象"
    now[1].meta["trail"].append({"step": "filter_quality"})  # what no reviewer sees
    judged = read_verdicts([path], now)
    assert [(v.id, v.verdict) for v in judged.verdicts] == [("q1", "accepted"), ("q3", "corrected")]
    assert [(one.id, one.where, one.why) for one in judged.outdated] == [
        ("q0", f"{path} row 2", "the question has changed since"),
        ("q2", f"{path} row 4", "there is no question of this id any more"),
    ]
    step = apply(now, judged, Settings())
    assert step.rejects == {} and f"\n  {path} row 2: q0: the question has changed since" in step.told
    assert [one["id"] for one in step.files["outdated"]] == ["q0", "q2"]
    assert synthesis.run("review", now, Settings(verdicts=[str(path)])).report["reviewed"] == 2


def test_the_hash_is_of_what_a_reviewer_sees():
    seen = {"subject": "x", "kind": "multi", "context": "x", "stem": "x", "options": ["x"], "answer": "A"}
    hashes = {
        content_hash(replace(QUESTIONS[0], **{name: value})) for name, value in (seen | {"rationale": "x"}).items()
    }
    assert len(hashes | {content_hash(QUESTIONS[0])}) == 8
    assert content_hash(replace(QUESTIONS[0], id="other", meta={})) == content_hash(QUESTIONS[0])


def test_two_files_of_one_reviewer_on_one_question_are_refused(tmp_path):
    paths = [judge(tmp_path / f"{n}.csv", sample_rows(QUESTIONS), "李", {"q1": ("接受",)}) for n in (1, 2)]
    with pytest.raises(BadInput, match=r"2\.csv row 3, reviewer: '李' has judged 'q1' before \(.*1\.csv row 3\)"):
        read_verdicts(paths, QUESTIONS)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("gone.csv", None, "no such file"),
        ("sheet.xlsx", b"PK\x03\x04", "not a workbook that can be read"),
        ("empty.csv", b"", "an empty file"),
        ("none.csv", b"id,content,stem,verdict,corrected_answer,comment,reviewer\n", "no row below the header"),
        (
            "head.csv",
            "id,content,stem,判定,corrected_answer,comment,reviewer\nq0\n".encode(),
            "no column verdict among",
        ),
        (
            "twice.csv",
            b"id,content,stem,verdict,verdict,corrected_answer,comment,reviewer\n",
            "the column 'verdict' stands twice in the header",
        ),
        ("bytes.csv", b"id,stem\xff\xff\x00,", "neither a text nor a workbook nor Parquet"),
        (
            "mixed.csv",
            "id,content,stem,verdict,corrected_answer,comment,reviewer\nq0,c,题干,接受,,很好的题目,李\n".encode()
            + "q1,c,题干,接受,,不错,李\n".encode("gb18030"),
            "row 3: not in the encoding of the file",
        ),
        (
            "quotes.csv",
            b'id,content,stem,verdict,corrected_answer,comment,reviewer\nq0,"a"b,c,d,e,f\n',
            "row 2: quotes that are not closed, or text behind them",
        ),
        (
            "old.csv",
            b"id,stem,verdict,corrected_answer,comment,reviewer\nq0\n",
            "no column content, to which verdicts are bound; the sheet is from before",
        ),
        ("short.jsonl", b'{"id": "q0", "verdict": "accepted"}\n', "no column content, stem, corrected_answer"),
    ],
)
def test_a_file_that_is_no_verdict_file_is_refused(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_verdicts([tmp_path / name], QUESTIONS)
    assert name in str(error.value) and expected in str(error.value)


def test_settings_that_make_no_sense_are_refused(tmp_path):
    cases: list[dict[str, Any]] = [{"size": 0}, {"undecided": "maybe"}]
    for wrong in cases:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Settings(**wrong)
    path = judge(tmp_path / "li.csv", sample_rows(QUESTIONS), "李", {"q1": ("接受",)})
    with pytest.raises(BadInput, match="adjudicator='张' has judged nothing; the files are of 李"):
        synthesis.run("review", fresh(), Settings(verdicts=[str(path)], adjudicator="张"))
