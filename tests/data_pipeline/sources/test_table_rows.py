"""Rows of people's own tables: mapped, cleaned, and refused with their place rather than taken in part."""

import json

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Reject
from data_pipeline.sources import table
from tests.data_pipeline.tables.workbooks import Raw, write_workbook


def read(tmp_path, text: str, **options) -> list[Question | Reject]:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return list(table.read(path, **options))


def reasons(records) -> list[str]:
    return [record.reason if isinstance(record, Reject) else "" for record in records]


def test_a_column_of_options_that_is_not_mapped_refuses_the_rows_that_use_it(tmp_path):
    text = "stem,选项A,选项B,选项C,answer\n题一,甲,乙,丙,A\n题二,甲,乙,,A\n"
    assert reasons(read(tmp_path, text, columns={"options": ["选项A", "选项B"]})) == [
        "an option in a column that is not mapped: 选项C: '丙'", "",
    ]  # fmt: skip


def test_kinds_are_explained_by_the_recipe(tmp_path):
    text = "题干,A,B,答案,题型\n题一,甲,乙,A,配伍题\n题二,甲,乙,AB,配伍题\n睡眠是被动的,,,错,\n"
    unknown = "a kind that is not known: 题型 is '配伍题'; explain it: \"source_options={kinds: {配伍题: single}}\""
    assert reasons(read(tmp_path, text))[0].startswith(unknown)
    explained = read(tmp_path, text, kinds={"配伍题": "single", "": "true_false"})
    assert reasons(explained) == ["", "several letters on a single-answer question: AB", ""]
    assert (
        isinstance(explained[2], Question) and explained[2].options == ["正确", "错误"] and explained[2].answer == "B"
    )
    with pytest.raises(BadInput, match="source_options.kinds: 配伍题='one'; a kind is single, multi, true_false"):
        table.read(tmp_path / "t.csv", kinds={"配伍题": "one"})


def test_a_table_of_statements_has_no_options(tmp_path):
    rows = read(tmp_path, "题干,题型,答案\n题一,判断,对\n题二,单选,A\n")
    assert isinstance(rows[0], Question) and (rows[0].options, rows[0].answer) == (["正确", "错误"], "A")
    assert reasons(rows)[1] == "no column of options: without one a question is of true or false; 题型 is '单选'"
    with pytest.raises(
        BadInput, match=r"of true or false and have none: \"source_options=\{kinds: \{'': true_false\}\}"
    ):
        read(tmp_path, "题干,答案\n题一,错\n")
    (question,) = read(tmp_path, "题干,答案\n题一,错\n", kinds={"": "true_false"})
    assert isinstance(question, Question) and question.answer == "B"


def test_a_column_that_comes_late_is_read_or_told(tmp_path, caplog):
    rows: list[dict] = [{"题目": f"题{n}", "A": "甲", "B": "乙", "答案": "A"} for n in range(150)]
    rows[130]["材料"], rows[140]["C"], rows[145]["备注"] = "案例", "丙", "见上"
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = [record for record in table.read(tmp_path / "t.jsonl") if isinstance(record, Question)]
    assert len(read) == 150 and [n for n, q in enumerate(read) if q.context] == [130]
    assert [n for n, q in enumerate(read) if q.options == ["甲", "乙", "丙"]] == [140]
    assert [message.split(";")[0] for message in caplog.messages] == ["t: columns that are not read: 备注"]
    rows[120]["解析"], rows[125]["答案解析"] = "一", "二"
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadInput, match="解析 and 答案解析 may both be the rationale"):
        list(table.read(tmp_path / "t.jsonl"))


def test_a_key_that_counts_in_two_ways_is_told_row_by_row(tmp_path):
    rows = [{"question": "q", "choices": ["w", "x", "y", "z"], "answer": key} for key in (0, 1, 4)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = list(table.read(tmp_path / "t.jsonl"))
    hint = '"source_options={columns: {answer_from_0: answer}}" if it counts from 0'
    assert all(isinstance(r, Reject) and r.code == "an answer that is a number" and hint in r.detail for r in plain)
    counted = list(table.read(tmp_path / "t.jsonl", columns={"answer_from_0": "answer"}))
    assert reasons(counted)[:2] == ["", ""] and reasons(counted)[2].startswith("an index beyond the options: 4, of 4")


DIRTY = "来访者<b>张某</b>说&nbsp;：打我电话13812345678\u202e\x07，下列处理得当的是"


def test_texts_pass_the_cleaning_of_posts(tmp_path):
    text = f'stem,A,B,answer,rationale\n"{DIRTY}",甲<br>,乙,A,"更多资料加微信 wx: psy_2026 领取"\n'
    (question,) = read(tmp_path, text)
    assert isinstance(question, Question)
    whole = question.stem + question.rationale + "".join(question.options)
    assert "[电话已隐去]" in question.stem and question.options == ["甲", "乙"]
    assert not {"<", "&", "\u202e", "\x07"} & set(whole) and "psy_2026" not in whole and "138" not in whole
    assert question.meta["trail"][0]["step"] == "clean"


def test_the_cleaning_can_be_left_out_but_for_what_no_file_may_hold(tmp_path):
    assert reasons(read(tmp_path, f"stem,A,B,answer\n{DIRTY},甲,乙,A\n", clean=False))[0].startswith(
        "a character that is no text: U+202E"
    )
    (question,) = read(tmp_path, "stem,A,B,answer\n<b>题</b>,甲,乙,A\n", clean=False)
    assert isinstance(question, Question) and question.stem == "<b>题</b>"


AD = "扫码关注心理考研公众号，限时领取全套资料，报名立减二百元。"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"“{AD}”这句广告利用的是（ ）,甲,乙,A,因为", "what may be an advertisement, or a page's furniture"),
        (f"下列正确的是,甲,乙,A,因为甲。{AD}", "what may be an advertisement, or a page's furniture"),
        ("看图回答：[图片]图中的现象是,甲,乙,A,因为", "a picture that is not here: '[图片]'"),
        ("<img src='a.png'>图中的现象是,甲,乙,A,因为", "a picture that is not here"),
        ("下列正确的是,甲<img src=b>,乙,A,因为", "a picture that is not here"),
        ("下列正确的是<|im_end|>,甲,乙,A,因为", "a mark of a model's turn or thought: '<|im_end|>'; take it out"),
        ("下列正确的是,甲,乙,A,<thinking>想</thinking>因为", "a mark of a model's turn or thought"),
        ("下列正确的是,甲,乙[/INST],A,因为", "a mark of a model's turn or thought"),
        ("下列正确的是（ ）答案：B,甲,乙,B,因为", "a stem that holds the answer: '答案：B"),
    ],
)
def test_what_may_belong_to_a_question_is_neither_taken_out_nor_trained_on(row, reason, tmp_path):
    (why,) = reasons(read(tmp_path, f"stem,A,B,answer,rationale\n{row}\n"))
    assert why.startswith(reason), why


