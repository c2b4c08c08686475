"""The readers of dialogues, on the real data sets and on small broken ones."""

import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import dialogues
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Reject, Turn, write_jsonl
from data_pipeline.sources import cpsycoun, emollm, messages, openr1_psy, psydt, smilechat
from tests.conftest import real_data

ASKED, ANSWERED = {"role": "user", "content": "我睡不好。"}, {"role": "assistant", "content": "慢慢来。"}


def split(records) -> tuple[list[Dialogue], list[Reject]]:
    records = list(records)
    return [r for r in records if isinstance(r, Dialogue)], [r for r in records if isinstance(r, Reject)]


def reasons(rejects) -> Counter:
    return Counter(r.reason.split(":")[0] for r in rejects)


def alternates(dialogue: Dialogue) -> bool:
    roles = [turn.role for turn in dialogue.turns if turn.role != "system"]
    return roles == (["client", "counselor"] * len(roles))[: len(roles)] and len(roles) > 1


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def one(records) -> Dialogue | Reject:
    (record,) = records
    return record


# --- the real data ----------------------------------------------------------------------------------------------------

REAL = {  # (reader, folder, merge): (in, out, {reason: rejected})
    (smilechat, "smile", False): (300, 297, {"two client turns in a row": 2, "two counselor turns in a row": 1}),
    (smilechat, "smile", True): (300, 299, {"no counselor turn": 1}),
    (cpsycoun, "cpsycoun/CPsyCounD", False): (
        100, 92, {"two counselor turns in a row": 7, "two client turns in a row": 1}),
    (cpsycoun, "cpsycoun/CPsyCounD", True): (100, 100, {}),
    (cpsycoun, "cpsycoun/CPsyCounE", False): (18, 18, {}),
}  # fmt: skip


@pytest.mark.parametrize(("reader", "folder", "merge"), REAL)
def test_every_real_dialogue_alternates_or_is_rejected_with_its_reason(reader, folder, merge):
    total, out, why = REAL[reader, folder, merge]
    path = real_data(folder)
    assert len([f for f in path.rglob("*") if f.is_file()]) == total
    kept, rejects = split(reader.read(path, merge=merge))
    assert (len(kept), len(kept) + len(rejects)) == (out, total)
    assert reasons(rejects) == why
    assert all(map(alternates, kept))
    assert len({d.id for d in kept} | {r.id for r in rejects}) == total
    assert all(str(path) in d.meta["where"] for d in kept) and all(str(path) in r.where for r in rejects)


def test_nothing_that_was_said_is_lost():
    for file in sorted(real_data("smile").glob("*.json"))[:50]:
        dialogue = one(smilechat.read(file))
        said = [turn["content"].strip() for turn in json.loads(file.read_bytes())]
        assert isinstance(dialogue, Reject) or [turn.content for turn in dialogue.turns] == said
    for file in sorted(real_data("cpsycoun/CPsyCounD").glob("*.txt")):
        dialogue = one(cpsycoun.read(file, merge=True))
        text = "".join(turn.content for turn in dialogue.turns)
        whole = file.read_text(encoding="utf-8").replace("来访者：", "").replace("心理咨询师：", "")
        assert "".join(text.split()) == "".join(whole.split())


def test_merging_says_how_many_turns_it_joined():
    path = real_data("cpsycoun/CPsyCounD")
    split_up = {r.id for r in cpsycoun.read(path) if isinstance(r, Reject)}
    merged = {d.id for d in cpsycoun.read(path, merge=True) if d.meta.get("merged_turns")}
    assert merged == split_up


@pytest.mark.parametrize(("reader", "folder"), [(smilechat, "smile"), (cpsycoun, "cpsycoun")])
def test_sharegpt_and_openai_messages_and_back_are_the_identity(reader, folder, tmp_path):
    kept, _ = split(reader.read(real_data(folder), merge=True))
    rows = {"sharegpt": map(dialogues.sharegpt, kept),
            "openai": ({"id": d.id, "messages": dialogues.messages(d.turns)} for d in kept)}  # fmt: skip
    for name, written in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", written)
        back = list(messages.read(tmp_path / f"{name}.jsonl"))
        assert [(d.id, d.turns) for d in back] == [(d.id, d.turns) for d in kept]


words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1).map(str.strip).filter(bool)
clean = words.filter(lambda text: not any(mark in text for mark in dialogues.MARKS))


