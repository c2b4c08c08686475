"""The readers, on the real data sets and on small broken ones."""

import csv
import json
import zipfile
from collections import Counter

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Reject
from data_pipeline.sources import cpsyexam as released
from data_pipeline.sources import pceb as benchmark
from data_pipeline.sources import table


def split(records) -> tuple[list[Question], list[Reject]]:
    records = list(records)
    return [r for r in records if isinstance(r, Question)], [r for r in records if isinstance(r, Reject)]


def reasons(rejects) -> Counter:
    return Counter(r.code for r in rejects)


# --- CPsyExam ---------------------------------------------------------------------------------------------------------


def test_every_labelled_cpsyexam_question_is_read_or_rejected_with_its_reason(cpsyexam):
    questions, rejects = split(released.read(cpsyexam))
    assert len(questions) + len(rejects) == 9855
    assert Counter(q.kind for q in questions) == {"single": 6884, "multi": 2853}
    assert reasons(rejects) == {
        "the answer is not letters alone": 99,
        "a gap in the option letters": 13,
        "the answer names a letter beyond the options": 5,
        "fewer than two options": 1,
    }
    assert sum(bool(q.rationale) for q in questions) == 3871
    assert len({q.id for q in questions}) == len(questions)
    assert Counter(q.meta["category"] for q in questions)["CA-单项选择题"] == 49


def test_the_zip_and_its_unpacked_folder_are_the_same(cpsyexam, tmp_path):
    zipfile.ZipFile(cpsyexam / "cpsyexam.zip").extractall(tmp_path / "题库 (1)")
    from_zip = list(released.read(cpsyexam / "cpsyexam.zip"))
    unpacked = list(released.read(tmp_path / "题库 (1)"))
    assert [r.id for r in from_zip] == [r.id for r in unpacked]


def test_the_split_without_answers_is_rejected_whole(cpsyexam):
    questions, rejects = split(released.read(cpsyexam, split="test"))
    assert not questions
    assert len(rejects) == 3902
    assert reasons(rejects).most_common(1)[0][0] == "no answer"


def test_a_split_that_is_not_there_names_those_that_are(cpsyexam):
    with pytest.raises(BadInput, match="no split 'dev'; there is test, train"):
        list(released.read(cpsyexam, split="dev"))


def test_what_is_no_cpsyexam_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        list(released.read(tmp_path / "absent"))
    (tmp_path / "cpsyexam.zip").write_text("version https://git-lfs...")
    with pytest.raises(BadInput, match="not a zip file"):
        list(released.read(tmp_path / "cpsyexam.zip"))
    (tmp_path / "x" / "train").mkdir(parents=True)
    (tmp_path / "x" / "train" / "KG-a-单项选择题.json").write_text('[{"question": "x",\n "options": }]')
    with pytest.raises(BadInput, match=r"KG-a-单项选择题.json: broken JSON at line 2, column 13"):
        list(released.read(tmp_path / "x"))


# --- PCEB -------------------------------------------------------------------------------------------------------------


def test_every_pceb_file_is_read(pceb):
    questions, rejects = split(benchmark.read(pceb))
    assert Counter((q.meta["cell"], q.kind) for q in questions) == {
        ("cases", "single"): 582, ("cases", "multi"): 669, ("cases", "open"): 84,
        ("moral", "single"): 120, ("moral", "multi"): 120,
        ("theory", "single"): 902, ("theory", "multi"): 591,
    }  # fmt: skip
    assert [(r.id, r.reason) for r in rejects] == [
        ("pceb/cases/mix/third/11-13 案例混合选择/16.1", "several letters on a single-answer question: BCD")
    ]
    assert len(questions) + len(rejects) == 583 + 669 + 120 + 120 + 902 + 591 + 84
    case = next(q for q in questions if q.meta["cell"] == "cases" and q.kind == "single")
    assert "求助者" in case.context
    assert not case.stem.startswith(("单选", "多选"))
    essay = next(q for q in questions if q.kind == "open")
    assert essay.reference and essay.options == [] and essay.answer == ""


