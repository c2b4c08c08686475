"""Each reader of dialogues on the form of its data set."""

import pyarrow
import pyarrow.parquet

from data_pipeline.records import Dialogue, Reject, Turn, write_jsonl
from data_pipeline.sources import cpsycoun, emollm, messages, openr1_psy, psydt, smilechat
from tests.data_pipeline.sources.dialogue_files import ANSWERED, ASKED, ROUND, one, split, thought, write


def test_sharegpt_rows_with_a_system_prompt_of_their_own(tmp_path):
    row = {
        "system": "你是咨询师。",
        "conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}],
    }
    path = tmp_path / "对话 (1).jsonl"
    write_jsonl(path, [row, {**row, "id": 7}, {"text": "x"}])
    plain, named, other = messages.read(path)
    assert isinstance(plain, Dialogue) and isinstance(named, Dialogue)
    assert isinstance(other, Reject)
    assert plain.turns == [Turn("system", "你是咨询师。"), Turn("client", "问"), Turn("counselor", "答")]
    assert (plain.id, named.id) == ("对话 (1)/1", "7")
    assert other.reason == "not an object with a list under messages or conversations"


def test_thoughts_in_the_text_and_beside_it_are_the_same(tmp_path):
    beside = {**ANSWERED, "reasoning_content": "先共情。"}
    inside = thought("<think>\n先共情。\n</think>\n\n慢慢来。")
    path = write(tmp_path / "x.json", [{"messages": [ASKED, m]} for m in (beside, inside)])
    first, second = messages.read(path)
    assert isinstance(first, Dialogue) and isinstance(second, Dialogue)
    assert first.turns == second.turns == [Turn("client", "我睡不好。"), Turn("counselor", "慢慢来。", "先共情。")]


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
        (kept,), rejects = split(openr1_psy.read(path))
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
    assert isinstance(kept, Dialogue)
    assert isinstance(unanswered, Reject) and isinstance(other, Reject)
    assert [turn.role for turn in kept.turns] == ["system", "client", "counselor"]
    assert (kept.meta["topic"], kept.meta["released_id"], "benchmark" in kept.meta) == ("婚恋", 3, False)
    assert (unanswered.reason, other.reason) == ("no counselor turn", "not an object: list")
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
    (tmp_path / "4.json").write_bytes('["问"]\n'.encode("gbk") + '["第二个问题"]'.encode())
    kept, broken, other, mixed = smilechat.read(tmp_path)
    assert isinstance(kept, Dialogue)
    assert isinstance(broken, Reject) and isinstance(other, Reject) and isinstance(mixed, Reject)
    assert (kept.id, kept.meta) == ("smilechat/1", {"where": str(tmp_path / "1.json")})
    assert broken.code == "broken JSON" and broken.detail.startswith("line 1, column ")
    assert other.reason == "expected a list of turns: found dict"
    assert mixed.code == "several encodings in one file" and mixed.where == str(tmp_path / "4.json")


def test_cpsycound_texts(tmp_path):
    text = "来访者：问\r\n\r\n心理咨询师: 答：\n\n1. 倾听：多听\n2. 表达\n\n 来访者：谢谢"
    write(tmp_path / "case_1.txt", "\ufeff" + text)
    write(tmp_path / "case_2.txt", "标题\n" + text)
    write(tmp_path / "case_3.txt", text + "\n督导师：很好")
    (tmp_path / "case_4.txt").write_bytes(text.encode("gbk"))
    kept, titled, third, gbk = cpsycoun.read(tmp_path)
    assert isinstance(kept, Dialogue) and isinstance(gbk, Dialogue)
    assert isinstance(titled, Reject) and isinstance(third, Reject)
    told = [r.code for r in cpsycoun.read(tmp_path, encoding="utf-8") if isinstance(r, Reject)]
    assert told[-1] == "broken UTF-8"
    answer = "答：\n\n1. 倾听：多听\n2. 表达"
    assert kept.turns == [Turn("client", "问"), Turn("counselor", answer), Turn("client", "谢谢")]
    assert (kept.id, "benchmark" in kept.meta) == ("cpsycoun/case_1", False)
    assert titled.reason.startswith("text before the first speaker: '标题'; speakers are 来访者")
    assert third.reason.startswith("a role that is not understood: '督导师', turn 4")
    assert gbk.turns == kept.turns


def test_cpsycoune_lists_are_a_benchmark(tmp_path):
    write(tmp_path / "Self-growth" / "1.json", ["求助者：问", "支持者: 答：好"])
    write(tmp_path / "Self-growth" / "2.json", ["求助者：问", "答"])
    write(tmp_path / "Self-growth" / "3.json", {"a": 1})
    kept, bare, other = cpsycoun.read(tmp_path)
    assert isinstance(kept, Dialogue)
    assert isinstance(bare, Reject) and isinstance(other, Reject)
    assert kept.turns == [Turn("client", "问"), Turn("counselor", "答：好")]
    assert kept.id == "cpsycoun/Self-growth/1"
    assert (kept.meta["benchmark"], kept.meta["topic"]) == ("CPsyCounE", "Self-growth")
    assert bare.reason == "a turn does not begin with a speaker and a colon: turn 2, '答'"
    assert other.reason == "expected a list of strings"
