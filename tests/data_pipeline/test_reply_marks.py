"""A reply is what the counselor says to the client: labels, thoughts and marks of formats in it are refused by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.dialogues import ROLES, _unfit, fault
from data_pipeline.records import Fault, Turn
from data_pipeline.reply_marks import edge_labels

ASKED = Turn("client", "我睡不好。")


def of_reply(text: str) -> Fault | None:
    return fault([ASKED, Turn("counselor", text)])


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("（内心：她撑了很久）你辛苦了。", "（内心："),
        ("(Inner thought: she is tired) You sound worn out.", "(Inner thought: she is tired)"),
        ("```thought\n她撑了很久\n```\n你辛苦了。", "```thought"),
        ("你辛苦了。\n```", "```"),
        ("[CoT]她撑了很久[/CoT]你辛苦了。", "[CoT]"),
        ("你辛苦了。[/empathy]", "[/empathy]"),
        ("### Response:\n你辛苦了。", "### Response:"),
        ("你辛苦了。\n## 输出：\n早点睡。", "## 输出："),
        ("# **Assistant**\n你辛苦了。", "# **Assistant**"),
        ("回应：你辛苦了。", "回应："),
        ("**Answer:** You sound worn out.", "**Answer:"),
        ("你辛苦了。\n User \n早点睡。", "User"),
        ("assistant\n你辛苦了。", "assistant"),
        ("你辛苦了。[DONE]", "[DONE]"),
        ("[CLS] 你辛苦了。 [SEP]", "[CLS]"),
        ("你[UNK]苦了。[PAD]", "[UNK]"),
        ("你辛苦了。[END_OF_REPLY]", "[END_OF_REPLY]"),
        ("[LABEL1] 你辛苦了。", "[LABEL1]"),
        ("你辛苦了。<0x0A>早点睡。", "<0x0A>"),
        ("▁You▁sound▁worn▁out.", "▁"),
        ("YouĠsoundĠwornĠout.", "Ġ"),
        ("【策略：倾听】你辛苦了。", "【策略：倾听】"),
        ("[strategy: listening] You sound worn out.", "[strategy: listening]"),
        ("[倾听]你辛苦了。", "[倾听]"),
        ("[Affirmation and Reassurance] You sound worn out.", "[Affirmation and Reassurance]"),
        ("(Self-disclosure) I was tired, too.", "(Self-disclosure)"),
        ("Okay, the user is saying that he cannot sleep.\n\nYou sound worn out.", "Okay, the user is"),
        ("Hmm. Let me think. This user wants comfort. You sound worn out.", "Hmm. Let me think. This user wants"),
        ("好的，来访者提到失眠，先共情。\n\n你辛苦了。", "好的，来访者提到"),
        ("这位用户可能很累。\n\n你辛苦了。", "这位用户可能"),
    ],
)
def test_what_is_not_said_to_the_client_is_refused_by_name(reply, mark):
    assert of_reply(reply) == (f"{mark} inside a reply", "turn 2 (counselor)")


@pytest.mark.parametrize(
    "reply",
    [
        "**第一**，早点睡。\n**第二**，少喝咖啡。",
        "### 几个建议\n1. 早点睡。",
        "#加油 你可以的。",
        "你说的【撑不住了】，是从什么时候开始的？",
        "【睡不着没有你想的那么可怕】谢谢你写下这些。",
        "【一】早点睡。【二】少喝咖啡。",
        "[1] 早点睡。",
        "（1）早点睡。（2）少喝咖啡。",
        "（微笑）你辛苦了。",
        "(hugs) You sound worn out.",
        "(Mina), you sound worn out.",
        "[小林]，你辛苦了。",
        "[姓名已隐去]你辛苦了。",
        "[抱抱]你辛苦了。",
        "[图片]你画得很好。",
        "<b>你辛苦了</b>",
        "我们用系统脱敏。\n系统脱敏分三步。",
        "用户的投诉让你很委屈。",
        "So the client was rude to you, and you said nothing.",
        "这个用户名是你自己取的吗？",
        "I think the patient way you speak of her says a lot.",
        "Answer me this: who noticed?",
        "回答我一个问题：谁发现的？",
        "我的回答：\n先睡一觉。",
    ],
)
def test_honest_replies_stay(reply):
    assert of_reply(reply) is None


def test_a_line_that_is_a_roles_name_is_refused_in_what_a_client_says_and_not_in_a_prompt():
    for name in ROLES:
        said = [
            Turn("system", f"你是\n{name}\n"),
            Turn("client", f"我睡不好。\n{name}\n早点睡。"),
            Turn("counselor", "好。"),
        ]
        assert fault(said) == (f"{name} inside a text", "turn 2 (client)")
        assert fault([said[0], ASKED, said[2]]) is None


def dialogue(*replies: str) -> list[Turn]:
    return [turn for reply in replies for turn in (ASKED, Turn("counselor", reply))]


@pytest.mark.parametrize(
    ("replies", "detail"),
    [
        (("你辛苦了。（理解）", "什么时候开始的？（提问）", "好的。"), "labels behind the replies: （理解）, 2 of 3"),
        (("（点头）你辛苦了。", "（点头）早点睡。"), "labels before the replies: （点头）, 2 of 2"),
        (("(question) Since when?", "(hugs) I hear you."), "labels before the replies: (question), 2 of 2"),
        (("【共情】你辛苦了。",), "labels before the replies: 【共情】, 1 of 1"),
    ],
)  # fmt: skip
def test_labels_at_most_replies_are_refused(replies, detail):
    found = fault(dialogue(*replies))
    assert found and found.reason == detail


@pytest.mark.parametrize(
    "replies",
    [
        ("【梳理】先看看你说的。", "第二，你累了。", "第三，睡吧。"),
        ("（微笑）你辛苦了。", "早点睡。"),
        ("你辛苦了[抱抱]", "早点睡[抱抱]"),
        ("[小林]，你辛苦了。", "[小林]，早点睡。"),
        ("你辛苦了（这不是客套。真的）", "早点睡（我知道这很难。）"),
        ("先听听她（他）", "也问问他（她）"),
    ],
)
def test_headings_gestures_and_emoticons_of_some_replies_stay(replies):
    assert fault(dialogue(*replies)) is None and edge_labels([*replies]) is None


_PIECES = st.sampled_from(
    [
        *"你好。\n#[]【】（）():：*`▁Ġ<>/\u3000\ufffd",
        "\n\n",
        "思考",
        "内心",
        "回复",
        "Response",
        "assistant",
        "User",
        "来访者",
        "用户",
    ]
    + [
        "求助者",
        "说",
        "Okay, ",
        "the user is ",
        "the client is ",
        "SEP",
        "UNK",
        "<0x0A>",
        "共情",
        "Reflection",
        "锟斤拷",
    ]
)


@given(st.lists(st.lists(_PIECES, min_size=1, max_size=6).map("".join), min_size=1, max_size=6))
@settings(max_examples=2000, deadline=None)
def test_a_dialogue_that_is_seen_as_a_whole_is_judged_as_turn_by_turn(texts):
    turns = [Turn(("client", "counselor")[n % 2], text) for n, text in enumerate(texts)]
    unfit = [(n, found) for n, turn in enumerate(turns, 1) if (found := _unfit(turn))]
    found = fault(turns)
    if unfit:
        number, first = unfit[0]
        assert found == (first.code, f"{first.detail}turn {number} ({turns[number - 1].role})")
    else:
        assert found is None or "inside a" not in found.code
