"""Options, keys and kinds as people write them; what may be read in two ways is a Fault."""

import pytest

from data_pipeline.records import LETTERS, Fault
from data_pipeline.tables.columns import Fields, beyond
from data_pipeline.tables.keys import read_key, read_kind, true_or_false
from data_pipeline.tables.options import Options, read_options

FOUR = ["依恋", "分离焦虑", "陌生情境", "安全基地"]


def options(texts: list[str] = FOUR) -> Options:
    read = read_options(texts)
    assert isinstance(read, Options), read
    return read


@pytest.mark.parametrize(
    "cell",
    [
        FOUR,
        '["依恋", "分离焦虑", "陌生情境", "安全基地"]',
        "['依恋', '分离焦虑', '陌生情境', '安全基地']",  # as Python writes it
        {"A": "依恋", "B": "分离焦虑", "C": "陌生情境", "D": "安全基地"},
        {"d": "安全基地", "c": "陌生情境", "b": "分离焦虑", "a": "依恋"},
        {"选项A": "依恋", "选项B": "分离焦虑", "选项C": "陌生情境", "选项D": "安全基地"},
        {"text": FOUR, "label": ["A", "B", "C", "D"]},
        {"labels": ["1", "2", "3", "4"], "texts": FOUR},
        [{"key": "A", "value": "依恋"}, {"key": "B", "value": "分离焦虑"}, {"key": "C", "value": "陌生情境"},
         {"key": "D", "value": "安全基地"}],
        [{"B": "分离焦虑"}, {"A": "依恋"}, {"C": "陌生情境"}, {"D": "安全基地"}],
        [{"label": "D", "text": "安全基地"}, {"label": "A", "text": "依恋"}, {"label": "C", "text": "陌生情境"},
         {"label": "B", "text": "分离焦虑"}],
        ["A. 依恋", "B．分离焦虑", "C、陌生情境", "（D）安全基地"],
        ["a) 依恋", "b) 分离焦虑", "c) 陌生情境", "d) 安全基地"],
        ["Ａ：依恋", "Ｂ：分离焦虑", "Ｃ：陌生情境", "Ｄ：安全基地"],
        ["A 依恋", "B 分离焦虑", "C 陌生情境", "D 安全基地"],
        "A 依恋\nB 分离焦虑\nC 陌生情境\nD 安全基地",
        "A.依恋\r\nB.分离焦虑\r\n\r\nC.陌生情境\r\nD.安全基地\r\n",
        "A. 依恋 B. 分离焦虑 C. 陌生情境 D. 安全基地",
        "(A)依恋；(B)分离焦虑；(C)陌生情境；(D)安全基地",
        "依恋|分离焦虑|陌生情境|安全基地",
        "A.依恋|B.分离焦虑|C.陌生情境|D.安全基地",
        ["A依恋", "B分离焦虑", "C陌生情境", "D安全基地"],
        "（A）依恋（B）分离焦虑（C）陌生情境（D）安全基地",
        [{"option": letter, "content": text} for letter, text in zip("ABCD", FOUR, strict=True)],
        [{"index": place, "text": text} for place, text in enumerate(FOUR)],
        ["选项A：依恋", "选项B：分离焦虑", "选项C：陌生情境", "选项D：安全基地"],
        ["A——依恋", "B——分离焦虑", "C——陌生情境", "D——安全基地"],
        ["A。依恋", "B。分离焦虑", "C。陌生情境", "D。安全基地"],
        ["A・依恋", "B・分离焦虑", "C・陌生情境", "D・安全基地"],
        ["Ⓐ依恋", "Ⓑ 分离焦虑", "Ⓒ陌生情境", "Ⓓ安全基地"],
        ["**A.** 依恋", "**B.** 分离焦虑", "**C.** 陌生情境", "**D.** 安全基地"],
        "['依恋' '分离焦虑'\n '陌生情境' '安全基地']",  # as numpy writes it
        [*FOUR, None, ""],  # columns E and F that this question does not use
    ],
)  # fmt: skip
def test_the_same_options_in_many_forms(cell):
    assert options(cell).texts == FOUR


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        (["A型人格", "B型人格", "C型人格", "D型人格"], ["A型人格", "B型人格", "C型人格", "D型人格"]),
        (["A 型", "B 型"], ["A 型", "B 型"]),  # without the letters they would be one
        (["A. 班杜拉", "斯金纳"], ["A. 班杜拉", "斯金纳"]),  # only one bears its letter
        (["B. F. 斯金纳", "A. 班杜拉的追随者", "罗杰斯"], ["B. F. 斯金纳", "A. 班杜拉的追随者", "罗杰斯"]),
        (["A组高于B组", "B组高于A组", "C组最高"], ["A组高于B组", "B组高于A组", "C组最高"]),
        (["A、B都对", "A对B错", "A错B对"], ["A、B都对", "A对B错", "A错B对"]),
        ([0.05, 1, "α"], ["0.05", "1", "α"]),
        ("A 在母亲离开时\n大哭\nB 视而不见", ["在母亲离开时\n大哭", "视而不见"]),
    ],
)
def test_what_is_no_letter_of_its_own_stays(cell, texts):
    assert options(cell).texts == texts


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (["依恋", {"x": 1, "y": 2, "z": 3}], "an option that is not a label and a text"),
        ([{"key": "A", "value": "依恋"}, "分离焦虑"], "an option that is not a label and a text: '分离焦虑'"),
        ([{"text": "依恋", "correct": True}] * 2, "an option that is not a label and a text"),
        ([{"key": "A", "value": ["依恋"]}, {"key": "B", "value": "x"}], "an option that is no text: list: ['依恋']"),
        ([True, False], "an option that is no text: bool: True"),
        ([{"key": "A", "value": "x"}, {"key": "A", "value": "y"}], "two options with one letter: AA"),
        ({"first": "依恋", "second": "分离"}, "labels of options that are neither letters nor numbers in a row: first"),
        (["A. 依恋", "C. 分离", "B. 基地"], "options that bear the letters of other places: A. 依恋 | C. 分离"),
        (["E. 依恋", "F. 分离"], "options that bear the letters of other places: E. 依恋 | F. 分离"),
        (["A. 依恋", "B. 分离", "基地"], "options of which some bear their letters: A. 依恋 | B. 分离 | 基地"),
        (["依恋", "B. 分离", "C. 基地"], "options of which some bear their letters"),
        (["A依恋", "B分离"], "options that may bear their letters: A依恋 | B分离; write them as A. and B."),
        (["B依恋", "A分离", "C基地"], "options that may bear their letters"),
        (["A-依恋", "B-分离", "C-基地"], "options that may bear their letters: A-依恋 | B-分离 | C-基地; write them"),
        (["A/依恋", "B/分离"], "options that may bear their letters"),
        (["A", "B", "C"], "options that are letters alone"),
        (["(a)", "(b)."], "options that are letters alone"),
        ("A. 依恋 B. 分离 答案：A", "an option that holds the answer: '答案：A' in '依恋 | 分离 答案：A'; take it out"),
        (["依恋", "分离【答案】A"], "an option that holds the answer"),
        ({"A": {"text": "依恋"}, "B": {"text": "分离"}}, "an option that is no text: {'text': '依恋'}"),
        ("A. 依恋\nC. 分离", "options whose letters are not in order"),
        ("B. 依恋 C. 分离", "options whose letters are not in order"),
        ("依恋 分离", "options that are neither a list nor an object nor lettered lines: '依恋 分离'"),
        ("依恋\n分离", "options that are neither a list nor an object nor lettered lines"),
        (7, "options that are neither a list nor an object nor lettered lines: 7"),
        (["依恋", "依 恋。"], "two options are the same: 依恋 | 依 恋。"),
        ('{"A": "依恋", "B": "分离", "B": "移情"}', "a key stands twice in one object: B"),
        ([str(n) for n in range(10_000)], "more than 26 options: 10000"),
        ("\n".join(f"{letter}. x{letter}" for letter in LETTERS) + "\nAA. y", "more than 26 options"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_trusted(cell, reason):
    read = read_options(cell)
    assert isinstance(read, Fault) and read.reason.startswith(reason), read


KEYS = [
    ("B", "B"), ("Ｂ", "B"), ("b", "B"), ("（B）", "B"), ("(b)", "B"), ("【B】", "B"), ("B。", "B"), ("B.", "B"),
    ("B\n", "B"),
    ("选B", "B"), ("故选B。", "B"), ("答案：B", "B"), ("正确答案是B", "B"), ("Answer: B", "B"), ("B项", "B"),
    ("ACD", "ACD"), ("A,C,D", "ACD"), ("A、C、D", "ACD"), ("A C D", "ACD"), ("A·C·D", "ACD"), ("Ａ，Ｃ，Ｄ", "ACD"),
    ("a+c", "AC"),
    ('["A","C"]', "AC"), ("['A', 'C']", "AC"), (["A", "C"], "AC"), (["依恋", "C"], "AC"), (["A"], "A"), ("DA", "DA"),
    ("分离焦虑", "B"), (" 分离 焦虑。", "B"), ("依恋、陌生情境", "AC"), ("B：分离焦虑", "B"), ("B. 分离焦虑", "B"),
    ("B（分离焦虑）", "B"), ("<p>B</p>", "B"), ("<b>分离</b>焦虑", "B"), ("A<br>", "A"),
    ("B\u200b", "B"), ("\ufeff分离焦虑", "B"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "letters"), KEYS)
def test_the_same_key_in_many_forms(cell, letters):
    assert read_key(cell, options(), None, "") == (options(), letters)


@pytest.mark.parametrize(
    ("cell", "texts", "reason"),
    [
        ("", FOUR, "no answer"),
        (None, FOUR, "no answer"),
        ([], FOUR, "no answer"),
        (True, FOUR, "an answer that is neither letters nor a text: True"),
        ({"A": 1}, FOUR, "an answer that is neither letters nor a text"),
        (2, FOUR, "an answer that is a number: '2'; which option is it? HINT"),
        ("1,2", FOUR, "an answer that is a number: '1,2'; which option is it? HINT"),
        ("3.0", FOUR, "an answer that is a number: '3.0'; which option is it? HINT"),
        ("②", FOUR, "an answer that is a number: '②'; which option is it? HINT"),
        ("4", ["2", "4", "6", "8"], "an answer that is a number: '4'"),  # the second or the fourth
        ("B（依恋）", FOUR, "an answer whose letter and text do not agree"),
        ("B. 陌生情境", FOUR, "an answer whose letter and text do not agree: 'B. 陌生情境'"),
        ("A或B", FOUR, "the answer is not letters alone: 'A或B', and not the text of an option"),
        ("略", FOUR, "the answer is not letters alone: '略'"),
        ("bad", ["good", "bad", "ugly", "fair"], "an answer that may be two: 'bad' is the letter BAD and the text"),
        ("all of the above", FOUR, "the answer is not letters alone: 'all of the above'"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_trusted(cell, texts, reason):
    read = read_key(cell, options(texts), None, "HINT")
    assert isinstance(read, Fault) and read.reason.startswith(reason), read


def test_words_are_texts_and_no_letters():
    english = options(["Vision", "Hearing", "Bad", "8"])
    assert [read_key(cell, english, None, "") for cell in ("Vision", "hearing.", 8)] == [
        (english, letter) for letter in "ABD"
    ]


def test_labels_that_are_numbers_are_what_the_key_says():
    read = read_options({"text": ["甲", "乙", "丙"], "label": ["1", "2", "3"]})
    assert isinstance(read, Options) and read_key("2", read, None, "") == (read, "B")


@pytest.mark.parametrize(
    ("cell", "first", "read"),
    [
        (0, 0, "A"), ("3", 0, "D"), (1, 1, "A"), ("4", 1, "D"), (2.0, 1, "B"), ("2.0", 1, "B"), ([0, 2], 0, "AC"),
        ("1，3", 1, "AC"), ("③", 1, "C"), ("①②", 1, "AB"), ("13", 1, "AC"), ("3.0", 1, "C"),
        (4, 0, "an index beyond the options: 4, of 4 options counted from 0; does the column count in two ways?"),
        (0, 1, "an index beyond the options: 0, of 4 options counted from 1; does the column count in two ways?"),
        ("B", 0, "an answer that is no index: 'B'; the options are counted from 0"),
        (-1, 0, "an answer that is no index: '-1'"),
    ],
)  # fmt: skip
def test_a_key_that_counts(cell, first, read):
    key = read_key(cell, options(), first, "")
    assert key[1] == read if isinstance(key, tuple) and not isinstance(key, Fault) else key.reason.startswith(read)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            "单选|单选题|【单选题】|单项选择|单项选择题|single|single_choice|Single Choice|A1型题|A1/A2型题|最佳选择题",
            "single",
        ),
        ("多选|多选题|多项选择题|不定项选择|不定项选择题|不定项|multi|multiple_answer|X型题", "multi"),
        ("判断|判断题|是非题|true/false|True or False", "true_false"),
        ("multiple choice|选择题|配伍题|简答题|材料", ""),
    ],
)
def test_words_for_kinds(words, kind):
    assert {word: read_kind(word, {}) for word in words.split("|")} == dict.fromkeys(words.split("|"), kind)
    assert read_kind("配伍题", {"配伍题": "single"}) == "single"


@pytest.mark.parametrize(
    ("key", "stem", "texts", "letter"),
    [
        ("对", "感觉是知觉的基础。", ["正确", "错误"], "A"), ("×", "情绪没有生理基础。", ["正确", "错误"], "B"),
        (False, "Attachment is learnt.", ["True", "False"], "B"), ("T", "Sleep matters.", ["True", "False"], "A"),
    ],
)  # fmt: skip
def test_true_or_false_becomes_two_options(key, stem, texts, letter):
    read = true_or_false(key, stem, None, "")
    assert not isinstance(read, Fault) and (read[0].texts, read[1]) == (texts, letter)


def test_true_or_false_with_options_of_its_own():
    given = options(["错", "对"])
    assert true_or_false("正确", "题", given, "") == (given, "B")
    assert true_or_false("A", "题", given, "") == (given, "A")
    unclear = true_or_false("也许", "题", None, "")
    assert isinstance(unclear, Fault) and unclear.code == "an answer that is neither true nor false"


FIELDS = Fields(
    {"stem": ("题干", "题目"), "options": ("选项",), "answer": ("答案",)}, (("stem",), ("options",)), ("options",)
)


def test_columns_are_known_by_usual_names_and_series():
    assert FIELDS.columns({}, ["题干", "选项A", "选项B", "选项C", "答案"]) == {
        "stem": "题干", "options": ["选项A", "选项B", "选项C"], "answer": "答案",
    }  # fmt: skip
    assert FIELDS.columns({"stem": "B", "answer": None}, ["A", "B", "答案", "选项 1", "选项 2"]) == {
        "stem": "B", "options": ["选项 1", "选项 2"],
    }  # fmt: skip


def test_columns_that_go_on_after_the_mapped_ones():
    assert beyond(["选项A", "选项B"], ["选项A", "选项B", "选项C", "选项E"]) == ["选项C", "选项E"]
    assert beyond(["opt1", "opt2"], ["opt1", "opt2", "opt3", "opt"]) == ["opt3"]
    assert beyond(["甲", "乙"], ["甲", "乙", "丙"]) == []
