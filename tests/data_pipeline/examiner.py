"""A model that answers the steps of Psyche-R1's synthesis exactly as they ask; for tests.

Each reply is a function of the request. An option is right when it ends in 是, so that questions can be answered.
"""

import json
import random
import re

from tests.data_pipeline.counsellor import digest

MARKS = {
    "generate_questions": "命题教师",
    "filter_quality": "审题人",
    "optimise_prompt": "提示词专家",
    "write_rationales": "只写最终答案",
    "select_challenging": "只写一行最终答案",
    "rewrite_empathy": "改写成咨询师",
    "check_empathy": "检查改写得是否合格",
}
STEPS = {"optimise_prompt": "write_rationales", "check_empathy": "rewrite_empathy"}  # prompts by the step that asks
REPLY = "听起来这件事已经让你累了很久，心里又委屈又着急，换作谁都不容易。你愿意把它说出来，就已经是在照顾自己了。"


def prompt_of(messages: list[dict]) -> str:
    return next(name for name, mark in MARKS.items() if mark in messages[0]["content"])


def step_of(messages: list[dict]) -> str:
    prompt = prompt_of(messages)
    return STEPS.get(prompt, prompt)


def words(seed: str, length: int) -> str:
    """Returns Chinese characters by chance: no two texts of them are near each other."""
    chance = random.Random(seed)
    return "".join(chr(chance.randrange(0x4E00, 0x9F00)) for _ in range(length))


def asked_for(text: str) -> dict[str, int]:
    """Returns {"single": 3, "multi": 2} as the prompt of generate_questions says it."""
    found = {kind: re.search(rf"(\d+)道{name}题", text) for kind, name in (("single", "单选"), ("multi", "多选"))}
    return {kind: int(match[1]) if match else 0 for kind, match in found.items()}


def question(seed: str, kind: str, options: int) -> dict:
    right = {0, 2} if kind == "multi" else {digest(seed) % options}
    texts = [words(f"{seed} {place}", 7) + ("是" if place in right else "非") for place in range(options)]
    return {
        "kind": kind,
        "stem": words(seed, 30) + "？",
        "options": texts,
        "answer": "".join("ABCDEFGH"[place] for place in sorted(right)),
        "answer_text": [texts[place] for place in sorted(right)],
    }


def questions(text: str, times: int = 1) -> dict:
    options = int(re.findall(r"每题有(\d+)个选项", text)[0])
    kinds = [kind for kind, number in asked_for(text).items() for _ in range(number * times)]
    return {"questions": [question(f"{digest(text)} {n}", kind, options) for n, kind in enumerate(kinds)]}


def solved(messages: list[dict], right: bool) -> str:
    options = re.findall(r"^([A-Z])\. .*(是|非)$", messages[-1]["content"], re.M)
    letters = "".join(letter for letter, end in options if (end == "是") == right)
    return f"<think>\n逐项辨析，第{digest(messages)}种理由。\n</think>\n\n答案：{letters}"


def answer(messages: list[dict]) -> str:
    prompt, text = prompt_of(messages), messages[0]["content"]
    if prompt in ("write_rationales", "select_challenging"):
        return solved(messages, prompt == "write_rationales" or digest(messages) % 2 == 0)
    if prompt == "generate_questions":
        value = questions(text)
    elif prompt == "filter_quality":
        value = dict.fromkeys(("answerable", "correct", "exact", "no_leak", "fluent"), True) | {"reasons": "合格。"}
    elif prompt == "optimise_prompt":
        value = {"prompt": f"请先讲清概念，再逐项辨析，最后得出结论。第{digest(text)}稿。"}
    elif prompt == "rewrite_empathy":
        value = {"reply": REPLY * 2}
    else:
        value = {"opens_with_feeling": True, "faithful": True, "reasons": "合格。"}
    return json.dumps(value, ensure_ascii=False)