@settings(max_examples=200)
@given(
    system=st.none() | clean,
    rounds=st.lists(st.tuples(clean, clean, st.just("") | clean), min_size=1),
    last=st.none() | clean,
)
def test_any_dialogue_with_thoughts_comes_back_from_sharegpt_as_it_was(tmp_path_factory, system, rounds, last):
    turns = [Turn("system", system)] if system else []
    for asked, answered, thought in rounds:
        turns += [Turn("client", asked), Turn("counselor", answered, thought)]
    turns += [Turn("client", last)] if last else []
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    names = {"system": "system", "client": "human", "counselor": "gpt"}
    said = [{"from": names[turn.role], "value": dialogues.with_thought(turn)} for turn in turns]
    write_jsonl(path, [{"id": "d", "conversations": said}])
    back = one(messages.read(path))
    assert (back.id, back.turns) == ("d", turns)


# --- what every reader rejects ----------------------------------------------------------------------------------------


def thought(text: str) -> dict:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([ASKED, ASKED, ANSWERED], "two client turns in a row: 1 and 2; merge=true joins split turns"),
        ([ASKED, ANSWERED, ANSWERED], "two counselor turns in a row: 2 and 3; merge=true joins split turns"),
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
        ([ASKED, thought("<think>\n\n</think>\n\n好。")], "an empty thought: turn 2 (counselor)"),
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
    assert isinstance(one(messages.read(path)), Reject)
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
    assert one(messages.read(broken)).reason.startswith("two client turns in a row: 199 and 200")


# --- each reader's own form -------------------------------------------------------------------------------------------


def test_sharegpt_rows_with_a_system_prompt_of_their_own(tmp_path):
    row = {
        "system": "你是咨询师。",
        "conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}],
    }
    path = tmp_path / "对话 (1).jsonl"
    write_jsonl(path, [row, {**row, "id": 7}, {**row, "id": "7"}, {"text": "x"}])
    plain, named, again, other = messages.read(path)
    assert plain.turns == [Turn("system", "你是咨询师。"), Turn("client", "问"), Turn("counselor", "答")]
    assert (plain.id, named.id) == ("对话 (1)/1", "7")
    assert again.reason == "the id stands already in row 2"
    assert other.reason == "not an object with a list under messages or conversations"


def test_thoughts_in_the_text_and_beside_it_are_the_same(tmp_path):
    beside = {**ANSWERED, "reasoning_content": "先共情。"}
    inside = thought("<think>\n先共情。\n</think>\n\n慢慢来。")
    path = write(tmp_path / "x.json", [{"messages": [ASKED, m]} for m in (beside, inside)])
    first, second = messages.read(path)
    assert first.turns == second.turns == [Turn("client", "我睡不好。"), Turn("counselor", "慢慢来。", "先共情。")]


ROUND = {"patient": "I cannot sleep.", "counselor_content": "That sounds hard.", "counselor_think": "Empathy first."}


def test_openr1_psy_rows_from_json_and_parquet(tmp_path):
    rows = [
        {"post_id": "p1", "file": "a.json", "conversation": [ROUND, ROUND]},
        {"post_id": "p1", "file": "b.json", "conversation": [ROUND, {**ROUND, "counselor_think": " "}]},
        {"post_id": "p2", "file": "b.json", "conversation": [{**ROUND, "counselor_think": None}]},
        {"post_id": "p3", "file": "b.json", "conversation": [{**ROUND, "counselor_content": "a</think>b"}]},
        {"post_id": "p4", "file": "b.json", "conversation": []},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    for path in (write(tmp_path / "train.json", rows), tmp_path / "train.parquet"):
        kept, *rejects = openr1_psy.read(path)
        assert kept.turns[1] == Turn("counselor", "That sounds hard.", "Empathy first.")
        assert (kept.id, kept.meta["post_id"], kept.meta["file"]) == ("openr1_psy/train/1", "p1", "a.json")
        assert [r.reason for r in rejects] == [
            "an empty thought: turn 4 (counselor)",
            "an empty thought: turn 2 (counselor)",
            "</think> inside a reply: turn 2 (counselor)",
            "no turn",
        ]


def test_openr1_psy_as_a_data_set_saved_by_datasets(tmp_path):
    import datasets

    rows = [{"post_id": "p1", "file": "a", "conversation": [ROUND]}]
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows * 2)}
    )
    saved.save_to_disk(tmp_path / "saved")
    assert isinstance(one(openr1_psy.read(tmp_path / "saved")), Dialogue)
    assert len(split(openr1_psy.read(tmp_path / "saved", split="test"))[0]) == 2


