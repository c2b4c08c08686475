"""Dialogues of other projects: thoughts in dialects, content in parts, roles to map, and fields that nobody reads."""

import json

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Reject, Turn
from data_pipeline.sources import alpaca, cpsycoun, emollm, messages, openr1_psy, psydt, smilechat
from tests.data_pipeline.sources.dialogue_files import ANSWERED, ASKED, ROUND, one, split, thought, write

READ = Turn("counselor", "慢慢来。", "先共情。")


def reply(tmp_path, message: dict) -> Turn | str:
    """Returns what becomes of a counselor's message: its turn, or the reason for which the row is refused."""
    (record,) = messages.read(write(tmp_path / "x.json", [{"messages": [ASKED, message]}]))
    return record.turns[1] if isinstance(record, Dialogue) else record.reason


@pytest.mark.parametrize(
    "message",
    [
        thought("<think>先共情。</think>慢慢来。"),
        thought("<Think>\n先共情。\n</Think>\n慢慢来。"),
        thought("<thinking>先共情。</thinking>\n\n慢慢来。"),
        thought("<reasoning>先共情。</reasoning><answer>慢慢来。</answer>"),
        thought("<think>先共情。</think>\n<answer>\n慢慢来。\n</answer>"),
        thought("<|begin_of_thought|>先共情。<|end_of_thought|>\n<|begin_of_solution|>慢慢来。<|end_of_solution|>"),
        thought("◁think▷先共情。◁/think▷慢慢来。"),
        {**ANSWERED, "reasoning": "先共情。"},
        {**ANSWERED, "reasoning_content": "先共情。", "reasoning": "先共情。"},
        {**ANSWERED, "thinking": "先共情。"},
        {"role": "assistant",
         "content": [{"type": "thinking", "thinking": "先共情。"}, {"type": "text", "text": "慢慢来。"}]},
    ],
)  # fmt: skip
def test_a_thought_is_read_in_every_dialect(message, tmp_path):
    assert reply(tmp_path, message) == READ