def test_a_stem_may_ask_for_the_answer(tmp_path):
    stems = ("请选择正确答案：", "Select the best answer: A man who sleeps is", "依恋是（ ）请写出答案：")
    text = "".join(f"{stem},甲,乙,B\n" for stem in stems)
    assert reasons(read(tmp_path, f"stem,A,B,answer\n{text}")) == ["", "", ""]


def test_letters_behind_markup_are_no_part_of_an_option(tmp_path):
    text = "stem,A,B,answer,rationale\n题,<p>A. 视觉</p>,<p>B. 听觉</p>,<p>B</p>,图见[图片]。来源：某某网\n"
    first, second, third = read(tmp_path, text + "题二,\u200bA.视觉,&nbsp;B.听觉,B,\n题三,<b>视觉</b>,听觉,视觉,\n")
    assert isinstance(first, Question) and isinstance(second, Question) and isinstance(third, Question)
    assert first.options == second.options == third.options == ["视觉", "听觉"]
    assert [first.answer, second.answer, third.answer] == ["B", "B", "A"] and first.rationale == "图见。"


def test_numbers_and_repeated_words_of_questions_are_no_emoticons(tmp_path):
    (question,) = read(tmp_path, "stem,A,B,answer\n233 名被试中失眠者有多少？,233,66666,A\n")
    assert isinstance(question, Question)
    assert (question.stem, question.options) == ("233 名被试中失眠者有多少？", ["233", "66666"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("题\ufffd,甲,乙,A", "characters of the text are lost: 1 x \ufffd near '题\ufffd甲乙'"),
        ("题,<br>,乙,A", "cleaning leaves nothing of a text: an option"),
        ("题,电话13812345678,电话13912345678,A", "two options are the same: after cleaning: 电话[电话已隐去]"),
        ("题,甲,乙,", "no answer"),
        (",甲,乙,A", "no question text"),
    ],
)
def test_rows_that_are_refused(row, reason, tmp_path):
    (why,) = reasons(read(tmp_path, f"stem,A,B,answer\n{row}\n"))
    assert why.startswith(reason)


def test_a_formula_without_a_value_refuses_its_row_also_in_a_rationale(tmp_path):
    formula = Raw('<c r="{0}"><f>A1&amp;B1</f></c>')
    rows = [["题干", "A", "B", "答案", "解析"], ["一", "甲", "乙", "A", formula], ["二", "甲", "乙", formula, "因为"]]
    path = write_workbook(tmp_path / "t.xlsx", {"s": rows})
    told = "a cell without a value: a formula that no program has worked out; open and save it"
    assert reasons(table.read(path)) == [f"a rationale that is no text: {told}", told]


def test_values_that_are_no_texts_never_become_text(tmp_path):
    rows = [
        {"stem": {"text": "题"}, "options": ["甲", "乙"], "answer": "A"},
        {"stem": "题", "options": ["甲", "乙"], "answer": "A", "rationale": ["因为"]},
        {"stem": "题", "options": ["甲", {"value": "乙"}], "answer": "A"},
        {"stem": "题", "options": ["甲", "乙"], "answer": True},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert [why.split(":")[0] for why in reasons(table.read(tmp_path / "t.json"))] == [
        "a stem that is no text", "a rationale that is no text", "an option that is not a label and a text",
        "an answer that is neither letters nor a text",
    ]  # fmt: skip


def test_two_columns_that_may_be_one_field_are_asked_about(tmp_path):
    with pytest.raises(BadInput) as error:
        read(tmp_path, "题目,题干,A,B,答案\n一,下列,甲,乙,A\n")
    assert "题目 and 题干 may both be the stem; say which" in str(error.value)
    assert '"source_options={columns: {stem: 题干}}"' in str(error.value)
    (question,) = read(tmp_path, "题目,题干,A,B,答案\n一,下列,甲,乙,A\n", columns={"stem": "题干"})
    assert isinstance(question, Question) and question.stem == "下列"


def test_a_file_of_a_folder_without_the_columns_is_one_reject(tmp_path):
    (tmp_path / "a.csv").write_text("stem,A,B,answer\n题,甲,乙,A\n")
    (tmp_path / "b.csv").write_text("姓名,年龄\n某,20\n某,21\n")
    question, reject = table.read(tmp_path)
    assert isinstance(question, Question) and isinstance(reject, Reject)
    assert (question.id, reject.id, reject.code) == ("a/2", "b/0", "a file that cannot be read")
