"""Posts with replies are read from JSONL, JSON and CSV alike; what cannot be read says where and why."""

import json

import pytest

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.records import Post, Reject
from data_pipeline.sources.posts import read

ROWS = [
    {"id": "a", "title": "失眠", "text": "晚上睡不着。", "replies": ["早点睡。", " 少喝咖啡。 ", ""]},
    {"id": "b", "title": "", "text": "很难过。", "replies": []},
    {"id": "c", "title": "只有题目", "text": "", "replies": "一条回答。"},
]


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    else:
        import pandas

        cells = [
            {k: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for k, v in r.items()} for r in rows
        ]
        pandas.DataFrame(cells).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_every_format_gives_the_same_posts(tmp_path, suffix):
    file = write(tmp_path / f"posts{suffix}")
    first = 2 if suffix == ".csv" else 1  # the header is a row of a spreadsheet
    assert list(read(file)) == [
        Post("a", "posts", "失眠", "晚上睡不着。", ["早点睡。", "少喝咖啡。"], {"where": f"{file} row {first}"}),
        Post("b", "posts", "", "很难过。", [], {"where": f"{file} row {first + 1}"}),
        Post("c", "posts", "只有题目", "只有题目", ["一条回答。"], {"where": f"{file} row {first + 2}"}),
    ]


def test_columns_and_replies_that_are_objects(tmp_path):
    rows = [{"标题": "失眠", "正文": "睡不着", "回答": [{"内容": "第二", "赞": 1}, {"内容": "第一", "赞": "9"}]}]
    columns = {"title": "标题", "text": "正文", "replies": "回答", "reply_text": "内容", "reply_score": "赞"}
    (post,) = read(write(tmp_path / "p.jsonl", rows), columns=columns)
    assert isinstance(post, Post)
    assert (post.id, post.title, post.text, post.replies) == ("p/1", "失眠", "睡不着", ["第一", "第二"])
    rows = [{"text": "睡不着", "答一": "好", "答二": None}]
    (post,) = read(write(tmp_path / "q.jsonl", rows), columns={"replies": ["答一", "答二"]})
    assert isinstance(post, Post) and post.replies == ["好"]
    (post,) = read(write(tmp_path / "r.jsonl", [{"text": "睡不着", "replies": [{"content": "好"}]}]))
    assert isinstance(post, Post) and post.replies == ["好"]


REPLIES = ["先别急着下结论。", '他说"算了"，it\'s over']


@pytest.mark.parametrize(
    "cell",
    [
        str(REPLIES),
        str([{"answer_text": text, "has_label": True} for text in REPLIES]),
        str([{"answer_text": text, "score": None} for text in REPLIES]),
        json.dumps(REPLIES, ensure_ascii=False),
        json.dumps([{"text": text, "likes": 3} for text in REPLIES]),
        "[" + "\n ".join(map(repr, REPLIES)) + "]",  # as numpy writes it
    ],
)
@pytest.mark.parametrize("columns", [{}, {"replies": ["answers", "more"]}])
def test_a_list_in_a_cell_is_read_as_python_and_json_write_it(tmp_path, cell, columns):
    import pandas

    pandas.DataFrame([{"text": "睡不着", "answers": cell, "more": ""}]).to_csv(tmp_path / "p.csv", index=False)
    (post,) = read(tmp_path / "p.csv", columns=columns)
    assert isinstance(post, Post) and post.replies == REPLIES
    (post,) = read(write(tmp_path / "p.jsonl", [{"text": "睡不着", "answers": cell, "more": ""}]), columns=columns)
    assert isinstance(post, Post) and post.replies == REPLIES


def test_one_object_in_a_cell_is_one_reply_and_brackets_before_a_text_are_text(tmp_path):
    cells = ["{'answer_text': '慢慢来。'}", "[抱抱]慢慢来。", "[1] 早点睡。[2] 少喝咖啡。", "[]", "[] "]
    posts = list(read(write(tmp_path / "p.csv", [{"text": "睡不着", "answers": cell} for cell in cells])))
    assert [post.replies for post in posts if isinstance(post, Post)] == [["慢慢来。"], [cells[1]], [cells[2]], [], []]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("['慢慢来。', '别", "a list in a cell that cannot be read"),  # cut off by a spreadsheet
        ("[{'answer_text': '慢慢来。'}\n {'answer_text': '别急。'}]", "a list in a cell that cannot be read"),
        ("[{'answer_text': nan}]", "a list in a cell that cannot be read"),
        ('["慢慢来。", "别"急"。"]', "a list in a cell that cannot be read"),
        ("[{'answer_text': '慢慢来。' '别急。'}]", "a list in a cell that cannot be read"),
        ("[['慢慢来。'\n '别急。']]", "a list in a cell that cannot be read"),
        ('[{"text": "慢", "text": "急"}]', "a key twice in one object"),
        ("[{'answer_text': \"['慢慢来。']\"}]", "a reply that is no text"),
        ("[['慢慢来。']]", "a reply that is no text"),
        ("[{'who': '某'}]", "a reply without a text"),
    ],
)
def test_a_list_in_a_cell_that_cannot_be_taken_whole_is_refused(tmp_path, cell, code):
    file = write(tmp_path / "p.csv", [{"text": "睡不着", "answers": cell}])
    (reject,) = read(file)
    assert isinstance(reject, Reject) and reject.where == f"{file} row 2"
    assert reject.code == code or (code.startswith("a key") and "twice" in reject.reason), reject