def test_a_folder_without_pcebs_sections_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cases/, moral/ or theory/"):
        list(benchmark.read(tmp_path))
    with pytest.raises(BadInput, match="no such folder"):
        list(benchmark.read(tmp_path / "absent"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_exams_that_were_saved_anew_are_read_in_any_encoding(tmp_path, encoding):
    stem, options = "下列现象中属于知觉恒常性的是哪一个", {"A": "从远处看人仍觉得一样高", "B": "月亮跟着人走"}
    row = {"question": stem, "question_type": "single", "options": options, "answer": "A"}
    content = json.dumps([row], ensure_ascii=False).encode(encoding)
    for file in ("theory/single/x.json", "train/KG-a-单项选择题.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(content)
    for (question,) in (benchmark.read(tmp_path), released.read(tmp_path)):
        assert isinstance(question, Question) and question.stem == stem and question.options == [*options.values()]


def test_a_case_question_without_its_kind_is_rejected(tmp_path):
    (tmp_path / "cases" / "mix").mkdir(parents=True)
    group = {"general_info": "一般资料", "case_introduction": "个案", "questions_and_answers": [
        {"question": "多选：下列正确的是", "options": {"A": "甲", "B": "乙"}, "answer": "AB"},
        {"question": "下列正确的是", "options": {"A": "甲", "B": "乙"}, "answer": "A"},
    ]}  # fmt: skip
    (tmp_path / "cases" / "mix" / "x.json").write_text(json.dumps([group]), encoding="utf-8")
    questions, rejects = split(benchmark.read(tmp_path))
    assert [q.context for q in questions] == ["一般资料\n个案"]
    assert rejects[0].reason == "a case question without 单选： or 多选：: '下列正确的是'"


# --- people's own tables ---------------------------------------------------------------------------------------------

ROWS = [
    {"题目": "下列正确的是", "甲项": "对", "乙项": "错", "答案": "A", "解析": "因为对"},
    {"题目": "下列正确的有", "甲项": "对", "乙项": "也对", "答案": "AB", "解析": ""},
    {"题目": "没有答案的题", "甲项": "对", "乙项": "错", "答案": "", "解析": ""},
]
COLUMNS = {"stem": "题目", "options": ["甲项", "乙项"], "answer": "答案", "rationale": "解析"}


def as_csv(path):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)


def as_jsonl(path):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")


def as_parquet(path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def as_hugging_face(path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(path))


@pytest.mark.parametrize(
    ("name", "write"),
    [("题 (1).csv", as_csv), ("t.jsonl", as_jsonl), ("t.parquet", as_parquet), ("saved", as_hugging_face)],
)
def test_one_table_in_four_formats(tmp_path, name, write):
    write(tmp_path / name)
    questions, rejects = split(table.read(tmp_path / name, columns=COLUMNS))
    assert [(q.stem, q.kind, q.options, q.answer, q.rationale) for q in questions] == [
        ("下列正确的是", "single", ["对", "错"], "A", "因为对"),
        ("下列正确的有", "multi", ["对", "也对"], "AB", ""),
    ]
    row = 4 if name.endswith(".csv") else 3  # the header is a row of a spreadsheet
    assert [(r.where, r.reason) for r in rejects] == [(f"{tmp_path / name} row {row}", "no answer")]


def test_options_may_be_a_list_an_object_or_json_in_a_cell(tmp_path):
    rows = [
        {"stem": "a", "options": ["甲", "乙"], "answer": "A"},
        {"stem": "b", "options": {"A": "甲", "B": "乙"}, "answer": "B"},
        {"stem": "c", "options": '["甲", "乙"]', "answer": "A"},
        {"stem": "d", "options": "甲 乙", "answer": "A"},
        {"stem": "e", "options": ["甲", "乙"], "answer": "A", "kind": "配伍"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    questions, rejects = split(table.read(tmp_path / "t.jsonl"))
    assert [q.options for q in questions] == [["甲", "乙"]] * 3
    assert [r.where.rsplit(" ", 1)[1] for r in rejects] == ["4", "5"]
    assert rejects[0].reason == "options that are neither a list nor an object nor lettered lines: '甲 乙'"
    assert rejects[1].code == "a kind that is not known" and "{kinds: {配伍: single}}" in rejects[1].detail


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"stem": "问题"}, "no column '问题' for stem; the columns are 题目"),
        ({**COLUMNS, "options": ["甲项", "丙项"]}, "no column '丙项' for options"),
        ({**COLUMNS, "subject": "科目"}, "no column '科目' for subject"),
        ({**COLUMNS, "title": "题目"}, "unknown field 'title'"),
        (None, "no column 'options' for options.*{columns: {options: \\[甲项, 乙项\\]}}"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path, columns, message):
    as_csv(tmp_path / "t.csv")
    with pytest.raises(BadInput, match=message):
        list(table.read(tmp_path / "t.csv", columns=columns))


def test_what_is_no_table_is_refused(tmp_path):
    for name, content, message in [
        ("a.xlsx", b"PK\3\4", "not a workbook"),
        ("b.xlsx", b"\0x", "neither a text nor a workbook"),
        ("gbk.csv", "题目\n感觉".encode("gbk"), "no column 'options' for options; the columns are 题目"),
        ("empty.csv", b"", "an empty file"),
        ("x.parquet", b"PAR1", "not a Parquet file"),
        ("x.jsonl", b"{", "line 1"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=message):
            list(table.read(tmp_path / name))
    with pytest.raises(BadInput, match="no such file"):
        list(table.read(tmp_path / "absent.csv"))


def test_the_sample_that_ships_is_whole_and_balanced():
    questions, rejects = split(table.read("data_pipeline/samples/questions.jsonl"))
    assert not rejects
    assert Counter(q.kind for q in questions) == {"single": 128, "multi": 64}
    assert len({q.subject for q in questions}) == 8
    assert all(q.rationale and not set(q.rationale) & set("<>") for q in questions)
    assert set(Counter(q.answer for q in questions if q.kind == "single").values()) == {32}
    assert len({q.stem for q in questions}) == 192
