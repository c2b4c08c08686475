"""A model that answers the four steps of a counselling dialogue, and the faults it meets; for tests and benchmarks.

Each reply is a function of the request, so that a test knows what every request must have been.
"""

import hashlib
import json
import random
from collections import Counter

from data_pipeline.records import Dialogue, Post, Turn
from tests.data_pipeline.scripted import _Plan
from tests.model_server import Answer, ModelServer, completion


def step_of(messages: list[dict]) -> str:
    text = messages[0]["content"]
    if messages[0]["role"] == "system":
        return "reason_reply"
    marks = {"plan_dialogue": '"themes"', "validate_dialogue": '"issues"', "write_dialogue": '"rounds": [{'}
    return next(step for step, mark in marks.items() if mark in text)


def digest(value: object) -> int:
    return int(hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:8], 16)


def reasoned(messages: list[dict]) -> tuple[str, str]:
    """Returns (thought, reply) to a history without its system message."""
    number = digest(messages) % 1_000_000  # more digits may be somebody's number
    return (
        f"来访者很累，用人本取向的共情。（{number}）",
        f"听起来这件事让你很累，愿意多说一点吗？（{chr(0x4E00 + number % 20000)}）",
    )


def answer(messages: list[dict]) -> Answer:
    step, text = step_of(messages), messages[0]["content"]
    if step == "reason_reply":
        thought, reply = reasoned(messages[1:])
        if digest(messages[1:]) % 2:  # as servers that split the thought off
            return Answer(completion(reply, reasoning_content=thought))
        return Answer(completion(f"<think>\n{thought}\n</think>\n\n{reply}"))
    if step == "plan_dialogue":
        rounds = digest(text) % 3 + 1
        value = {"emotion": "疲惫，有些自责。", "rounds": rounds, "themes": [f"主题{n}" for n in range(rounds)]}
    elif step == "write_dialogue":
        rounds, number = text.count("轮：主题"), digest(text) % 1_000_000  # more digits may be somebody's
        value = {"rounds": [{"client": f"这是第{n}件事，{number}。", "counselor": "嗯。"} for n in range(rounds)]}
    else:
        value = {"keep": True, "issues": [], "reason": "没有问题"}
    return Answer(completion(json.dumps(value, ensure_ascii=False)))


def faulty(shares: dict[str, tuple[float, Answer]], seed: int):
    """Returns `answer` with faults of these shares, drawn anew by every call of the same request."""
    seen = Counter()

    def reply(messages: list[dict]) -> Answer:
        key = digest(messages)
        seen[key] += 1
        kinds, weights = [*shares, ""], [share for share, _ in shares.values()]
        chance = random.Random(f"{seed} {key} {seen[key]}")
        (kind,) = chance.choices(kinds, [*weights, 1 - sum(weights)])
        return shares[kind][1] if kind else answer(messages)

    return reply


def server(reply=answer, latency: float = 0.0) -> ModelServer:
    plan = _Plan(reply)
    plan.server = ModelServer(latency, plan)
    return plan.server


def posts(count: int) -> list[Post]:
    return [Post(f"p{n}", "test", f"第{n}个问题", f"最近总是睡不着，想着第{n}件事。", []) for n in range(count)]


def dialogues(count: int) -> list[Dialogue]:
    """One to eight rounds; some with a system turn, some with the client's last words unanswered, some in a crisis."""
    made = []
    for n in range(count):
        turns = [Turn("system", f"设定{n}")] if n % 5 == 0 else []
        for t in range(n % 8 + 1):
            words = "我不想活了。" if n % 40 == 7 and t == 2 else ""
            turns += [Turn("client", f"{words}第{n}个人的第{t}句话。"), Turn("counselor", f"旧的回复{n}.{t}")]
        made.append(Dialogue(f"d{n}", "test", [*turns, Turn("client", "谢谢")] if n % 7 == 0 else turns))
    return made
