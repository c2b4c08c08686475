"""Near-duplicates merge into the most complete one; what only looks alike stays, and nothing is lost on the way."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest
from pydantic import ValidationError

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Passage, Post, Question, Turn
from data_pipeline.steps import check_balance
from data_pipeline.steps.deduplicate import Settings, _grams, _hashes, _spell
from data_pipeline.synthesis import apply
from tests.benchmarks.deduplicate import CHARACTERS, base_questions, measure, near_copy, plain_jaccard
from tests.conftest import DATA

STEM = "小李每次考试前都反复检查文具，明知没有必要却控制不住，为此十分苦恼，这种表现最可能是（　　）"
OPTIONS = ["强迫症状", "焦虑发作", "疑病观念", "惊恐障碍"]


def question(id: str, stem: str = STEM, options: list[str] = OPTIONS, answer: str = "A", **more) -> Question:
    kind = "multi" if len(answer) > 1 else "single"
    return Question(**{"kind": kind, "source": "table", "subject": "", "meta": {}} | more, id=id, stem=stem,
                    options=list(options), answer=answer)  # fmt: skip


def merged(*rows, **settings) -> dict[str, str]:
    """Returns {merged id: kept id} after holding that no row is lost."""
    ids = [row.id for row in rows]
    result = apply.run("deduplicate", rows, Settings(**settings))
    check_balance("deduplicate", ids, result)
    assert result.report["in"] == result.report["out"] + result.report["merged"] == len(rows)
    assert [row.id for row in result.rows] == [id for id in ids if id not in result.report["merged_ids"]]
    return {pair["merged"]: pair["kept"] for pair in result.files["clusters"]}


def test_spelling_order_of_options_and_slips_make_no_other_question():
    shuffled = question("b", STEM.replace("，", ","), [OPTIONS[i] for i in (2, 0, 3, 1)], "B")
    slip = question("c", STEM.replace("反复检查", "反复地检查") + "?", [f"{o}。" for o in OPTIONS])
    assert merged(question("a"), shuffled, slip) == {"b": "a", "c": "a"}


def test_the_most_complete_member_is_kept_and_names_the_others():
    rows = [question("a"), question("b", rationale="因为"), question("c", rationale="因为明知没有必要"), question("d")]
    result = apply.run("deduplicate", rows, Settings())
    assert [row.id for row in result.rows] == ["c"]
    assert result.rows[0].meta["trail"] == [{"step": "deduplicate", "merged": ["a", "b", "d"]}]
    assert result.report["merged_ids"] == ["a", "b", "d"] and result.report["sizes"] == {4: 1}
    assert result.files["clusters"][0] == {
        "kept": "c", "merged": "a", "similarity": 1.0, "kept_answer": "强迫症状", "merged_answer": "强迫症状",
        "kept_text": f"{STEM} {' '.join(OPTIONS)}"[:80], "merged_text": f"{STEM} {' '.join(OPTIONS)}"[:80],
    }  # fmt: skip
    first = apply.run("deduplicate", [question("x"), question("y")], Settings())
    assert [row.id for row in first.rows] == ["x"]


@pytest.mark.parametrize(
    "other",
    [
        question("b", answer="B"),
        question("b", answer="AB"),
        question("b", STEM.replace("最可能是", "最不可能是"), answer="C"),
        question("b", options=OPTIONS[::-1], answer="A"),  # the letter is the same, the text behind it is not
        question("b", kind="multi"),
        question("b", options=["强迫人格", *OPTIONS[1:]]),
    ],
    ids=["letter", "letters", "stem", "shuffled", "kind", "text"],
)
def test_other_right_answers_are_a_conflict_and_both_stay(other):
    rows = [question("a"), other, question("c")]
    result = apply.run("deduplicate", rows, Settings())
    check_balance("deduplicate", "abc", result)
    assert [row.id for row in result.rows] == ["a", "b"] and result.report["merged_ids"] == ["c"]
    assert [(c["first"], c["second"]) for c in result.files["conflicts"]] == [("a", "b")]
    assert result.rows[1].meta["trail"] == [{"step": "deduplicate", "conflict": "a"}]


SHORT = [
    ("什么是移情？", []),
    ("什么是共情？", []),
    ("移情属于（）", ["投射", "阻抗"]),
    ("反移情属于（）", ["投射", "阻抗"]),
    ("下列说法正确的是", ["睡眠有四个阶段", "梦只在深睡中出现"]),
    ("下列说法正确的是", ["情绪与认知无关", "情绪影响记忆"]),
    ("下列属于感觉的是", OPTIONS),
    ("下列属于知觉的是", OPTIONS),
    ("方差是25，标准差是", ["5", "25", "50"]),
    ("方差是25，标准差是", ["5", "25", "51"]),
    ("？", []),
    ("", []),
]


def test_unrelated_short_questions_never_merge():
    rows = [question(f"{i}", stem, options, "A" if options else "") for i, (stem, options) in enumerate(SHORT)]
    assert merged(*rows, bands=126, rows=1, threshold=0.3) == {}  # every pair with a gram in common is looked at
    again = [replace(row, id=f"{row.id}again", meta={}) for row in rows]
    assert merged(*rows, *again) == {f"{i}again": f"{i}" for i in range(len(rows)) if SHORT[i][0] not in ("", "？")}


def test_long_options_do_not_drown_the_question():
    options = ["".join(random.Random(i).sample(CHARACTERS, 30)) for i in range(4)]
    rows = [
        question("a", "下列哪一项最符合来访者的情况", options),
        question("b", "咨询师首先应当排除以下何者", options),
    ]
    assert merged(*rows) == {}
    assert merged(rows[0], replace(rows[1], stem="下列哪项最符合来访者的情况")) == {"b": "a"}


def test_one_conflict_is_told_once_whatever_merges():
    rows = [question("a", rationale="因为"), question("b", answer="B"), question("c", answer="B")]
    result = apply.run("deduplicate", rows, Settings())
    assert [(c["first"], c["second"]) for c in result.files["conflicts"]] == [("a", "b")]
    assert result.rows[0].meta["trail"] == [{"step": "deduplicate", "conflict": "b"}]
    assert result.rows[1].meta["trail"][0]["merged"] == ["c"]


def test_one_case_with_two_questions_and_one_question_of_two_cases_stay():
    case = "求助者，女性，三十一岁，图书管理员。搬到新城市以后两个月睡不好，常常在凌晨醒来，担心自己做不好工作。"
    other = "求助者，男性，四十五岁，货车司机。三个月前目睹车祸，此后回避高速公路，反复梦到当时的场面，易怒。"
    long = question("a", "对该求助者最可能的诊断是（　　）", context=case)
    others = [replace(long, id="b", meta={}, context=other), replace(long, id="c", meta={}, context="")]
    assert merged(long, *others) == merged(long, *others, bands=126, rows=1) == {}  # also when looked at
    assert merged(long, replace(long, id="b", meta={}, context=case.replace("三十一", "31"))) == {"b": "a"}
    within = question("a", f"{case}该求助者最可能的诊断是")
    asked = question("b", f"{case}该求助者最适合的方法是", ["系统脱敏", "合理情绪疗法", "睡眠限制", "自由联想"])
    assert merged(within, asked, threshold=0.6) == {}


def test_a_drifting_chain_is_not_merged_by_hearsay():
    text = "".join(random.Random(1).sample(CHARACTERS, 120))
    # each near to the next, the first far from the last
    rows = [Passage(f"p{step}", "own", "", text[: 120 - 12 * step] + text[::-1][: 12 * step]) for step in range(8)]
    found = merged(*rows)
    assert found and all(plain(rows, a, b) >= 0.75 for a, b in found.items())
    assert set(found.values()) - {"p0"}, "what is left of the chain is decided too"


def plain(rows, a: str, b: str) -> float:
    texts = [next(row.text for row in rows if row.id == id) for id in (a, b)]
    first, second = (question(text, text, []) for text in texts)
    return plain_jaccard(first, second)


def test_posts_passages_and_dialogues_merge_by_their_texts():
    text = "最近三个月我总是睡不着，躺在床上脑子停不下来，白天上课没有精神，和室友也吵了好几次，不知道该怎么办。"
    posts = [
        Post("a", "own", "睡不着", text, ["试试放松"]),
        Post("b", "own", "睡不着！", text + "谢谢", ["试试放松", "早点休息"]),
    ]
    assert merged(*posts) == {"a": "b"}  # more replies
    flagged = replace(posts[0], meta={"crisis": ["自伤"]})
    assert merged(flagged, posts[1]) == {"b": "a"}  # a flag is never merged away
    dialogues = [Dialogue(i, "own", [Turn("client", text), Turn("counselor", "听起来你很累。")]) for i in "cd"]
    passages = [Passage(i, "own", "", text) for i in "ef"]
    assert merged(*dialogues, *passages) == {"d": "c", "f": "e"}  # and never a passage into a dialogue
    assert (
        merged(Post("g", "own", "", "我很难过", []), Post("h", "own", "", "我很难受", []), threshold=0.2, rows=1) == {}
    )
    with pytest.raises(BadInput, match="row 1 is a dict; it takes questions, posts, dialogues and passages"):
        apply.run("deduplicate", [{"id": "x"}], Settings())


def test_hashes_are_of_the_same_grams_as_the_exact_check():
    texts = [_spell(["甲乙丙丁甲乙丙", "", "ab", "c"]), _spell(["_"]), _spell(["ＡＢ，１２３\n四"])]
    for n in (1, 2, 3, 5):
        hashes, offsets = _hashes(texts, n)
        for i, text in enumerate(texts):
            found = hashes[int(offsets[i]) : int(offsets[i + 1])]
            assert len(set(found.tolist())) == len(_grams(text, n))
            assert len(found) == len(text.replace("\n", ""))
    assert _grams("ab\nc", 3) == {"ab\n", "b\n\n", "c\n\n"} and texts[2] == "ab123四"


def test_thousands_of_equal_rows_and_none_at_all():
    rows = [question(f"{i}") for i in range(3000)]
    result = apply.run("deduplicate", rows, Settings())
    assert len(result.rows) == 1 and result.report["candidates"] < 6000
    assert apply.run("deduplicate", [], Settings()).report["out"] == 0


def test_a_second_run_finds_nothing_more():
    rng = random.Random(3)
    base = base_questions([], 300, rng)
    once = apply.run("deduplicate", base + [near_copy(q, 0.8, rng) for q in base[:100]], Settings())
    assert once.report["merged"] >= 90
    assert apply.run("deduplicate", once.rows, Settings()).report["merged"] == 0


def test_planted_copies_are_found_and_nothing_else():
    figures = measure(DATA / "cpsyexam", number=6000, peer=0)
    assert figures["recall"] >= 0.85 and figures["precision"] == 1


def test_memory_stays_low():
    code = (
        "import random, resource\n"
        "from data_pipeline.records import Post\n"
        "from data_pipeline.steps.deduplicate import Settings, run\n"
        "text = ''.join(map(chr, random.Random(1).choices(range(0x4e00, 0x5e00), k=1000000)))\n"
        "rows = [Post(str(i), 'own', '', text[i * 19:i * 19 + 200], []) for i in range(50000)]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "run(rows, Settings())\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 300, "MiB for 50,000 posts of 200 characters"


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"threshold": 1.1}, {"n": 0}, {"bands": 0}, {"rows": 0}, {"short": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError, match=rf"Settings\n{next(iter(wrong))}\n"):
        Settings(**wrong)
