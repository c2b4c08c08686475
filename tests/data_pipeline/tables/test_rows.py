"""Files are opened by their content; what cannot be taken whole is told with file and row."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Fault
from data_pipeline.tables import rows as opening
from data_pipeline.tables.rows import Layout, table_rows
from tests.data_pipeline.tables.workbooks import Raw, write_workbook

WANTED = {"stem", "answer"}


def fits(names: list[str]) -> float:
    return len(WANTED & set(names)) / len(WANTED)


def opened(path: Path, **layout) -> list[tuple[int, dict | str]]:
    """Returns (number, values, or the reason why there are none)."""
    rows = table_rows(path, Layout(**layout), fits)
    return [(row.number, row.values.reason if isinstance(row.values, Fault) else row.values) for row in rows]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.xlsx", "a"])
def test_the_suffix_says_nothing(name, tmp_path):
    rows = [{"stem": "问", "answer": "A"}, {"stem": "答", "answer": "B"}]
    assert opened(put(tmp_path / name, json.dumps(rows, indent=2))) == [(1, rows[0]), (2, rows[1])]
    assert opened(put(tmp_path / name, "".join(f"{json.dumps(r)}\n\n" for r in rows))) == [(1, rows[0]), (3, rows[1])]
    assert opened(put(tmp_path / name, "stem\tanswer\n问\tA\n\n答\tB\n")) == [(2, rows[0]), (4, rows[1])]
    assert opened(put(tmp_path / name, json.dumps(rows[0], indent=2))) == [(1, rows[0])]


def test_rows_have_the_numbers_of_the_spreadsheet(tmp_path):
    text = 'stem,answer\n"问\n一",A\n,\n\n问二,B\n'
    assert opened(put(tmp_path / "t.csv", text)) == [
        (2, {"stem": "问\n一", "answer": "A"}), (5, {"stem": "问二", "answer": "B"}),
    ]  # fmt: skip


def test_a_header_in_row_3_is_taken_and_the_rows_above_it_are_told(tmp_path):
    path = put(tmp_path / "t.csv", "第一章 题库,\n2026 年整理,\nstem,answer\n问,A\n")
    assert opened(path) == [
        (1, "above the header: which is row 3; '第一章 题库,'"),
        (2, "above the header: which is row 3; '2026 年整理,'"),
        (4, {"stem": "问", "answer": "A"}),
    ]


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ("stem,answer\n问，或者,问,A\n答,B\n", 2, "more cells than columns: 3, the header has 2; the last is 'A'"),
        ('stem,answer\n"问"题,A\n答,B\n', 2, "quotes that are not closed, or text behind them: lines 2 to 2"),
        ("{}\n[1]\n", 2, "not an object: list"),
        ('{}\n{"a": \n', 2, "broken JSON: line 1, column 6"),
        ('{"a": "x: y"}\n{"a": 1, "b": [{"c": 1, "d": ":", "c": 2}]}\n', 2, "a key stands twice in one object: c"),
        ('[{"a": "x: y", "b": {"a": 1}}, {"a": 1, "a": 2}]', 2, "a key stands twice in one object: a"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_the_others_are_read(text, number, reason, tmp_path):
    rows = opened(put(tmp_path / "t", text))
    faults = [(n, why) for n, why in rows if isinstance(why, str)]
    assert len(rows) == 2 and len(faults) == 1
    assert faults[0][0] == number and faults[0][1].startswith(reason)


def test_rows_in_another_encoding_are_told(tmp_path):
    content = "stem;answer\n情绪的是;A\n".encode("gbk") + "下列属于知觉的是;B\n".encode() + "感觉是;C\n".encode("gbk")
    told = "not in the encoding of the file: gb18030; '下列属于知觉的是;B'"
    for layout in ({}, {"encoding": "gb18030"}):
        rows = opened(put(tmp_path / "t.csv", content), **layout)
        assert [values if isinstance(values, str) else values["stem"] for _, values in rows] == [
            "情绪的是",
            told,
            "感觉是",
        ]
    half = "\ufeffstem,answer\n问,A\n答".encode("utf-16-le") + b"\xd8\xd8" + ",B\n".encode("utf-16-le")
    assert [type(values) for _, values in opened(put(tmp_path / "u.csv", half))] == [dict, str]
    lines = [json.dumps({"stem": stem}, ensure_ascii=False) for stem in ("情绪的是", "下列属于知觉的是", "感觉是")]
    content = b"\n".join([lines[0].encode(), lines[1].encode("gbk"), lines[2].encode()])
    rows = opened(put(tmp_path / "t.jsonl", content))
    assert [type(values) for _, values in rows] == [dict, str, dict]
    assert rows[1] == (2, f"not in the encoding of the file: utf-8; {lines[1]!r}")


def test_lists_within_an_object_are_its_rows_and_several_are_splits(tmp_path):
    row = {"stem": "问", "answer": "A", "options": [{"key": "A"}]}
    for rows in ({"data": [row, row]}, {"version": 1, "questions": [row, row]}):
        assert opened(put(tmp_path / "t.json", json.dumps(rows))) == [(1, row), (2, row)]
        assert opened(put(tmp_path / "t.json", json.dumps(rows, indent=1))) == [(1, row), (2, row)]
    assert opened(put(tmp_path / "t.json", json.dumps(row))) == [(1, row)], "options are no rows"
    file = put(tmp_path / "t.json", json.dumps({"train": [row, row], "test": [row]}))
    with pytest.raises(BadInput, match="2 splits; say which: .*split: train.* or .*split: test"):
        opened(file)
    assert opened(file, split="test") == [(1, row)]


def test_one_nul_makes_no_binary_file(tmp_path):
    text = "stem,answer\n" + "问题,A\n" * 40
    assert len(opened(put(tmp_path / "t.csv", text.replace("题", "\0", 1)))) == 40
    with pytest.raises(BadInput, match="neither a text nor a workbook"):
        opened(put(tmp_path / "t.csv", "stem,answer\n".encode("utf-16-le") * 9))


@pytest.mark.parametrize(
    ("name", "content", "layout", "message"),
    [
        ("t.csv", b"", {}, "t.csv: an empty file"),
        ("t.csv", b"\n\n", {}, "t.csv: an empty file"),
        ("t.csv", b"stem,stem\na,b\n", {}, "row 1: the column 'stem' stands twice in the header; rename one of them"),
        ("t.json", b'[{"stem": ', {}, "t.json: broken JSON at line 1, column"),
        ("t.json", b"PAR1", {}, "not a Parquet file"),
        ("t.json", b"PK\3\4", {}, "not a workbook that can be read"),
        ("t.png", b"\x89PNG\0\0", {}, "neither a text nor a workbook nor Parquet.*{encoding: NAME}"),
        ("t.csv", b"stem,answer\n", {"encoding": "utf-16"}, "t.csv: not utf-16"),
        ("t.xls", b"<html><table>", {}, "a page of HTML or XML; open it in a spreadsheet program"),
        ("t.csv", "问".encode(), {"encoding": "undefined"}, "encoding=undefined: no such encoding"),
        ("t.csv", "问".encode(), {"encoding": "utf-88"}, "encoding=utf-88: no such encoding"),
        ("t.json", json.dumps([{"a": "情"}] * 3, indent=1, ensure_ascii=False).encode() + "情".encode("gbk"), {},
         "line 11: not in the encoding of the rest, utf-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused(name, content, layout, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        opened(put(tmp_path / name, content), **layout)


CELLS = ['"甲,乙\n丙"', "NA", "001", "1.0", "True", "null", "2024-01-01"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "stem,answer\n" + "".join(f"问,{cell}\n" for cell in CELLS)),
        ("t.tsv", ("stem\tanswer\n" + "".join(f"问\t{cell}\n" for cell in CELLS)).encode("gb18030")),
        ("t.jsonl", "".join(json.dumps({"stem": "问", "answer": cell}) + "\n" for cell in CELLS)),
        ("t.json", json.dumps([{"stem": "问", "answer": cell} for cell in CELLS], ensure_ascii=False)),
    ],
)
def test_a_file_that_is_too_large_says_how_to_go_on_and_that_way_keeps_every_cell(name, content, tmp_path, monkeypatch):
    path = put(tmp_path / name, content)
    whole = [values for _, values in opened(path)]
    monkeypatch.setattr(opening, "LARGEST", 50)
    with pytest.raises(BadInput, match="more than is read of one file") as error:
        opened(path)
    command = str(error.value).split("give parts: ", 1)[1].replace(".venv/bin/python", shlex.quote(sys.executable))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    monkeypatch.undo()
    assert [values for _, values in opened(tmp_path / "parts")] == whole and len(whole) == len(CELLS)


def test_a_workbook_that_is_too_large_says_how_to_go_on(tmp_path, monkeypatch):
    path = write_workbook(tmp_path / "t.xlsx", {"s": [["stem", "answer"], ["问", "A"]]})
    monkeypatch.setattr(opening, "LARGEST", 50)
    with pytest.raises(BadInput, match="save the sheet as several CSV files in one folder"):
        opened(path)


def test_a_folder_of_files_is_one_table_and_a_broken_file_one_reject(tmp_path):
    for number in range(1000):
        put(tmp_path / f"part{number:03}.csv", "stem,answer\n问,A\n")
    put(tmp_path / "part500.csv", "[{")
    put(tmp_path / "part600.csv", "stem,answer\n")
    rows = list(table_rows(tmp_path, Layout(), fits))
    broken = [(row.table, row.values) for row in rows if isinstance(row.values, Fault)]
    assert (len(rows), [table for table, _ in broken]) == (1000, ["part500.csv", "part600.csv"])
    assert broken[0][1].reason.startswith(f"a file that cannot be read: {tmp_path}/part500.csv: broken JSON")
    assert broken[1][1] == Fault("a file without rows")
    assert len({(row.table, row.number) for row in rows}) == 1000


def test_a_folder_with_several_splits_asks_which(tmp_path):
    for name in ("data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv", "data/test-00000-of-00001.csv"):
        put(tmp_path / name, f"stem,answer\n{name[5:9]},A\n")
    with pytest.raises(BadInput, match='2 splits; say which: "source_options={split: test}" or .*train'):
        opened(tmp_path)
    assert [values["stem"] for _, values in opened(tmp_path, split="train") if isinstance(values, dict)] == ["trai"] * 2
    with pytest.raises(BadInput, match="no split 'trian'; there is test, train. Did you mean train?"):
        opened(tmp_path, split="trian")


def test_a_saved_data_set_with_several_splits_asks_which(tmp_path):
    import datasets

    part = datasets.Dataset.from_list([{"stem": "问", "answer": "A"}])
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(BadInput, match='2 splits; say which: "source_options={split: train}" or'):
        opened(tmp_path / "two")
    assert opened(tmp_path / "two", split="test") == [(1, {"stem": "问", "answer": "A"})]
    datasets.DatasetDict({"only": part}).save_to_disk(str(tmp_path / "one"))
    assert len(opened(tmp_path / "one")) == 1


# --- workbooks --------------------------------------------------------------------------------------------------------

HEAD = ["stem", "answer"]


def test_a_workbook_with_several_sheets_asks_which(tmp_path):
    sheets = {"题目": [HEAD, ["问", "A"]], "说明": [["编者"], ["某人"]], "空": []}
    path = write_workbook(tmp_path / "t.xlsx", sheets)
    with pytest.raises(BadInput, match='2 sheets hold something; say which: "source_options={sheet: 题目}" or .*说明'):
        opened(path)
    assert opened(path, sheet="题目") == [(2, {"stem": "问", "answer": "A"})]
    with pytest.raises(BadInput, match="no sheet '题'; there is 题目, 说明, 空"):
        opened(path, sheet="题")
    (row,) = table_rows(write_workbook(tmp_path / "u.xlsx", {"题目": sheets["题目"], "空": []}), Layout(), fits)
    assert row.where == f"{tmp_path}/u.xlsx sheet 题目 row 2"


def test_merged_cells_stand_in_each_of_their_rows(tmp_path):
    rows = [
        ["题库"],
        None,
        ["case", *HEAD],
        ["个案一", "问一", "A"],
        [None, "问二", "B"],
        ["个案二", "问三", 3.0],
        [None],
        None,
        ["", "问四", 0.5],
    ]
    path = write_workbook(tmp_path / "t.xlsx", {"s": [row or [] for row in rows]}, ("A1:C1", "A4:A5"))
    assert opened(path) == [
        (1, "above the header: which is row 3; '题库'"),
        (4, {"case": "个案一", "stem": "问一", "answer": "A"}),
        (5, {"case": "个案一", "stem": "问二", "answer": "B"}),
        (6, {"case": "个案二", "stem": "问三", "answer": 3}),
        (9, {"case": "", "stem": "问四", "answer": 0.5}),
    ]


def test_cells_that_hold_no_value_are_faults_and_not_empty(tmp_path):
    formula, worked_out = Raw('<c r="{0}"><f>1+1</f></c>'), Raw('<c r="{0}"><f>1+1</f><v>2</v></c>')
    error = Raw('<c r="{0}" t="e"><v>#REF!</v></c>')
    date = Raw('<c r="{0}" t="d"><v>2026-01-02</v></c>')
    rows = [HEAD, ["一", formula], ["二", worked_out], ["三", error], ["四", date]]
    answers = [
        values["answer"]
        for _, values in opened(write_workbook(tmp_path / "t.xlsx", {"s": rows}))
        if isinstance(values, dict)
    ]
    assert answers[1] == 2
    assert [answers[n].reason for n in (0, 2, 3)] == [
        "a cell without a value: a formula that no program has worked out; open and save it",
        "a cell without a value: an error, #REF!",
        "a date in place of a text: 2026-01-02; format the column as text and type it anew",
    ]
