"""Twelve shapes of tables, eight forms of keys and four encodings: always the same questions, or the right reason."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline.records import Question, Reject
from data_pipeline.sources import table
from tests.data_pipeline.tables.workbooks import write_workbook

STEMS = ["下列属于情绪的是", "下列属于认知过程的有", "最早的心理学实验室建立于哪一年"]
OPTIONS = [
    ["视觉", "愉快", "想象", "记忆"],
    ["感觉", "愤怒", "知觉", "思维"],
    ["莱比锡，1879", "柏林，1912", "维也纳，1900", "哈佛，1890"],
]
KEYS = ["B", "ACD", "A"]
RECORDS = list(zip(STEMS, ["single", "multi", "single"], OPTIONS, KEYS, strict=True))


def lettered(options: list[str], sign: str = ". ") -> list[str]:
    return [f"{letter}{sign}{text}" for letter, text in zip("ABCD", options, strict=True)]


def delimited(separator: str, cells: Callable[[list[str]], list]) -> Callable[[list], str]:
    def write(keys: list) -> str:
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator)
        width = len(cells(OPTIONS[0]))
        writer.writerow(["题干", *(["选项"] if width == 1 else ["A", "B", "C", "D"]), "答案"])
        for stem, options, key in zip(STEMS, OPTIONS, keys, strict=True):
            key = json.dumps(key, ensure_ascii=False) if isinstance(key, list) else key
            writer.writerow([stem, *cells(options), key])
        return file.getvalue()

    return write


def objects(options: Callable[[list[str]], object]) -> Callable[[list], list[dict]]:
    return lambda keys: [
        {"题干": stem, "选项": options(texts), "答案": key}
        for stem, texts, key in zip(STEMS, OPTIONS, keys, strict=True)
    ]


def as_jsonl(rows: Callable[[list], list[dict]]) -> Callable[[list], str]:
    return lambda keys: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(keys))


def as_json(rows: Callable[[list], list[dict]]) -> Callable[[list], str]:
    return lambda keys: json.dumps(rows(keys), ensure_ascii=False, indent=1)


SHAPES = {
    "comma": delimited(",", list),
    "tab": delimited("\t", list),
    "semicolon": delimited(";", lettered),
    "pipe": delimited("|", list),
    "a cell of JSON": delimited(",", lambda options: [json.dumps(options, ensure_ascii=False)]),
    "a cell of lettered lines": delimited(",", lambda options: ["\n".join(lettered(options, " "))]),
    "a cell of one lettered line": delimited("\t", lambda options: [" ".join(lettered(options, "．"))]),
    "a cell with |": delimited(",", lambda options: ["|".join(options)]),
    "lines of lists": as_jsonl(objects(lettered)),
    "lines of objects": as_jsonl(objects(lambda options: dict(zip("abcd", options, strict=True)))),
    "a list of key and value": as_json(
        objects(lambda options: [{"key": k, "value": v} for k, v in zip("ABCD", options, strict=True)])
    ),
    "a list of text and label": as_json(objects(lambda options: {"text": options, "label": list("ABCD")})),
}
ENCODINGS = ("utf-8", "utf-8-sig", "gb18030", "utf-16")


def texts_of(number: int) -> list[str]:
    return [OPTIONS[number]["ABCD".index(letter)] for letter in KEYS[number]]


FORMS: dict[str, tuple[list, str]] = {  # the keys, and the field that the recipe maps the column to
    "letters": (["B", "A、C、D", "A"], "answer"),
    "wide": (["Ｂ", "ＡＣＤ", "Ａ"], "answer"),
    "wrapped": (["选B", "（ACD）", "答案：A。"], "answer"),
    "lists": ([["B"], ["A", "C", "D"], ["A"]], "answer"),
    "texts": ([texts_of(0)[0], texts_of(1), texts_of(2)[0]], "answer"),
    "from 0": (["1", "0,2,3", "0"], "answer_from_0"),
    "from 1": (["2", "1,3,4", "1"], "answer_from_1"),
    "numbers": (["2", "1", "1"], "answer"),
}


def check(path: Path, form: str) -> None:
    field = FORMS[form][1]
    records = list(table.read(path, columns={field: "答案"}))
    if form == "numbers":  # of 0 and of 1 nothing says which
        assert [r.code for r in records if isinstance(r, Reject)] == ["an answer that is a number"] * 3
        assert all("{answer_from_0: 答案}" in r.detail for r in records if isinstance(r, Reject))
        return
    made = [(r.stem, r.kind, r.options, r.answer) if isinstance(r, Question) else r.reason for r in records]
    assert made == RECORDS


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_questions_or_the_right_reason(shape, form, encoding, tmp_path):
    path = tmp_path / "题库 (1).txt"  # no suffix that says anything
    path.write_bytes(SHAPES[shape](FORMS[form][0]).encode(encoding))
    check(path, form)


@pytest.mark.parametrize("form", FORMS)
def test_a_workbook_gives_them_too(form, tmp_path):
    keys = [json.dumps(key) if isinstance(key, list) else key for key in FORMS[form][0]]
    keys = [int(key) if key.isdigit() else key for key in keys]  # cells of numbers
    rows = [[stem, *options, key] for stem, options, key in zip(STEMS, OPTIONS, keys, strict=True)]
    check(write_workbook(tmp_path / "t.xlsx", {"题目": [["题干", "A", "B", "C", "D", "答案"], *rows]}), form)


@pytest.mark.parametrize("form", FORMS)
def test_parquet_and_a_saved_data_set_give_them_too(form, tmp_path):
    import datasets

    keys = [key if isinstance(key, list) else [key] for key in FORMS[form][0]]
    rows = objects(list)(keys)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t")
    check(tmp_path / "t", form)
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    check(tmp_path / "saved", form)
