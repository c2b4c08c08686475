"""The two readings: what strict-match reads and no more, and what flexible-extract makes of what models write."""

import pytest

from reward.answer import read, read_answer, read_strict_match
from tests.conftest import REPOSITORY

OPTIONS = ["视觉", "听觉", "思维", "想象"]
THOUGHT = "<think>因为</think>"
READINGS = [
    line.split("\t") for line in (REPOSITORY / "tests/reward/readings.tsv").read_text(encoding="utf-8").splitlines()
]
NOT_YET = {  # read although they should not be, and not read although they are plain: a list that should shrink
    "A. No. C.",
    "No answer. (A)",
    "B — hearing is a sensation.",
    "**B**：听觉由感觉器官直接引起。",
    "符合的选项是A和C，B和D则不符合。",
    "答案：D。A项与表象无关，B项同理，C项强调的是推理。",
    "答案：C。B项说法片面，D项过于绝对。",
    "答案：C。D容易与C混淆，但D强调形象。",
    "答案：C。注意不要误选D。",
    "答案：C、D↵A项：感觉。↵B项：感觉。",
}

STRICT = [
    ("答案：A", "A"),
    ("\n\n答案：A\n", "A"),
    (" 答案 ： D、B，A ", "ABD"),
    ("答案:ABD", "ABD"),
    ("答案：Ａ\u3000Ｃ", "AC"),
    ("Answer: A, C", "AC"),
    ("Answer：B", "B"),
    ("\\boxed{A}", "A"),
    ("\\boxed{ C , A }", "AC"),
]
NOT_STRICT = [
    "A",
    "答案：",
    "答案A",
    "答案是A",
    "最终答案：A",
    "answer: A",
    "答案：a",
    "答案：A。",
    "答案：A、",
    "答案：A、、B",
    "答案：A,、B",
    "答案：A；B",
    "答案：A和B",
    "答案：A或B",
    "答案：A/B",
    "答案：A-C",
    "答案：\nA",
    "答案：A\nB",
    "答案：A\n答案：A",
    "答案：A\n解析",
    "解析\n答案：A",
    "答案：A（听觉）",
    "答案：A. 视觉",
    "答案：AA",
    "答案：E",
    "答案：AE",
    "答案：视觉",
    "**答案：A**",
    "$\\boxed{A}$",
    "\\boxed{A",
    "\\boxed{A}}",
    "\\boxed{A}, \\boxed{B}",
    "答案：\\boxed{A}",
    "Answer: A}",
    "答案：A\u200b",
    "",
]


@pytest.mark.parametrize(("answer", "letters"), STRICT)
def test_the_asked_form_is_read_by_both(answer, letters):
    assert read_strict_match(THOUGHT + answer, OPTIONS) == letters
    assert read_answer(THOUGHT + answer, OPTIONS) == letters


@pytest.mark.parametrize("answer", NOT_STRICT)
def test_strict_match_reads_no_other_form(answer):
    assert read_strict_match(THOUGHT + answer, OPTIONS) is None


@pytest.mark.parametrize(
    "response",
    [
        "答案：A",
        "<think></think>答案：A",
        "<think>\n </think>答案：A",
        "<think>答案：A",
        "<think>答案：A</think>",
        "<think>a</think><think>b</think>答案：A",
        "<think>a<think>b</think>答案：A",
        "<think>a</think>b</think>答案：A",
        "好的<think>a</think>答案：A",
        "a</think>答案：A",
        "答案：A<think>a</think>",
    ],
)
def test_strict_match_wants_one_closed_thought_first(response):
    assert read_strict_match(response, OPTIONS) is None


def test_a_thought_may_hold_tags_of_another_kind():
    assert read_strict_match("<think>a < b, <b>c</b>, <thinking></think>答案：A", OPTIONS) == "A"


def test_a_thought_that_the_template_opened_is_read_when_that_is_said():
    for reader in (read_strict_match, read_answer):
        assert reader("因为</think>\n答案：C", OPTIONS, think_prefilled=True) == "C"
        assert reader("<think>因为</think>\n答案：C", OPTIONS, think_prefilled=True) == "C"
        assert reader("因为答案：C", OPTIONS, think_prefilled=True) is None
        assert reader("因为</think>\n答案：C", OPTIONS) is None


