"""What the recipe's limits take, and which dialogues become GRPO prompts: seeded, by post, none with crisis content."""

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.export import selection
from data_pipeline.records import Dialogue, Question, Turn
from data_pipeline.synthesis import splits

TALK = [Turn("client", "我睡不着。"), Turn("counselor", "多久了？", "先了解"), Turn("client", "一个月。"),
        Turn("counselor", "这很熬人。"), Turn("client", "谢谢。"), Turn("counselor", "再见。")]  # fmt: skip


def limits(**keys) -> splits.SplitSettings:
    return selection.settings({"seed": 42, "run": "x", "source": "table", **keys})


def dialogue(id: str, **meta) -> Dialogue:
    return Dialogue(id, "own", [Turn("client", f"{id}：我睡不着。"), *TALK[1:]], {"where": id, **meta})


def ids(rows: list) -> list[str]:
    return [row.id for row in rows]


MANY = [dialogue(f"d{n}") for n in range(40)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": {"grpo_dialogues": -1}}, r"split\.grpo_dialogues=-1: Input should be greater than or equal to 0"),
        ({"split": {"heldout": 1.5}}, r"split\.heldout=1\.5: Input should be a valid integer"),
        ({"split": {"grpo": None}}, r"split\.grpo=None: "),
        ({"split": {"grpo_dialogs": 1}}, r"split\.grpo_dialogs=1: "),
        ({"select": {"single": -2}}, r"select\.single=-2: Input should be greater"),
        ({"select": {"max_question_chars": 0}}, r"select\.max_question_chars=0: "),
        ({"dialogues_per_question": -0.1}, r"dialogues_per_question=-0\.1: "),
        ({"dialogues_per_question": float("inf")}, r"dialogues_per_question=inf: "),
        ({"seed": "x"}, "seed='x': Input should be a valid integer"),
    ],
)
def test_a_value_out_of_bounds_is_told_with_its_key(keys, message):
    with pytest.raises(BadInput, match=f"^{message}"):
        limits(**keys)


def test_prompts_and_the_rest_are_all_and_share_none():
    prompts, rest = splits.draw_prompts(MANY, limits(split={"grpo_dialogues": 12}))
    assert len(prompts) == 12 and sorted(ids(prompts) + ids(rest)) == sorted(ids(MANY))
    assert splits.draw_prompts(MANY, limits()) == ([], MANY)


def test_the_draw_follows_from_seed_and_dialogue_and_not_from_order_or_company():
    first, _ = splits.draw_prompts(MANY, limits(split={"grpo_dialogues": 12}))
    again, _ = splits.draw_prompts(MANY[::-1], limits(split={"grpo_dialogues": 12}))
    assert {d.id: d.turns for d in first} == {d.id: d.turns for d in again}
    fewer, _ = splits.draw_prompts(MANY, limits(split={"grpo_dialogues": 6}))
    assert set(ids(fewer)) < set(ids(first))
    other, _ = splits.draw_prompts(MANY, limits(seed=7, split={"grpo_dialogues": 12}))
    assert set(ids(other)) != set(ids(first))


