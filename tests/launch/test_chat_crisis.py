"""The crisis gate of the chat command: guidance before a message and before a clause of an answer."""

import json
import re

from data_pipeline.prompts import render
from data_pipeline.safety.crisis import crisis_flags
from launch.conversation.crisis_gate import CrisisGate, Reader
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
    pieces = ["<think>\n他很累\n</think>\n\n我明白，", "你是不是", "想自", "杀？", "我在。"]
    with StreamServer({"*": Told(pieces)}) as server:
        done = chat(server, "我很累\n")
        said, after = done.stdout.split(HELP)
        assert said.endswith("我明白，\n") and "你是不是想自杀？我在。" in after
        assert done.stdout.count(HELP) == 1


SPLIT = {
    "over pieces": ["我", "不", "想", "活", "了", "。"],
    "over lines": ["我不想\n", "活了\n"],
    "over thought and reply": ["<think>\n他说：我不想\n</think>\n\n", "活了"],
    "in the thought": ["<think>\n他想自", "杀吗？\n</think>\n\n", "嗯。"],
    "after a long reply": ["今天下雨，在家看书。" * 60, "他写道我不", "想活了。"],
    "in a thought whose mark came late": ["他不想活了</think>嗯。"],
    "names means": ["睡前吃", "安眠药的致死量是……"],
    "English over lines": ["I want to kill\n", "myself."],
}


def test_no_part_of_an_answer_that_is_shown_hides_a_phrase():
    with StreamServer({f"{name}。": Told([*pieces, "完。"]) for name, pieces in SPLIT.items()}) as server:
        done = chat(server, "".join(f"{name}。\n" for name in SPLIT))
    assert done.returncode == 0
    for name, shown in zip(SPLIT, done.stdout.split("完。\n\n"), strict=False):
        assert shown.count(HELP) + shown.count("[Getting help") == 1, (name, shown)
        before = re.split(r"【求助信息|\[Getting help", shown)[0]
        assert not re.search(r"活了|自杀|致死量|kill\s*myself", before), name


def test_a_thought_that_is_not_shown_is_not_read():
    with StreamServer({"*": Told(["<think>\n他想自杀吗？\n</think>\n\n", "嗯。"])}) as server:
        assert chat(server, "你好\n", "thoughts=hidden").stdout == "嗯。\n\n"


def test_guidance_is_in_the_language_of_the_user():
    said = {
        "how are you, 老师?": "[Getting help", "...": "[Getting help", "我想 kms": HELP, "???": HELP,
        "bu xiang huo le": HELP, "🔪🩸": HELP, "i want to 🔪 myself": "[Getting help",
    }  # fmt: skip
    with StreamServer({"*": Told(["他想自杀吗？"])}) as server:
        done = chat(server, "".join(f"{message}\n" for message in said))
    for (message, language), shown in zip(said.items(), done.stdout.split("他想自杀吗？\n\n"), strict=False):
        assert shown.startswith(language), message


def test_a_long_reply_passes_the_gate():
    """The time it takes is measured by tests/benchmarks/chat.py."""
    shown: list[str] = []
    reader = Reader(CrisisGate(()))
    for piece in re.findall(".{1,7}", "今天下雨，我在家看书，晚上煮了面。" * 1000):
        shown += reader.read(piece)
    assert shown == [] and len(reader.before) < 400
    assert reader.read("我不想活了") == ["suicide"]


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
    answers = {
        "今天下雨": (Told(["否"]), "", ""),
        "今天刮风": (Told(["是"]), HELP, ""),
        "今天下雪": (Told(["否，但是"]), HELP, "neither yes nor no"),
        "今天打雷": (Told(["这段文字说的是天气，我认为没有危险。"]), HELP, "neither yes nor no"),
        "今天起雾": (Told(status=500), HELP, "did not answer"),
        "今天很热": (Told(["否"], dies=True), HELP, "did not answer"),
        "今天很冷": (Told([]), HELP, "did not answer"),
        "今天多云": (Told(["", ""], wait=2), HELP, "did not answer"),
        "我不想活了": (Told(["否"]), HELP, ""),  # the rules stand
    }
    plan = {render("crisis_guard", text=said): told for said, (told, _, _) in answers.items()} | {"*": Told(["否"])}
    plan[render("crisis_guard", text="我也去散步。")] = Told(["是"])
    with (
        StreamServer({"*": Told(["好。"]), "你呢": Told(["我也", "去散步。"])}) as server,
        StreamServer(plan) as guard,
    ):
        settings = (f"guard.base_url={guard.url}", "guard.attempts=1", "guard.timeout_s=1")
        done = chat(server, "".join(f"{said}\n" for said in (*answers, "你呢")), *settings)
    assert done.returncode == 0, done.stderr
    *turns, last = done.stdout.split("好。\n\n")
    assert {said: turn[: len(HELP)] for said, turn in zip(answers, turns, strict=True)} == {
        said: shown for said, (_, shown, _) in answers.items()
    }
    assert last.startswith(HELP) and last.endswith("我也去散步。\n\n")
    notes = [note for _, _, note in answers.values() if note]
    assert re.findall("neither yes nor no|did not answer", done.stderr) == notes


def test_qwen3guard_gets_the_text_alone_and_its_labels_are_read():
    labels = {
        "今天下雪": ("Safety: Safe\nCategories: None", False),
        "今天打雷": ("Safety: Unsafe\nCategories: Suicide & Self-Harm", True),
        "今天起雾": ("Safety: Controversial\nCategories: Violent", True),
        "今天很热": ("Safety: Unsafe\nCategories: Politically Sensitive Topics", False),
    }
    plan = {said: Told([label]) for said, (label, _) in labels.items()} | {"好。": Told(["Safety: Safe"])}
    with StreamServer({"*": Told(["好。"])}) as server:
        with StreamServer(plan, models=("Qwen/Qwen3Guard-Gen-0.6B",)) as guard:
            done = chat(server, "".join(f"{said}\n" for said in labels), f"guard.base_url={guard.url}")
    shown = [HELP in turn for turn in done.stdout.split("好。\n\n")[:-1]]
    assert shown == [flagged for _, flagged in labels.values()] and "the guard model" not in done.stderr
