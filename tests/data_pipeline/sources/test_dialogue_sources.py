"""What every reader of dialogues keeps and rejects, on small broken files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import dialogues
from data_pipeline.dialogues import fault
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Reject, Turn, write_jsonl
from data_pipeline.sources import alpaca, cpsycoun, emollm, messages, openr1_psy, psydt, smilechat
from tests.data_pipeline.sources.dialogue_files import ANSWERED, ASKED, one, sharegpt, thought, write

words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1).map(str.strip).filter(bool)
clean = words.filter(
    lambda text: (
        not fault([Turn("client", text), Turn("counselor", text, text)]) and "：" not in text and ":" not in text
    )
)


@settings(max_examples=200)
@given(
    system=st.none() | clean,
    rounds=st.lists(st.tuples(clean, clean, st.just("") | clean), min_size=1),
    last=st.none() | clean,
)
def test_any_dialogue_with_thoughts_comes_back_from_sharegpt_as_it_was(tmp_path_factory, system, rounds, last):
    turns = [Turn("system", system)] if system else []
    for asked, answered, thinking in rounds:
        turns += [Turn("client", asked), Turn("counselor", answered, thinking)]
    turns += [Turn("client", last)] if last else []
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    write_jsonl(path, [sharegpt(Dialogue("d", "test", turns))])
    back = one(messages.read(path))
    assert (back.id, back.turns) == ("d", turns)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([ASKED, ASKED, ANSWERED], "two client turns in a row: 1 and 2; options: {merge: true} joins split turns"),
        ([ASKED, ANSWERED, ANSWERED], "two counselor turns in a row: 2 and 3; options: {merge: true}"),
        ([ANSWERED, ASKED], "starts with the counselor"),
        ([ASKED], "no counselor turn"),
        ([], "no turn"),
        ([{"role": "system", "content": "x"}], "no turn"),
        ([ASKED, {"role": "therapist", "content": "x"}],
         "a role that is not understood: 'therapist', turn 2; understood are system, client, user, human, 来访者"),
        ([{"content": "x"}], "a role that is not understood: None, turn 1"),
        ([{"role": ["user"], "content": "x"}], "a role that is not understood: ['user'], turn 1"),
        (["x"], "a role that is not understood: None, turn 1"),
        ([ASKED, {"role": "assistant", "content": " \n"}], "an empty turn: turn 2 (counselor)"),
        ([ASKED, {"role": "assistant", "content": None}], "not a string: the text of turn 2 (counselor) is NoneType"),
        ([ASKED, {"role": "assistant", "content": 7}], "not a string: the text of turn 2 (counselor) is int"),
        ([ASKED, {**ANSWERED, "reasoning_content": ["x"]}], "not a string: the thought of turn 2 (counselor) is list"),
        ([ASKED, thought("<think>想</think>")], "an empty turn: turn 2 (counselor)"),
        ([ASKED, thought("<think>想，没有说完")], "<think> inside a reply: turn 2 (counselor)"),
        ([ASKED, thought("想</think>好。")], "</think> inside a reply: turn 2 (counselor)"),
        ([ASKED, thought("<think>想</think>好</think>。")], "</think> inside a reply: turn 2 (counselor)"),
        ([ASKED, thought("好。<think>想</think>")], "<think> inside a reply: turn 2 (counselor)"),
        ([ASKED, thought("<think>想<think>想</think>好。")], "<think> inside a thought: turn 2 (counselor)"),
        ([ASKED, thought("好。<|im_end|>")], "<|im_end|> inside a reply: turn 2 (counselor)"),
        ([{"role": "user", "content": "<think>我</think>睡不好"}, ANSWERED], "<think> inside a text: turn 1 (client)"),
        ([{**ASKED, "reasoning_content": "我"}, ANSWERED], "a thought that is not the counselor's: turn 1 (client)"),
        ([ASKED, ANSWERED, {"role": "system", "content": "x"}], "a system turn in the middle: turn 3"),
    ],
)  # fmt: skip
def test_what_is_no_usable_dialogue_is_rejected_and_the_turn_named(said, reason, tmp_path):
    path = write(tmp_path / "x.json", [{"id": "d1", "messages": said}, {"id": "d2", "messages": [ASKED, ANSWERED]}])
    reject, kept = messages.read(path)
    assert isinstance(reject, Reject) and reject.reason.startswith(reason), reject
    assert (reject.id, reject.where) == ("d1", f"{path} row 1")
    assert isinstance(kept, Dialogue)


@pytest.mark.parametrize(("name", "role"), dialogues.ROLES.items())
def test_the_listed_names_of_roles_are_understood(name, role, tmp_path):
    said = [
        {"role": name if role == "client" else "user", "content": "a"},
        {"role": name if role == "counselor" else "gpt", "content": "b"},
    ]
    said = [{"role": name, "content": "s"}, *said] if role == "system" else said
    dialogue = one(messages.read(write(tmp_path / "x.json", [{"messages": said}])))
    assert role in [turn.role for turn in dialogue.turns]


def test_split_turns_are_joined_only_when_asked(tmp_path):
    said = [ASKED, ASKED, thought("<think>想一</think>一"), thought("<think>想二</think>二"), ASKED]
    path = write(tmp_path / "x.json", [{"messages": said}])
    (reject,) = messages.read(path)
    assert isinstance(reject, Reject)
    dialogue = one(messages.read(path, merge=True))
    assert dialogue.turns == [
        Turn("client", "我睡不好。\n我睡不好。"), Turn("counselor", "一\n二", "想一\n想二"),
        Turn("client", "我睡不好。"),
    ]  # fmt: skip
    assert dialogue.meta["merged_turns"] == 2


def test_a_dialogue_of_200_turns_is_read_whole(tmp_path):
    path = write(tmp_path / "x.json", [{"messages": [ASKED, ANSWERED] * 100}])
    assert len(one(messages.read(path)).turns) == 200
    broken = write(tmp_path / "y.json", [{"messages": [*[ASKED, ANSWERED] * 99, ASKED, ASKED]}])
    (reject,) = messages.read(broken)
    assert isinstance(reject, Reject) and reject.reason.startswith("two client turns in a row: 199 and 200")


@pytest.mark.parametrize("reader", [openr1_psy, psydt, emollm, alpaca, messages])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "[1,", "x.json: broken JSON at line 1"),
        ("x.csv", "", "x.csv: an empty file"),
        ("missing.json", None, "missing.json: no such file"),
        ("missing.jsonl", None, "missing.jsonl: no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(reader, name, content, message, tmp_path):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(BadInput, match=message):
        list(reader.read(tmp_path / name))


@pytest.mark.parametrize("reader", [smilechat, cpsycoun])
def test_a_folder_without_dialogues_is_refused(reader, tmp_path):
    with pytest.raises(BadInput, match="file in it"):
        list(reader.read(tmp_path))
    with pytest.raises(BadInput, match="no such file"):
        list(reader.read(tmp_path / "missing"))