def test_dialogues_of_one_post_or_with_one_opening_stay_together():
    of_post = [dialogue(f"p{n}", parents=[f"post-{n // 3}"]) for n in range(12)]
    alike = [Dialogue(f"o{n}", "own", TALK, {}) for n in range(3)]
    by_id = [dialogue(f"x{n}", post_id=n // 2) for n in range(2, 8)]
    for wanted in range(1, 21):
        prompts, rest = splits.draw_prompts(of_post + alike + by_id, limits(split={"grpo_dialogues": wanted}))
        assert wanted <= len(prompts) < wanted + 3 and len(prompts) + len(rest) == 21
        for same in (*(ids(of_post[n : n + 3]) for n in range(0, 12, 3)), ids(alike), ["x2", "x3"]):
            assert set(same) <= set(ids(prompts)) or set(same) <= set(ids(rest))


def test_crisis_content_is_never_drawn_and_too_few_are_told_with_their_number():
    flagged = [dialogue(f"c{n}", crisis=["suicide"]) for n in range(5)]
    _, rest = splits.draw_prompts(MANY + flagged, limits(split={"grpo_dialogues": 40}))
    assert ids(rest) == ids(flagged)
    with pytest.raises(BadInput, match=r"=41: only 40 dialogues can be prompts \(5 with crisis.*grpo_dialogues=40$"):
        splits.draw_prompts(MANY + flagged, limits(split={"grpo_dialogues": 41}))
    with pytest.raises(BadInput, match="only 0 dialogues can be prompts; say split.grpo_dialogues=0"):
        splits.draw_prompts([], limits(split={"grpo_dialogues": 1}))


def test_a_prompt_is_cut_after_any_of_its_replies_and_the_dialogue_stays_whole():
    before = [dialogue(f"d{n}") for n in range(300)]
    lengths = [len(splits.cut(d, 42).turns) for d in before]
    assert {n: lengths.count(n) > 70 for n in set(lengths)} == {2: True, 4: True, 6: True}
    assert lengths == [len(splits.cut(d, 42).turns) for d in before] and before == [
        dialogue(f"d{n}") for n in range(300)
    ]
    assert lengths != [len(splits.cut(d, 43).turns) for d in before]


def test_what_is_left_out_is_given_back_and_nothing_is_changed():
    def question(n: int, **changes) -> Question:
        return Question(f"q{n}", "own", "", "single", "题" * 10, ["甲", "乙"], "A", meta={"where": "t"}, **changes)

    questions = [question(n, rationale="因为" * n) for n in range(6)]
    taken, left = splits.take(questions, limits(select={"single": 2, "max_rationale_chars": 6}))
    assert len(taken) == 2 and sorted(ids(taken) + ids(left)) == ids(questions)
    assert sorted(r.detail for r in left) == ["outside the sample"] * 2 + ["too long"] * 2
    kept, left = splits.mix(MANY, 10, limits(dialogues_per_question=0.5))
    assert len(kept) == 5 and len(left) == 35 and sorted(ids(kept) + ids(left)) == sorted(ids(MANY))
    flagged = dialogue("c", crisis=["suicide"])
    assert splits.without_crisis([flagged], limits(train_on_crisis=True)) == ([flagged], [])
    kept, (reject,) = splits.without_crisis([flagged, MANY[0]], limits())
    assert ids(kept) == ["d0"] and (reject.id, reject.code) == ("c", "flagged for people")


@pytest.mark.parametrize(
    ("keys", "reach", "passages", "told"),
    [
        ({"split": {"heldout": 1}}, {"posts": 9}, 0, "split.heldout=1: without passages= .*say split.heldout=0,"),
        ({"split": {"heldout": 9}}, {"questions": 10}, 1, "of 1 passages come at most 10 .*say split.heldout=0,"),
        ({"split": {"heldout": 10}}, {"questions": 10}, 5, "say split.heldout=8 or fewer"),
        ({"split": {"heldout": 9}}, {"questions": 10}, 5, ""),
        ({"dialogues_per_question": 0.5}, {"posts": 9}, 0, "say dialogues_per_question=null"),
        ({"split": {"grpo_dialogues": 9}}, {"posts": 3, "dialogues": 5}, 0, "say split.grpo_dialogues=8"),
        ({"split": {"grpo_dialogues": 8}}, {"posts": 3, "dialogues": 5}, 0, ""),
    ],
)
def test_what_cannot_be_reached_is_told_before_anybody_is_asked(keys, reach, passages, told):
    if not told:
        return splits.check_reach(limits(**keys), reach, passages)
    with pytest.raises(BadInput, match=told):
        splits.check_reach(limits(**keys), reach, passages)


def test_the_number_to_hold_out_that_a_message_names_can_be_held_out():
    def question(n: int) -> Question:
        meta = {"passage": f"p{n % 7}", "selection": {"split": "sft"}}
        return Question(f"q{n}", "own", "", "single", f"第{n}题", ["对", "错"], "A", rationale="因为。", meta=meta)

    questions = [question(n) for n in range(30)]
    with pytest.raises(
        splits.TooFew, match=r"only 30 questions of 7 passages are left; say split.heldout=\d+"
    ) as found:
        splits.split_selected(questions, limits(split={"heldout": 30}))
    most = int(str(found.value).partition("say split.heldout=")[2].split()[0])
    heldout, _, sft, _ = splits.split_selected(questions, limits(split={"heldout": most}))
    assert len(heldout) == most and len(sft) == 30 - most > 0
    with pytest.raises(splits.TooFew):
        splits.split_selected(questions, limits(split={"heldout": most + 1}))
