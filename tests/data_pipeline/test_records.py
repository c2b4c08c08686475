"""What makes a question trustworthy, and the files that records are kept in."""

import ast
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import (
    META,
    Fault,
    Post,
    Question,
    RecordFile,
    Reject,
    check_question,
    read_jsonl,
    read_questions,
    read_records,
    write_jsonl,
)

REPOSITORY = Path(__file__).resolve().parents[2]

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
    ("single", FOUR, "AB", "several letters on a single-answer question: AB"),
    ("single", FOUR, "E", "the answer names a letter beyond the options: E of E, options A to D"),
    ("multi", {**FOUR, "D": ""}, "ABD", "the answer names a letter beyond the options: D of ABD, options A to C"),
    ("multi", FOUR, "D、华生", "the answer is not letters alone: 'D、华生'"),
    ("multi", FOUR, "A或B", "the answer is not letters alone: 'A或B'"),
    ("multi", FOUR, "ABB", "the answer repeats a letter: ABB"),
    ("single", {"A": "甲", "B": "", "C": "丙"}, "A", "a gap in the option letters: AC"),
    ("single", {"B": "乙", "C": "丙"}, "B", "a gap in the option letters: BC"),
    ("single", {"A": "甲"}, "A", "fewer than two options: A"),
    ("single", {"A": {"text": "甲"}, "B": "乙"}, "A", "an option that is no text: {'text': '甲'}"),
    ("single", {"A": True, "B": "乙"}, "A", "an option that is no text: True"),
    ("single", {}, "A", "fewer than two options: none"),
]


@pytest.mark.parametrize(("kind", "options", "key", "answer"), TRUSTED)
def test_a_readable_key_is_read(kind, options, key, answer):
    texts, read = check_question(kind, "题目", options, key)
    assert read == answer
    assert texts == [options[letter] for letter in sorted(options) if options[letter]]


@pytest.mark.parametrize(("kind", "options", "key", "reason"), NOT_TRUSTED)
def test_what_cannot_be_trusted_is_a_fault_and_never_repaired(kind, options, key, reason):
    code, _, detail = reason.partition(": ")
    assert check_question(kind, "题目", options, key) == Fault(code, detail)


def test_a_question_without_text_is_not_trusted():
    assert check_question("single", " \n", FOUR, "A") == Fault("no question text")


def test_a_reject_is_code_and_detail_in_its_file_and_one_text_for_people(tmp_path):
    rejects = [Reject("a", "x row 1", "no answer"), Reject("b", "x row 2", *Fault("an empty turn", "turn 2: client"))]
    write_jsonl(tmp_path / "r.jsonl", rejects)
    assert list(read_records(tmp_path / "r.jsonl", Reject)) == rejects
    assert [set(asdict(reject)) for reject in rejects] == [{"id", "where", "code", "detail"}] * 2
    assert [reject.reason for reject in rejects] == ["no answer", "an empty turn: turn 2: client"]


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


# --- the keys of meta -------------------------------------------------------------------------------------------------


RECORDS = ("Question", "Passage", "Post", "Dialogue")
ROOMS = ("data_pipeline", "eval", "launch", "reward")


def is_meta(node: ast.AST) -> bool:
    """Returns whether an expression is some record's `meta`, or a dict that becomes it."""
    if isinstance(node, ast.Subscript):  # of a row as JSON
        return isinstance(node.slice, ast.Constant) and node.slice.value == "meta"
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == "meta"


def dict_keys(node: ast.AST | None) -> Iterator[ast.AST]:
    """Yields the keys of the dicts that an expression joins with | or chooses between."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            yield from [key] if key else dict_keys(value)  # without a key it is **value
    elif isinstance(node, ast.BinOp):
        yield from (*dict_keys(node.left), *dict_keys(node.right))
    elif isinstance(node, ast.IfExp):
        yield from (*dict_keys(node.body), *dict_keys(node.orelse))


def meta_keys(tree: ast.AST) -> set[str]:
    """Returns the keys of `meta` that a module reads or sets; not those that stand in a variable."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_meta(node.value):
            found.append(node.slice)
        elif isinstance(node, ast.Compare) and any(map(is_meta, node.comparators)):
            found.append(node.left)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += dict_keys(node.value) if any(map(is_meta, targets)) else ()
        elif isinstance(node, ast.keyword) and node.arg == "meta":
            found += dict_keys(node.value)
        elif isinstance(node, ast.BinOp) and is_meta(node.left):
            found += dict_keys(node.right)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found += [
                k for key, v in pairs if isinstance(key, ast.Constant) and key.value == "meta" for k in dict_keys(v)
            ]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in RECORDS:
            found += [key for argument in node.args for key in dict_keys(argument)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if is_meta(node.func.value) and node.func.attr in ("get", "pop", "setdefault") and node.args:
                found.append(node.args[0])
    return {key.value for key in found if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def test_every_key_of_meta_is_listed():
    files = [file for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")]
    used = {str(file): meta_keys(ast.parse(file.read_text(encoding="utf-8"))) for file in files}
    assert {"where", "trail", "crisis", "plan", "merged_turns"} <= set().union(*used.values())  # it finds them
    assert {name: odd for name, keys in used.items() if (odd := keys - set(META))} == {}


def test_every_listed_key_is_set_somewhere():
    files = [file for file in (REPOSITORY / "data_pipeline").rglob("*.py") if file.name != "records.py"]
    said = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [key for key in META if f'"{key}"' not in said and f"{key}=" not in said] == []
    assert len(set(META)) == len(META)


def test_a_file_of_records_is_a_sequence_that_parses_what_is_looked_at(tmp_path):
    posts = [Post(f"p{n}", "test", "", "睡不着" * n, [], {"where": f"row {n}"}) for n in range(5)]
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, posts)
    with RecordFile(path, Post) as records:
        assert len(records) == 5 and list(records) == posts
        assert [records[place] for place in (3, 0, 4)] == [posts[3], posts[0], posts[4]]
        with pytest.raises(IndexError):
            records[5]
    path.write_bytes(path.read_bytes() + b'{"id": 1}\n[]\n{\n')
    with RecordFile(path, Post) as records:
        assert records[1] == posts[1], "what is broken elsewhere is not looked at"
        for place, told in ((5, "line 6: not a Post of this version"), (6, "line 7: not a JSON object"), (7, "line 8")):
            with pytest.raises(BadInput, match=told):
                records[place]