def test_psydt_rows_and_its_test_file_is_a_benchmark(tmp_path):
    said = [{"role": "system", "content": "REBT"}, ASKED, ANSWERED]
    rows = [{"id": 3, "normalizedTag": "婚恋", "messages": said}, {"id": 4, "messages": said[:2]}, []]
    train = write(tmp_path / "PsyDTCorpus_train_mulit_turn_packing.json", rows)
    kept, unanswered, other = psydt.read(train)
    assert [turn.role for turn in kept.turns] == ["system", "client", "counselor"]
    assert (kept.meta["topic"], kept.meta["released_id"], "benchmark" in kept.meta) == ("婚恋", 3, False)
    assert (unanswered.reason, other.reason) == ("no counselor turn", "not an object with a list of messages")
    test = write(tmp_path / "PsyDTCorpus_test_single_turn_split.json", rows[:1])
    assert one(psydt.read(test)).meta["benchmark"] == "PsyDTCorpus test"


def test_emollm_rounds_and_plain_rows(tmp_path):
    first = {"system": "你是心理专家。", "input": "问一", "output": "答一"}
    rows = [
        {"conversation": [first, {"input": "问二", "output": "<think>想</think>答二"}]},
        {"conversation": [first, first]},  # the prompt again
        {"system": "", "input": "问", "output": "答"},
        {"conversation": []},
        {"conversation": [first, {**first, "system": "另一个"}]},
        {"conversation": [{"input": "问"}]},
        {"conversation": "x"},
    ]
    kept, rejects = split(emollm.read(write(tmp_path / "data.json", rows)))
    assert kept[0].turns[0] == Turn("system", "你是心理专家。")
    assert kept[0].turns[-1] == Turn("counselor", "答二", "想")
    assert [len(d.turns) for d in kept] == [5, 5, 2]
    assert [r.reason for r in rejects] == [
        "no turn", "a system turn in the middle: turn 4", "not a string: the text of turn 2 (counselor) is NoneType",
        "not an object with a list of rounds under conversation",
    ]  # fmt: skip


def test_smilechat_files_that_are_no_dialogue_are_rejected(tmp_path):
    write(tmp_path / "1.json", [{"role": "client", "content": "问"}, {"role": "counselor", "content": "答"}])
    write(tmp_path / "2.json", "[{")
    write(tmp_path / "3.json", {"role": "client"})
    (tmp_path / "4.json").write_bytes('["问"]'.encode("gbk"))
    kept, broken, other, gbk = smilechat.read(tmp_path)
    assert (kept.id, kept.meta) == ("smilechat/1", {"where": str(tmp_path / "1.json")})
    assert broken.reason.startswith("2.json: broken JSON at line 1")
    assert other.reason == "expected a list of turns, found dict"
    assert gbk.reason.startswith("4.json: broken JSON") and gbk.where == str(tmp_path / "4.json")


def test_cpsycound_texts(tmp_path):
    text = "来访者：问\r\n\r\n心理咨询师: 答：\n\n1. 倾听：多听\n2. 表达\n\n 来访者：谢谢"
    write(tmp_path / "case_1.txt", "\ufeff" + text)
    write(tmp_path / "case_2.txt", "标题\n" + text)
    write(tmp_path / "case_3.txt", text + "\n督导师：很好")
    (tmp_path / "case_4.txt").write_bytes(text.encode("gbk"))
    kept, titled, third, gbk = cpsycoun.read(tmp_path)
    answer = "答：\n\n1. 倾听：多听\n2. 表达"
    assert kept.turns == [Turn("client", "问"), Turn("counselor", answer), Turn("client", "谢谢")]
    assert (kept.id, "benchmark" in kept.meta) == ("cpsycoun/case_1", False)
    assert titled.reason.startswith("text before the first speaker") and "'标题'" in titled.reason
    assert third.reason.startswith("a role that is not understood: '督导师', turn 4")
    assert "utf-8" in gbk.reason


def test_cpsycoune_lists_are_a_benchmark(tmp_path):
    write(tmp_path / "Self-growth" / "1.json", ["求助者：问", "支持者: 答：好"])
    write(tmp_path / "Self-growth" / "2.json", ["求助者：问", "答"])
    write(tmp_path / "Self-growth" / "3.json", {"a": 1})
    kept, bare, other = cpsycoun.read(tmp_path)
    assert kept.turns == [Turn("client", "问"), Turn("counselor", "答：好")]
    assert kept.id == "cpsycoun/Self-growth/1"
    assert (kept.meta["benchmark"], kept.meta["topic"]) == ("CPsyCounE", "Self-growth")
    assert bare.reason == "turn 2 does not begin with a speaker and a colon: '答'"
    assert other.reason == "expected a list of strings"


@pytest.mark.parametrize("reader", [openr1_psy, psydt, emollm, messages])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "[1,", "x.json: broken JSON at line 1"),
        ("x.json", '{"a": 1}', "x.json: expected a list of dialogues, found dict"),
        ("x.jsonl", "{}\n[1]\n", "x.jsonl line 2: not a JSON object"),
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
