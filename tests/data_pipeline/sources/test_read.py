"""What `sources.read` adds to every reader: the reader's name and options are checked, and ids are unique."""

import json
import pkgutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Passage, Post, Question, Reject, Turn
from tests.data_pipeline.sources.dialogue_files import ANSWERED, ASKED, ROUND

NAMES = [module.name for module in pkgutil.iter_modules(sources.__path__)]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(*rows: object) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


@pytest.fixture
def reader(monkeypatch) -> Callable:
    """Puts a function in the place of a reader's `read`."""
    return lambda name, read: monkeypatch.setattr(sources.find_reader(name), "read", read)


# --- ids --------------------------------------------------------------------------------------------------------------

CHOICE = {"question": "下列正确的是", "options": {"A": "甲", "B": "乙"}, "answer": "A"}
EXAM = CHOICE | {"question_type": "single"}
CASE = {"general_info": "资料", "questions_and_answers": [CHOICE | {"question": "单选：甲"}] * 2}
OWN = {"stem": "下列正确的是", "options": ["甲", "乙"], "answer": "A"}
SAID = [{"role": "client", "content": "问"}, {"role": "counselor", "content": "答"}]

# Readers that take an id from the data, or files of one name: {file: content}, where the two records of one id stand.
TWICE = {
    "posts": ({"p.jsonl": lines({"id": "7", "text": "考试前睡不着"}, {"id": 7, "text": "和同事吵架"})},
              "p.jsonl row 1", "p.jsonl row 2"),
    "table": ({"t.jsonl": lines({"id": "a", **OWN}, {"id": "a", **OWN, "stem": "另一题"})},
              "t.jsonl row 1", "t.jsonl row 2"),
    "messages": ({"m.jsonl": lines({"id": 7, "messages": [ASKED, ANSWERED]},
                                   {"id": "7", "messages": [ASKED, ANSWERED]})}, "m.jsonl row 1", "m.jsonl row 2"),
    "cpsycoun": ({"1.json": array("求助者：问", "支持者：答"), "1.txt": "来访者：问\n心理咨询师：答".encode()},
                 "1.json", "1.txt"),
    "cpsyexam": ({"a/train/KG-x-单项选择题.json": array(EXAM), "b/train/KG-x-单项选择题.json": array(EXAM)},
                 "a/train/KG-x-单项选择题.json row 1", "b/train/KG-x-单项选择题.json row 1"),
}  # fmt: skip
# Readers that name a record by its place: the same one in two places is two records.
PLACES = {
    "alpaca": {"a.json": array(*[{"instruction": "问", "output": "答"}] * 2)},
    "emollm": {"e.json": array({"input": "问", "output": "答"}, {"input": "问", "output": "答"})},
    "interactive_agents": {"a.json": array("我睡不好", "我睡不好")},
    "openr1_psy": {"o.jsonl": lines({"conversation": [ROUND]}, {"conversation": [ROUND]})},
    "psydt": {"d.json": array({"id": 1, "messages": [ASKED, ANSWERED]}, {"id": 1, "messages": [ASKED, ANSWERED]})},
    "smilechat": {"a/1.json": array(*SAID), "b/1.json": array(*SAID)},
    "passages": {"a/x.txt": "依恋是联结。".encode(), "b/x.txt": "依恋是联结。".encode()},
    "pceb": {"cases/mix/x.json": array(CASE)},
}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes the files; returns the one there is, or their folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    one = folder / next(iter(files))
    return one if len(files) == 1 and one.parent == folder else folder


def test_every_reader_is_tried_here():
    assert sorted([*TWICE, *PLACES]) == NAMES


@pytest.mark.parametrize("name", TWICE)
def test_of_two_records_with_one_id_the_second_is_a_reject_that_names_both_places(name, tmp_path):
    files, first, second = TWICE[name]
    kept, reject = sources.read(name, lay(tmp_path, files))
    assert not isinstance(kept, Reject) and kept.meta["where"] == str(tmp_path / first)
    assert isinstance(reject, Reject) and reject.id == kept.id
    assert (reject.where, reject.code) == (str(tmp_path / second), "the id stands already")
    assert reject.detail.split(";")[0] == str(tmp_path / first)


@pytest.mark.parametrize("name", PLACES)
def test_readers_that_name_a_record_by_its_place_keep_both(name, tmp_path):
    first, second = sources.read(name, lay(tmp_path, PLACES[name]))
    assert not isinstance(first, Reject) and not isinstance(second, Reject)
    assert first.id != second.id and first.meta["where"] != second.meta["where"]


def test_an_archive_with_the_same_file_twice_gives_each_question_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "cpsyexam.zip", "w") as archive:
        for name, content in TWICE["cpsyexam"][0].items():
            archive.writestr(name, content)
    assert [type(record) for record in sources.read("cpsyexam", tmp_path)] == [Question, Reject]


