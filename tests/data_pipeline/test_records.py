"""What makes a question trustworthy, and the files that records are kept in."""

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, check_question, read_jsonl, read_questions, write_jsonl

FOUR = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}

TRUSTED = [
    ("single", FOUR, "B", "B"),
    ("multi", FOUR, "ABD", "ABD"),
    ("multi", FOUR, "DBA", "ABD"),
    ("multi", FOUR, "A、B，D", "ABD"),
    ("multi", FOUR, " ACD\xa0", "ACD"),
    ("multi", FOUR, "ABCD\u2003\n", "ABCD"),
    ("multi", FOUR, "C,", "C"),  # one letter on a multi-answer question is a key like any other
    ("single", FOUR, "b", "B"),
    ("single", {"A": "对", "B": "错", "C": "", "D": None}, "A", "A"),
    ("multi", {"A": "甲", "C": "丙", "B": "乙"}, "BC", "BC"),  # written out of order, no gap
]

NOT_TRUSTED = [
    ("single", FOUR, "", "no answer"),
    ("single", FOUR, None, "no answer"),
    ("single", FOUR, 2, "no answer"),
    ("single", FOUR, "AB", "several letters on a single-answer question"),
    ("single", FOUR, "E", "a letter beyond the options"),
    ("multi", {**FOUR, "D": ""}, "ABD", "a letter beyond the options"),
    ("multi", FOUR, "D、华生", "not letters alone"),
    ("multi", FOUR, "A或B", "not letters alone"),
    ("multi", FOUR, "ABB", "repeats a letter"),
    ("single", {"A": "甲", "B": "", "C": "丙"}, "A", "a gap in the option letters"),
    ("single", {"B": "乙", "C": "丙"}, "B", "a gap in the option letters"),
    ("single", {"A": "甲"}, "A", "fewer than two options"),
    ("single", {}, "A", "fewer than two options"),
]


@pytest.mark.parametrize(("kind", "options", "key", "answer"), TRUSTED)
def test_a_readable_key_is_read(kind, options, key, answer):
    texts, read = check_question(kind, "题目", options, key)
    assert read == answer
    assert texts == [options[letter] for letter in sorted(options) if options[letter]]


@pytest.mark.parametrize(("kind", "options", "key", "reason"), NOT_TRUSTED)
def test_what_cannot_be_trusted_is_a_reason_and_never_repaired(kind, options, key, reason):
    assert reason in check_question(kind, "题目", options, key)


def test_a_question_without_text_is_not_trusted():
    assert check_question("single", " \n", FOUR, "A") == "no question text"


def test_questions_come_back_as_they_were_written(tmp_path):
    questions = [
        Question(
            "a",
            "table",
            "心理学",
            "multi",
            "题\n目",
            ["甲", "乙"],
            "AB",
            context="案例",
            rationale="因为",
            meta={"where": "x"},
        ),
        Question("b", "pceb", "", "open", "问", [], "", reference="答"),
    ]
    assert write_jsonl(tmp_path / "q.jsonl", questions) == 2
    assert list(read_questions(tmp_path / "q.jsonl")) == questions
    assert [p.name for p in tmp_path.iterdir()] == ["q.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2"),
        (b'{"a": 1}\n[1]\n', "line 2"),
        (b'{"a": 1}\n\n{"a": 2}\n', "line 2"),
        ("题".encode("gbk"), "UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, message):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as error:
        list(read_jsonl(path))
    assert str(path) in str(error.value)


def test_a_file_of_other_rows_is_not_taken_for_questions(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"id": "a", "title": "x"}])
    with pytest.raises(BadInput, match="title"):
        list(read_questions(tmp_path / "q.jsonl"))
