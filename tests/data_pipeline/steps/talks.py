"""Posts, dialogues and replies that the tests of the counselling steps share."""

import json

from data_pipeline.records import Dialogue, Post, Response, Turn
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.steps import Calls, Size, find_step

STEPS = ("plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")  # PsyLLM's, in order
PLAN = {"emotion": "难过，自责", "rounds": 2, "themes": ["理解处境", "看见努力"]}
ROUND = {"client": "我又没考好。", "counselor": "嗯，多说一点。"}
THOUGHT, REPLY = "用人本取向的共情，先回应自责。", "听起来你很自责，也很累。"
GUIDE, ALONE = guidance("zh", HELPLINES), guidance("zh", HELPLINES, alone=True)
CRISIS = "我不想活了"


def post(id: str = "p", text: str = "考研又没考好，觉得对不起爸妈。", **meta) -> Post:
    return Post(id, "forum", "没考好", text, ["加油"], meta)


def planned(id: str = "p", text: str = "考研又没考好，觉得对不起爸妈。", **meta) -> Post:
    return post(id, text, **{"plan": PLAN} | meta)


def talk(*clients: str, id: str = "d", system: str = "", **meta) -> Dialogue:
    turns = [Turn("system", system)] if system else []
    for number, text in enumerate(clients, 1):
        turns += [Turn("client", text), Turn("counselor", f"原来的回复{number}")]
    return Dialogue(id, "test", turns, meta)


def reasoned(id: str = "d", text: str = "我很累", **meta) -> Dialogue:
    return Dialogue(id, "test", [Turn("client", text), Turn("counselor", REPLY, THOUGHT)], meta)


def tagged(thought: str = THOUGHT, reply: str = REPLY) -> str:
    return f"<think>\n{thought}\n</think>\n\n{reply}"


def by_words(known: dict, usual):
    """Answers by words in the first or last message; a list is used up, its last answer from then on."""

    def reply(messages):
        text = messages[0]["content"] + messages[-1]["content"]
        value = next((value for words, value in known.items() if words in text), usual)
        if isinstance(value, list):
            return value.pop(0) if len(value) > 1 else value[0]
        return value

    return reply


def asking(reply):
    """Returns an `ask` without a server: `reply(messages)` gives a text, or a dict that is sent as JSON;
    `ask.requests` has what was asked.
    """

    def ask(requests):
        ask.requests += requests
        values = [reply(request.messages) for request in requests]
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        return [Response(text, "stop", 1) for text in texts]

    ask.requests = []
    return ask


def plan_of(name: str, size: Size) -> Calls:
    """Returns the step's plan of calls with the settings as they are."""
    step = find_step(name, "test")
    assert step.calls
    return step.calls(step.settings(), size, 0)
