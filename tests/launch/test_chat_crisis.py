"""The crisis gate of the chat command: guidance before a message and before a clause of a reply."""

import json
import re

from data_pipeline.prompts import render
from data_pipeline.safety.crisis import crisis_flags
from tests.conftest import real_data
from tests.launch.chatting import HELP, THOUGHT, chat, contents
from tests.launch.stream_server import StreamServer, Told


def test_guidance_stands_before_the_answer_to_a_message_in_crisis():
    with StreamServer({"*": THOUGHT}) as server:
        done = chat(server, "我不想活了\n今天天气不错\nI want to kill myself\n")
        assert done.returncode == 0
        first, second, third = re.split("听起来很辛苦。\n\n", done.stdout)[:3]
        assert first.startswith(HELP) and first.index("12356") < first.index("<think>") and "2024-12-25" in first
        assert second.startswith("<think>")
        assert third.startswith("[Getting help") and "12356" in third
        assert [contents(body)[-1][1] for body in server.asked] == [
            "我不想活了",
            "今天天气不错",
            "I want to kill myself",
        ]
        assert not any(HELP in content for body in server.asked for _, content in contents(body))
        assert "988" in chat(server, "I want to kill myself\n", "country=us").stdout
        own = "helplines=[{name: 校心理中心, number: '8001', source: 学校公告, date: '2026-01-01'}]"
        done = chat(server, "我不想活了\n", own)
        assert "校心理中心 8001" in done.stdout and "12356" not in done.stdout
        assert "当地" in chat(server, "我不想活了\n", "country=none").stdout


def test_guidance_stands_before_the_clause_of_a_reply_that_speaks_of_crisis():
    with StreamServer(
        {"*": Told(["<think>\n他想自杀吗\n</think>\n\n我明白，", "你是不是", "想自", "杀？", "我在。"])}
    ) as server:
        done = chat(server, "我很累\n")
        said, after = done.stdout.split(HELP)
        assert said.endswith("我明白，\n") and "你是不是想自杀？我在。" in after
        assert done.stdout.count(HELP) == 1


def test_the_gate_flags_real_messages_exactly_as_the_rules_do():
    rows = json.loads((real_data("psysuicide") / "valid.json").read_text())
    texts = [" ".join((row["text"] if isinstance(row, dict) else row[0]).split()) for row in rows]
    texts = [text for text in texts if text and not text.startswith("/")]
    flagged = [text for text in texts if crisis_flags(text)][:40]
    texts = flagged + [text for text in texts if not crisis_flags(text)][:40]
    assert len(texts) == 80
    with StreamServer({"*": Told(["好。"])}) as server:
        done = chat(server, "".join(f"{text}\n" for text in texts))
        assert done.returncode == 0, done.stderr
    shown = [HELP in turn or "[Getting help" in turn for turn in done.stdout.split("好。\n\n")[:-1]]
    assert shown == [True] * 40 + [False] * 40


def test_a_guard_model_adds_to_the_rules_and_fails_towards_showing_guidance():
    def guarded(answer: Told) -> str:
        with StreamServer({"*": Told(["嗯，", "好。"])}) as server, StreamServer({"*": answer}) as guard:
            done = chat(
                server, "我把东西都送人了\n", f"guard.base_url={guard.url}", "guard.attempts=1", "guard.timeout_s=2"
            )
            assert done.returncode == 0, done.stderr
            assert "我把东西都送人了" in guard.asked[0]["messages"][-1]["content"]
            return done.stdout

    assert not crisis_flags("我把东西都送人了")
    assert guarded(Told(["否"])) == "嗯，好。\n\n"
    for answer in (Told(["是"]), Told(["否，但是"]), Told(status=500), Told(["否"], dies=True), Told([]), Told(wait=3)):
        assert guarded(answer).startswith(HELP), answer
    replies = {"*": Told(["否"])}
    with StreamServer({"*": Told(["我也", "把东西送人。"])}) as server, StreamServer(replies) as guard:
        guard.plan[render("crisis_guard", text="我也把东西送人。")] = Told(["是"])
        done = chat(server, "你好\n", f"guard.base_url={guard.url}")
        assert done.stdout.startswith(HELP) and done.stdout.endswith("我也把东西送人。\n\n")