def test_flexible_extract_says_why():
    assert read("答案：B", OPTIONS).why == "stated"
    assert "possible" in read("答案：A，也许是C", OPTIONS).why
    assert "taken back" in read("答案：A\n以上答案作废", OPTIONS).why
    assert "not the same" in read("答案：A。答案：B", OPTIONS).why
    assert "later line" in read("A 是对的。\n因此选 B", OPTIONS).why
    assert "more than" in read("答案：A" + " " * 5000, OPTIONS).why


@pytest.mark.parametrize("row", READINGS, ids=lambda row: row[3])
def test_a_wording_is_read_as_meant(row):
    """The sets were written one after the other, each before the reader had seen it; `-` is a response that hedges,
    takes back, gives odds, or states no answer. Fresh, they were read so: hacks 8 of 94, 6 of 54, 10 of 51; plain ones
    not read 4 of 64, 5 of 62, 6 of 53; another letter on none. The fifth is of what else is said behind an answer, of
    lists of texts and of texts of another letter: hacks 0 of 37; not read 8 of 43, another letter on one. The sixth
    is of the same, after the rules were chosen on the fifth: hacks 7 of 40; not read 6 of 43, another on none."""
    _, _, expected, response = row
    letters = read_answer(response.replace("↵", "\n"), OPTIONS) or "-"
    if response in NOT_YET:
        pytest.xfail("known")
    assert letters == expected


def test_what_is_not_yet_read_as_meant_is_still_so():
    rows = {response: expected for _, _, expected, response in READINGS}
    assert all((read_answer(text.replace("↵", "\n"), OPTIONS) or "-") != rows[text] for text in NOT_YET)


# Of report 01 and 02: a list of letters that is cut at a separator, and a second possibility behind the letters.
@pytest.mark.parametrize(
    "answer",
    [
        *(r"\boxed{A,\ C}", r"\boxed{A\,C}", r"\boxed{A \& C}", "答案：A·C", "答案：A•C", "答案：A–C", "答案：A→C"),
        *("答案：A——视觉；C——思维", "答案：A=视觉，C=思维", "答案：A“视觉”、C“思维”", "答案：A 视觉 C 思维"),
        *("The answer is A and also C", "Answer: A, also C", "答案：\n- A\n- C", "答案：「A」「C」"),
        *("答案：视觉、思维", "答案：视觉；思维", "答案：“视觉”，“思维”", "答案：视觉。思维", "正确的有：视觉，思维"),
        *("答案：视觉以及思维", "答案：\nA. 视觉 √\nB. 听觉 ×\nC. 思维 √", '{"answer": {"A": true, "C": true}}'),
        *(
            "答案：\nA. 视觉（正确）\nB. 听觉（错误）\nC. 思维（正确）",
            "答案：\nA. 视觉，因为是光\nC. 思维，因为是推理",
        ),
    ],
)
def test_a_list_of_letters_is_read_whole_or_not_at_all(answer):
    assert read_answer(answer, OPTIONS) in ("AC", None)


@pytest.mark.parametrize(
    "answer",
    [
        *("Answer: A and/or B", "Answer: A, B, and/or C", "Answer: A (but possibly C)", "Answer: A. Or B."),
        *(
            "Answer: A, though B could also be right",
            r"\boxed{A \vee C}",
            r"\boxed{A \to C}",
            "答案：A；或C",
            "答案：A。或者C。",
        ),
        *(
            "答案：A，或许C",
            "答案：A（可能C）",
            "答案：A，但B也有可能",
            "答案：A、C也可",
            "答案：A~C",
            "答案：B（若为多选则 BC）",
        ),
        *(
            "答案：A\n或 B",
            "答案：A、（或B）",
            "答案：B，但C也对",
            "答案：B\n\n等等，不对，应该是C。",
            "答案：B 70%，C 30%",
        ),
        *(
            "答案：A、听觉",
            "答案：C 想象",
            "The answer is A (听觉)",
            "选A，听觉",
            "答案：A，即听觉",
            "答案：A（如为单选）",
        ),
        *(
            "答案：B。实际上C才是正解。",
            "答案：B。C优于B。",
            "答案：B。D 不能算错。",
            "答案：B。选D也给分。",
            "答案：B（D给一半分）",
        ),
        *("答案：B。若不考虑X，D亦可。", "Answer: B. C is better.", "\\boxed{B}\n\nHowever, C is more precise."),
        *("Answer: B\nWait, I change my mind: C.", "Not sure. Random pick: B", "Answer: B. Wait, no, it should be C."),
    ],
)
def test_a_second_possibility_makes_an_answer_unreadable(answer):
    assert read_answer(THOUGHT + answer, OPTIONS) is None