def test_posts_of_one_author_do_not_get_each_others_replies(tmp_path):
    rows = [
        {"id": "小林", "text": "明天要答辩，紧张得吃不下饭。", "replies": ["先把开头两分钟练熟。"]},
        {"id": "小林", "text": "室友总是很晚回来，我不敢说。", "replies": ["可以从自己的感受说起。"]},
        {"id": "阿青", "text": "刚搬到新城市，很孤单。", "replies": ["周末去走走。"]},
        {"id": "小林", "text": "又睡过头了。", "replies": []},
    ]
    (tmp_path / "p.jsonl").write_bytes(lines(*rows))
    records = list(sources.read("posts", tmp_path / "p.jsonl"))
    posts = [record for record in records if isinstance(record, Post)]
    assert [(post.text, post.replies) for post in posts] == [(rows[n]["text"], rows[n]["replies"]) for n in (0, 2)]
    rejects = [record for record in records if isinstance(record, Reject)]
    assert [(r.id, r.where.rsplit(" ", 1)[1], r.detail.split(";")[0].rsplit(" ", 1)[1]) for r in rejects] == [
        ("小林", "2", "1"), ("小林", "4", "1"),
    ]  # fmt: skip


def test_the_id_of_a_row_that_was_left_out_is_free(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(lines({"id": "7", "text": ""}, {"id": "7", "text": "睡不着"}))
    reject, post = sources.read("posts", tmp_path / "p.jsonl")
    assert isinstance(reject, Reject) and reject.code == "no text"
    assert isinstance(post, Post) and (post.id, post.text) == ("7", "睡不着")


KINDS = [
    lambda: Question("x", "s", "", "single", "题", ["甲", "乙"], "A"),
    lambda: Passage("x", "s", "", "文"),
    lambda: Post("x", "s", "", "文", []),
    lambda: Dialogue("x", "s", [Turn("client", "问"), Turn("counselor", "答")]),
]


@pytest.mark.parametrize("make", KINDS)
def test_records_of_every_kind_have_unique_ids(reader, make):
    reader("table", lambda path: iter([make(), make(), Reject("x", "w", "no answer"), make()]))
    records = list(sources.read("table", "anywhere"))
    assert [getattr(record, "code", "kept") for record in records] == [
        "kept", "the id stands already", "no answer", "the id stands already",
    ]  # fmt: skip
    second = records[1]  # a record without a place is named by its id
    assert isinstance(second, Reject) and (second.where, second.detail) == ("x", "x")


# --- the call ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_no_further_than_records_are_taken(reader):
    def read(path):
        yield Passage("a", "s", "", "文")
        raise AssertionError("read on")

    reader("passages", read)
    assert next(iter(sources.read("passages", "anywhere"))).id == "a"


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_named_with_those_there_are_before_anything_is_read(name):
    with pytest.raises(BadInput, match=f"^source={name}: .*'colums'; (its options are|it takes no options)"):
        sources.read(name, "absent", colums={})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colums": {}}, "its options are columns, kinds, clean, encoding, sheet, split. Did you mean columns?"),
        ({"path": "b"}, "multiple values for argument 'path'"),
        ({"key": "b"}, "unexpected keyword argument 'key'"),  # also what `sources.read` itself calls its arguments
        ({"name": "b"}, "unexpected keyword argument 'name'"),
    ],
)
def test_the_message_says_which_setting_and_what_is_near(options, message):
    with pytest.raises(BadInput) as error:
        sources.read("table", "absent", "posts.source", **options)
    assert str(error.value).startswith("posts.source=table: ") and message in str(error.value)


def test_a_reader_that_is_not_there_is_named_with_its_key():
    with pytest.raises(BadInput, match="dialogues.source=smilchat: no such reader; .*Did you mean smilechat?"):
        sources.read("smilchat", "absent", "dialogues.source")


def test_a_type_error_inside_a_reader_is_no_wrong_option(reader):
    def at_once(path, merge=False):
        return len(None)  # pyright: ignore[reportArgumentType]

    def later(path, merge=False):
        yield Passage("a", "s", "", 7 + "文")  # pyright: ignore[reportOperatorIssue]

    reader("smilechat", at_once)
    with pytest.raises(TypeError, match="has no len"):
        sources.read("smilechat", "anywhere", merge=True)
    reader("smilechat", later)
    with pytest.raises(TypeError, match="unsupported operand"):
        list(sources.read("smilechat", "anywhere", merge=True))


def test_a_reader_that_yields_no_records_is_named(reader):
    reader("posts", lambda path: iter([{"id": "a", "text": "文"}]))
    with pytest.raises(TypeError, match=r"data_pipeline/sources/posts.py: read yields a dict"):
        list(sources.read("posts", "anywhere"))