@pytest.mark.parametrize(
    "message",
    [
        thought("<think>\n\n</think>\n\n慢慢来。"),  # how Qwen3 says that it does not think
        {**ANSWERED, "reasoning_content": ""},
        {**ANSWERED, "reasoning": None},
        {"role": "assistant", "content": [{"type": "text", "text": "慢慢来。"}]},
        thought("<answer>慢慢来。</answer>"),
        {**ANSWERED, "weight": 1},
    ],
)
def test_a_reply_without_a_thought(message, tmp_path):
    assert reply(tmp_path, message) == Turn("counselor", "慢慢来。")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (thought("慢慢来。<|endoftext|>"), "<|endoftext|> inside a reply: turn 2 (counselor)"),
        (thought("慢慢来。</s>"), "</s> inside a reply: turn 2 (counselor)"),
        (thought("慢慢来。<|eot_id|>"), "<|eot_id|> inside a reply: turn 2 (counselor)"),
        (thought("慢慢来。<｜end▁of▁sentence｜>"), "<｜end▁of▁sentence｜> inside a reply: turn 2 (counselor)"),
        (thought("[INST]慢慢来。[/INST]"), "[INST] inside a reply: turn 2 (counselor)"),
        (thought("<|channel|>analysis<|message|>先共情。"), "<|channel|> inside a reply: turn 2 (counselor)"),
        (thought("<thinking>先共情。慢慢来。"), "<thinking> inside a reply: turn 2 (counselor)"),
        (thought("好。<thinking>先共情。</thinking>慢慢来。"), "<thinking> inside a reply: turn 2 (counselor)"),
        (thought("<think>先<THINK>共情。</think>慢慢来。"), "<THINK> inside a thought: turn 2 (counselor)"),
        (thought("<思考>先共情。</思考>慢慢来。"), "<思考> inside a reply: turn 2 (counselor)"),
        (thought("<inner_voice>先共情。</inner_voice>慢慢来。"), "<inner_voice> inside a reply: turn 2 (counselor)"),
        (thought("＜think＞先共情。＜/think＞慢慢来。"), "＜think＞ inside a reply: turn 2 (counselor)"),
        (thought("&lt;think&gt;先共情。&lt;/think&gt;慢慢来。"), "&lt;think&gt; inside a reply: turn 2 (counselor)"),
        (thought("【思考】先共情。【/思考】慢慢来。"), "【思考】 inside a reply: turn 2 (counselor)"),
        (thought("思考：先共情。\n回复：慢慢来。"), "思考： inside a reply: turn 2 (counselor)"),
        (thought("### Thinking\n先共情。\n### Response\n慢慢来。"), "### Thinking inside a reply: turn 2 (counselor)"),
        (thought("（内心独白：先共情。）慢慢来。"), "（内心独白： inside a reply: turn 2 (counselor)"),
        ({**ANSWERED, "weight": 0},
         "a field that is not read: weight; options: {ignore: [weight]} leaves it out, turn 2"),
        ({**ANSWERED, "value": "快点。"}, "two fields for one: content and value, turn 2"),
        ({**ANSWERED, "from": "human"}, "two fields for one: role and from, turn 2"),
        ({**ANSWERED, "loss": False},
         "a field that is not read: loss; options: {ignore: [loss]} leaves it out, turn 2"),
        (thought("慢\ufffd来。"),
         "characters of the text are lost: 1 x \ufffd near '慢\ufffd来。', reply of turn 2 (counselor)"),
        (thought(READ.content.encode().decode("gb18030", "ignore") * 2),
         "a text that was read in another encoding: near '鎱㈡參鏉ャ鎱㈡參鏉ャ', reply of turn 2 (counselor)"),
        ({**ANSWERED, "reasoning": "一", "reasoning_content": "二"},
         "not a string: the thought of turn 2 (counselor) is list"),
        ({**ANSWERED, "tool_calls": [{"id": "x"}]},
         "a field that is not read: tool_calls; options: {ignore: [tool_calls]} leaves it out, turn 2"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
         "a part of a message that is no text: image_url, turn 2"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_refused_by_name(message, reason, tmp_path):
    assert reply(tmp_path, message) == reason


ALPACA = {"instruction": "我睡不好。", "output": "慢慢来。"}
PSYDT = {"id": 1, "normalizedTag": "婚恋", "messages": [ASKED, ANSWERED]}
EMOLLM = {"conversation": [{"system": "", "input": "我睡不好。", "output": "慢慢来。"}]}
OPENR1 = {"post_id": "p", "file": "f", "conversation": [ROUND]}
PLAIN = {"id": 1, "source": "web", "messages": [ASKED, ANSWERED], "score": 3, "draft": "", "tags": []}


@pytest.mark.parametrize(
    ("reader", "row"), [(alpaca, ALPACA), (psydt, PSYDT), (emollm, EMOLLM), (openr1_psy, OPENR1), (messages, PLAIN)]
)
def test_a_row_with_a_field_that_carries_meaning_and_is_not_known_is_refused(reader, row, tmp_path):
    odd = [{**row, "situation": "刚分手"}, {**row, "history_notes": ["一"]}, {**row, "persona": {"age": 20}}, row]
    records = list(reader.read(write(tmp_path / "x.json", odd)))
    assert [r.reason if isinstance(r, Reject) else "" for r in records] == [
        f"a field that is not read: {name}; options: {{ignore: [{name}]}} leaves it out"
        for name in ("situation", "history_notes", "persona")
    ] + [""]
    kept, rejects = split(reader.read(tmp_path / "x.json", ignore=["situation", "history_notes", "persona"]))
    assert len(kept) == 4 and not rejects


def test_rows_of_alpaca_are_refused_by_emollm_and_named(tmp_path):
    row = {"instruction": "你是咨询师。", "input": "问", "output": "答", "history": [["早", "早"]]}
    (reject,) = emollm.read(write(tmp_path / "x.json", [row]))
    assert isinstance(reject, Reject) and reject.reason.startswith("a field that is not read: instruction, history")


def test_alpaca_rows(tmp_path):
    rows = [
        {"instruction": "我睡不好。", "input": "怎么办？", "output": "<think>想</think>慢慢来。",
         "system": "你是咨询师。", "history": [["早。", "早，请说。"], ["我难过。", "愿意多说吗？"]]},
        {"instruction": "你是咨询师。", "input": "我睡不好。", "output": "慢慢来。", "reasoning_content": "想"},
        {"instruction": "问", "output": "答", "history": ["问", "答"]},
        {"instruction": 7, "output": "答"},
        {"instruction": "问", "output": ["答一", "答二"]},
        {"input": "问"},
    ]  # fmt: skip
    path = write(tmp_path / "x.json", rows)
    kept, rejects = split(alpaca.read(path))
    assert [(t.role, t.content, t.thought) for t in kept[0].turns] == [
        ("system", "你是咨询师。", ""), ("client", "早。", ""), ("counselor", "早，请说。", ""),
        ("client", "我难过。", ""), ("counselor", "愿意多说吗？", ""),
        ("client", "我睡不好。\n怎么办？", ""), ("counselor", "慢慢来。", "想"),
    ]  # fmt: skip
    assert [turn.content for turn in kept[1].turns] == ["你是咨询师。\n我睡不好。", "慢慢来。"]
    assert [r.code for r in rejects] == [
        "a history that is no list of pairs", "not a string", "not a string", "not a string",
    ]  # fmt: skip
    prompted, _ = split(alpaca.read(path, instruction="system"))
    assert [(t.role, t.content) for t in prompted[1].turns] == [
        ("system", "你是咨询师。"), ("client", "我睡不好。"), ("counselor", "慢慢来。"),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="options.instruction=user: is client or system"):
        list(alpaca.read(path, instruction="user"))


def test_alpaca_rows_of_a_spreadsheet(tmp_path):
    history = json.dumps([["早。", "早，请说。"]], ensure_ascii=False).replace('"', '""')
    text = f'instruction,input,output,history\n我睡不好。,,慢慢来。,"{history}"\n'
    (tmp_path / "x.csv").write_bytes(text.encode("gbk"))
    dialogue = one(alpaca.read(tmp_path / "x.csv"))
    assert [turn.content for turn in dialogue.turns] == ["早。", "早，请说。", "我睡不好。", "慢慢来。"]


def test_roles_are_mapped_by_the_recipe(tmp_path):
    said = [{"role": "seeker", "content": "我睡不好。"}, {"role": "Therapist", "content": "<think>想</think>慢慢来。"}]
    path = write(tmp_path / "x.json", [{"messages": said}])
    (reject,) = messages.read(path)
    assert isinstance(reject, Reject) and reject.detail.endswith("options: {roles: {NAME: client}} maps others")
    dialogue = one(messages.read(path, roles={"seeker": "client", "Therapist": "counselor"}))
    assert dialogue.turns == [Turn("client", "我睡不好。"), Turn("counselor", "慢慢来。", "想")]
    with pytest.raises(BadInput, match="options.roles: seeker='human'; a role is system, client, counselor"):
        list(messages.read(path, roles={"seeker": "human"}))
    smile = write(tmp_path / "s" / "1.json", said)
    assert (
        one(smilechat.read(smile.parent, roles={"seeker": "client", "Therapist": "counselor"})).turns == dialogue.turns
    )


@pytest.mark.parametrize(("client", "counselor"), [("User", "Assistant"), ("HUMAN", "GPT")])
def test_the_case_of_a_role_makes_no_difference(client, counselor, tmp_path):
    said = [{"role": client, "content": "问"}, {"role": counselor, "content": "<think>想</think>答"}]
    assert one(messages.read(write(tmp_path / "x.json", [{"messages": said}]))).turns[1] == Turn(
        "counselor", "答", "想"
    )


@pytest.mark.parametrize(
    ("said", "voice"),
    [
        ("旁白：她低下了头。\n我睡不好。", "旁白"),
        ("（旁白）她低下了头。\n我睡不好。", "旁白"),
        ("我睡不好。\n【旁白】\n她低下了头。", "旁白"),
        ("我睡不好。\n助手：慢慢来。", "助手"),
        ("我睡不好。\n妈妈：你想太多了。", "妈妈"),
        ("我睡不好。\n【丈夫】：她总这样。", "丈夫"),
        ("我睡不好。\n妈妈（生气地）：别说了。", "妈妈"),
        ("I cannot sleep.\nNarrator: She looked away.", "Narrator"),
    ],
)
def test_another_voice_inside_a_turn_is_told_and_can_be_taken_in(said, voice, tmp_path):
    path = write(tmp_path / "x.json", [{"messages": [{"role": "user", "content": said}, ANSWERED]}])
    (reject,) = messages.read(path)
    assert isinstance(reject, Reject) and reject.code == "another voice inside a turn"
    assert reject.detail.startswith(f"{voice!r} in turn 1 (client); options: {{roles: {{{voice}: client}}}}")
    assert one(messages.read(path, roles={voice: "client"})).turns[0].content.endswith(said.split("：")[-1])


@pytest.mark.parametrize(
    ("place", "said", "voice", "roles"),
    [
        (1, "慢慢来。\n来访者：是的。", "来访者", {}),
        (1, "慢慢来。\nUser: yes.", "User", {}),
        (0, "我睡不好。\n咨询师：请说。", "咨询师", {}),
        (0, "我睡不好。\nTherapist: Since when?", "Therapist", {"Therapist": "counselor"}),
    ],
)
def test_the_other_speaker_inside_a_turn_is_no_voice_to_be_taken_in(place, said, voice, roles, tmp_path):
    turns = [ASKED, ANSWERED]
    turns[place] = {**turns[place], "content": said}
    (reject,) = messages.read(write(tmp_path / "x.json", [{"messages": turns}]), roles=roles)
    role, other = [("client", "counselor"), ("counselor", "client")][place]
    assert isinstance(reject, Reject) and reject.code == "another voice inside a turn"
    assert reject.detail == (
        f"{voice!r} in turn {place + 1} ({role}); that is the {other}: end the turn before this line in the file and "
        f"begin one of the {other}, or do without it"
    )


def test_a_voice_in_a_text_of_cpsycoun_is_a_turn_of_its_own(tmp_path):
    write(tmp_path / "1.txt", "来访者：我睡不好。\n妈妈：她想太多。\n咨询师：慢慢来。")
    (reject,) = cpsycoun.read(tmp_path)
    assert isinstance(reject, Reject) and reject.reason.startswith("a role that is not understood: '妈妈', turn 2")
    assert len(one(cpsycoun.read(tmp_path, merge=True, roles={"妈妈": "client"})).turns) == 2


def test_words_about_people_are_no_voices(tmp_path):
    said = "我妈妈说：别想了。\n她说：好。\n1. 朋友：多联系\n老师在吗"
    dialogue = one(messages.read(write(tmp_path / "x.json", [{"messages": [{**ASKED, "content": said}, ANSWERED]}])))
    assert dialogue.turns[0].content == said


def test_the_speakers_own_name_before_a_turn_is_taken_off(tmp_path):
    said = [{**ASKED, "content": "来访者：我睡不好。"}, thought("心理咨询师：慢慢来。")]
    dialogue = one(messages.read(write(tmp_path / "x.json", [{"messages": said}])))
    assert [turn.content for turn in dialogue.turns] == ["我睡不好。", "慢慢来。"]


def test_two_system_prompts_are_refused_unless_they_are_one(tmp_path):
    first = {"role": "system", "content": "你是咨询师。"}
    rows = [{"system": text, "messages": [first, ASKED, ANSWERED]} for text in ("要温和。", "你是咨询师。")]
    reject, kept = messages.read(write(tmp_path / "x.json", rows))
    assert isinstance(reject, Reject) and reject.reason == "two system turns: 1 and 2; keep one, or join them"
    assert isinstance(kept, Dialogue) and [turn.role for turn in kept.turns] == ["system", "client", "counselor"]


def test_a_folder_with_one_broken_file_gives_the_others(tmp_path):
    for number in range(50):
        write(tmp_path / f"{number:02}.json", {"messages": [ASKED, ANSWERED]})
    write(tmp_path / "25.json", '{"messages": [')
    kept, rejects = split(messages.read(tmp_path))
    assert (len(kept), [r.code for r in rejects]) == (49, ["a file that cannot be read"])


def test_a_table_of_another_encoding_and_a_line_that_is_broken(tmp_path):
    row = json.dumps({"messages": [ASKED, ANSWERED]}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_bytes(f"{row}\n{row[:-5]}\n{row}\n".encode("gbk"))
    first, broken, last = messages.read(tmp_path / "x.jsonl")
    assert isinstance(first, Dialogue) and isinstance(last, Dialogue) and first.turns[0].content == "我睡不好。"
    assert isinstance(broken, Reject) and (broken.code, broken.where) == ("broken JSON", f"{tmp_path}/x.jsonl row 2")