def test_a_post_that_is_a_list_is_refused(tmp_path):
    (reject,) = read(write(tmp_path / "p.csv", [{"text": "['睡不着', '很累']"}]))
    assert isinstance(reject, Reject) and reject.reason == (
        "a text that is no text: a list or object written as a text: " + repr("['睡不着', '很累']")
    )


def test_usual_names_of_columns_are_known_and_others_told(tmp_path, caplog):
    rows = [{"标题": "失眠", "正文": "睡不着", "answers": [{"answer_text": "别急"}], "labels": ["睡眠"], "空": ""}]
    (post,) = read(write(tmp_path / "p.jsonl", rows))
    assert isinstance(post, Post) and (post.title, post.text, post.replies) == ("失眠", "睡不着", ["别急"])
    (told,) = caplog.messages
    assert told.startswith("p: columns that are not read: labels; map what you need: ") and "{FIELD: labels}" in told


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"text": {"a": "睡不着"}}, "a text that is no text"),
        ({"text": ["睡不着"]}, "a text that is no text"),
        ({"text": "难过", "title": True}, "a title that is no text"),
        ({"text": "难过", "replies": [["好"]]}, "a reply that is no text"),
        ({"text": "难过", "replies": [{"text": {"x": "好"}}]}, "a reply that is no text"),
        ({"text": "难过", "replies": [{"text": "好", "answer": "不好"}]}, "a reply with several texts"),
    ],
)
def test_what_is_no_text_never_becomes_one(tmp_path, row, code):
    (reject,) = read(write(tmp_path / "p.jsonl", [row]))
    assert isinstance(reject, Reject) and reject.code == code


def test_rows_that_cannot_be_read_are_rejected(tmp_path):
    rows = [
        {"text": "睡不着"},
        {"text": " "},
        {"text": "难过", "replies": 7},
        {"text": "难过", "replies": [{"who": "x"}]},
        {"text": "难过", "replies": [{"text": "好"}]},
    ]
    file = write(tmp_path / "p.json", rows + ["文字"])
    rows = list(read(file))
    assert [type(row) for row in rows] == [Post, Reject, Reject, Reject, Post, Reject]
    assert [(row.where, row.reason) for row in rows if isinstance(row, Reject)] == [
        (f"{file} row 2", "no text"),
        (f"{file} row 3", "neither a text nor a list of replies: column replies is int"),
        (
            f"{file} row 4",
            "a reply without a text: reply 1 of replies has none under text or content or answer or reply or "
            "answer_text or body (it has who)",
        ),
        (f"{file} row 6", "not an object: str"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("p.xlsx", "", None, "an empty file"),
        (
            "p.jsonl",
            '{"描述": "睡不着"}\n',
            None,
            "no column 'text' for text; the columns are 描述.*options: {columns: {text: 描述}}",
        ),
        ("p.jsonl", '{"text": "睡不着"}\n', {"replies": "回答"}, "no column '回答' for replies"),
        ("p.jsonl", '{"text": "睡不着"}\n', {"reply": "回答"}, "unknown field 'reply'; the fields are id, title, text"),
        ("p.jsonl", '{"a": "睡不着"}\n', {"text": ["a", "b"]}, "text=['a', 'b']; takes the name of one column"),
        ("p.jsonl", '{"text": \n', None, "broken JSON at line "),
        ("p.json", '{"texts": "x"}', None, "no column 'text' for text"),
        ("p.json", '[{"text": }]', None, "broken JSON at line 1"),
    ],
)
def test_the_user_is_told_what_is_wrong(tmp_path, name, content, columns, message):
    file = tmp_path / name
    file.write_text(content, "utf-8")
    with pytest.raises(BadInput, match="^[^\n]*" + message.replace("[", r"\[")):
        list(read(file, columns=columns))
    with pytest.raises(BadInput, match="no such file"):
        list(read(tmp_path / "none.csv"))


def test_profiles_of_interactive_agents_are_posts_and_what_is_none_is_told(tmp_path):
    folder = tmp_path / "user_profiles"
    folder.mkdir()
    (folder / "test.json").write_text('["睡不着怎么办？ 我总是睡不着。", "  ", 3]', encoding="utf-8")
    post, *rejects = sources.read("interactive_agents", folder)
    assert isinstance(post, Post) and post.id == "interactive_agents/test/1" and post.text.startswith("睡不着")
    assert [r.reason for r in rejects if isinstance(r, Reject)] == ["no text", "not a text: int"]
    (folder / "test.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(BadInput, match="test.json: not a JSON list of texts but dict"):
        list(sources.read("interactive_agents", folder / "test.json"))
    with pytest.raises(BadInput, match="name user_profiles/test.json"):
        list(sources.read("interactive_agents", tmp_path / "none"))
