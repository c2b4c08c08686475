"""Talking to a model through the real command: pipes, a terminal, a server that fails, the crisis gate."""

import contextlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import BadInput
from data_pipeline.prompts import render
from data_pipeline.safety.crisis import crisis_flags
from launch import chat as talking
from launch.cli import arguments, configuration
from launch.models import reasoning
from tests.conftest import REPOSITORY, launch, real_data, refused
from tests.launch import tiny_model
from tests.launch.stream_server import StreamServer, Told

HELP = "【求助信息"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model"))


def chat(server: StreamServer, said: str | bytes, *words: str, env: dict | None = None):
    """Pipes `said` into the command, which talks to `server`; recipe demo has no system prompt."""
    said = said.encode() if isinstance(said, str) else said
    words = words if any(word.startswith("recipe=") for word in words) else ("recipe=demo", *words)
    done = subprocess.run(
        [sys.executable, "-m", "launch.chat", f"endpoint={server.url}", *words],
        input=said, capture_output=True, timeout=120, cwd=REPOSITORY, env={**os.environ, **(env or {})},
    )  # fmt: skip
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def contents(body: dict) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in body["messages"]]


# The model in this process


def test_a_model_in_this_process_answers_while_the_pipe_is_open(tiny):
    line = [sys.executable, "-m", "launch.chat", f"base_model={tiny}", "recipe=demo", "seed=1"]
    process = subprocess.Popen(
        line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert b"\xe7\xa0\x94\xe7\xa9\xb6" in process.stderr.readline()  # the banner: start-up is finished
        process.stdin.write("什么是记忆？\n".encode())
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100)
        process.stdin.close()
        rest = process.stderr.read().decode()
        assert process.wait(60) == 0, rest
        assert "no medical device" in rest and "not for people in crisis" in rest
    finally:
        process.kill()


def test_piped_answers_are_repeatable_and_nothing_else_is_on_standard_output_or_disk(tiny):
    before = set((REPOSITORY / "runs").glob("*"))
    words = (f"base_model={tiny}", "recipe=demo", "seed=3", "max_new_tokens=20")
    done = [launch("chat", *words, input="你好\n\n什么是记忆？\n") for _ in range(2)]
    assert done[0].returncode == done[1].returncode == 0, done[0].stderr
    assert done[0].stdout == done[1].stdout and len(done[0].stdout) > 40
    assert "医疗器械" in done[0].stderr and "医疗器械" not in done[0].stdout
    assert done[0].stderr.count("cut at 20 tokens; what was said is kept") == 2
    greedy = launch("chat", *words, "once=true", "message=你好", "temperature=0")
    assert greedy.returncode == 0 and greedy.stdout != done[0].stdout.split("\n\n")[0]
    assert set((REPOSITORY / "runs").glob("*")) == before


def test_a_conversation_that_fills_the_window_says_so_and_goes_on_after_reset(tiny):
    words = (f"base_model={tiny}", "recipe=demo", "max_new_tokens=5")
    done = launch("chat", *words, input=f"{'长' * 3000}\n/reset\n你好\n")
    message = refused(done, "1 lines were not taken", "the model takes 1024 with the answer")
    assert "\n[" not in message and done.stdout.strip()


def test_models_that_cannot_talk_are_refused(tiny, tmp_path):
    bare = shutil.copytree(tiny, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    refused(launch("chat", f"base_model={bare}", "once=true", "message=x"), "no chat template")
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    refused(launch("chat", f"base_model={broken}", "once=true", "message=x"), "cannot be loaded")
    refused(launch("chat", "base_model=/no/such/folder", "once=true", "message=x"), "no such folder")
    refused(launch("chat", "run=nobody-ever", "once=true", "message=x"), "run nobody-ever has no model yet")
    refused(launch("chat", "run=nobody-ever", "checkpoint=sft", "once=true", "message=x"), "no checkpoint=sft")
    refused(launch("chat", f"base_model={tiny}", "checkpoint=best"), "checkpoint=best: known are base, sft, grpo")


# Histories and thoughts


THOUGHT = Told(["<thi", "nk>\n他很", "累。\n</th", "ink>\n\n听起来", "很辛苦。"])


def test_earlier_thoughts_stay_out_of_the_history_or_in_it_as_the_recipe_says():
    for keep, earlier in (("false", "听起来很辛苦。"), ("true", "<think>\n他很累。\n</think>\n\n听起来很辛苦。")):
        with StreamServer({"*": THOUGHT}) as server:
            done = chat(server, "我累\n还是累\n/reset\n再来\n", f"keep_thoughts={keep}")
            assert done.returncode == 0, done.stderr
            assert done.stdout == "<think>\n他很累。\n</think>\n\n听起来很辛苦。\n\n" * 3
            assert contents(server.asked[1]) == [("user", "我累"), ("assistant", earlier), ("user", "还是累")]
            assert contents(server.asked[2]) == [("user", "再来")]


def test_thoughts_are_hidden_on_demand_and_read_from_a_field_of_their_own():
    field = Told([("reasoning_content", "他很"), ("reasoning_content", "累。"), "听起来很", "辛苦。"])
    with StreamServer({"一": THOUGHT, "二": field}) as server:
        assert chat(server, "一\n二\n", "thoughts=hidden").stdout == "听起来很辛苦。\n\n" * 2
        assert chat(server, "二\n").stdout == "<think>\n他很累。\n</think>\n\n听起来很辛苦。\n\n"


def test_a_thought_that_never_ends_is_no_reply_and_leaves_no_half_turn_in_the_history():
    plan = {"一": Told(["<think>想", "啊想"], finish="length"), "三": Told(["想了。</think>好。", "见</think>笑"])}
    with StreamServer(plan) as server:
        done = chat(server, "一\n二\n三\n四\n")
        assert done.returncode == 1 and "1 of 4 messages have no whole answer" in done.stderr
        assert "no reply (cut at 80 tokens)" in done.stderr
        assert contents(server.asked[1]) == [("user", "二")]
        assert contents(server.asked[3])[2:4] == [("user", "三"), ("assistant", "好。见笑")]  # nothing opened it


def test_recipes_bring_prompts_and_sampling_of_their_papers():
    with StreamServer() as server:
        for recipe, language in (
            ("psyche_r1", "zh"),
            ("psyche_r1_lora", "en"),
            ("psyllm", "zh"),
            ("psyllm_qwen3", "en"),
        ):
            assert chat(server, "你好\n", f"recipe={recipe}", f"language={language}").returncode == 0
        zh, en, psyllm, psyllm_en = server.asked
    assert (zh["temperature"], zh["top_p"], zh["max_tokens"]) == (0.7, 0.9, 2048)
    assert psyllm["max_tokens"] == 32768
    assert "<think></think>" in zh["messages"][0]["content"] and "心理学" in zh["messages"][0]["content"]
    assert zh["messages"][1]["content"].endswith("\n你好") and "</think>" in zh["messages"][1]["content"]
    assert (
        en["messages"][0]["content"].startswith("You are an expert") and en["messages"][1]["content"].isascii() is False
    )
    assert "DSM-5" in psyllm["messages"][0]["content"] and psyllm["messages"][1]["content"] == "你好"
    assert psyllm_en["messages"][0]["content"].startswith("You are an experienced")


# Servers that fail


def test_what_was_said_before_a_server_died_is_kept_and_the_next_message_works(tmp_path):
    plan = {
        "断": Told(["听起来，", "你很"], dies=True),
        "空": Told([], dies=True),
        "坏": Told(["好，"], raw=b"data: {broken\n\n"),
        "五百": Told(status=500),
        "完": Told(["没有结尾。"], finish=None),
    }
    saved = tmp_path / "talk.json"
    with StreamServer(plan) as server:
        done = chat(server, f"断\n空\n坏\n五百\n完\n好\n/save {saved}\n", "endpoint.attempts=1")
        assert done.returncode == 1 and "5 of 7 messages" in done.stderr
        assert done.stdout.startswith("听起来，你很\n") and done.stdout.endswith("答：好\n\n")
        assert done.stderr.count("what was said is kept") == 3 and "HTTP 500" in done.stderr
        assert contents(server.asked[-1]) == [
            ("user", "断"), ("assistant", "听起来，你很"), ("user", "坏"), ("assistant", "好，"),
            ("user", "完"), ("assistant", "没有结尾。"), ("user", "好"),
        ]  # fmt: skip
    messages = json.loads(saved.read_text())["messages"]
    assert [m.get("cut", "")[:15] for m in messages[1::2]][0] == "connection lost"
    assert messages[1]["content"] == "听起来，你很" and "cut" not in messages[-1]


def test_a_server_that_is_not_there_or_is_none_or_refuses_stops_with_exit_code_2():
    words = ("recipe=demo", "once=true", "message=x", "endpoint.attempts=1")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:9/v1"), "no server at http://127.0.0.1:9/v1")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:99999/v1"), "is not an address")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:9/v1", "endpoint.api_key_env=sk-12"),
            "not the name of an environment variable")  # fmt: skip
    with StreamServer({"*": Told(status=404)}, models=("a", "b")) as server:
        refused(launch("chat", *words, f"endpoint.base_url={server.url}"), "lists a, b; say endpoint.model=NAME")
        refused(launch("chat", *words, f"endpoint.base_url={server.url}", "endpoint.model=c"),
                "refuses model 'c'", "planned")  # fmt: skip
    with StreamServer() as server:  # wrong path: HTML or JSON of something else
        server.models = ()
        refused(launch("chat", *words, f"endpoint.base_url={server.url}"), "lists none")


# Input


def test_invalid_utf8_is_not_sent_and_the_other_lines_are():
    with StreamServer() as server:
        done = chat(server, b"\xef\xbb\xbf\xe5\xa5\xbd\n\xff\xfe\xe5\xa5\n\xe5\xa5\xbd\n/what\n", env={"LC_ALL": "C"})
        refused(done, "2 lines were not taken: line 2: not UTF-8 from byte 1")
        assert done.stdout == "答：好\n\n" * 2 and len(server.asked) == 2
        assert "/what is no command and was not sent" in done.stderr
        refused(chat(server, b"\xff", "once=true"), "standard input: not UTF-8")
        refused(chat(server, b""), "holds no message")
        assert chat(server, "两行\n一条\n", "once=true").stdout == "答：两行\n一条\n"
        assert chat(server, "", "once=true", "message=你好（在吗），嗯").stdout == "答：你好（在吗），嗯\n"
        closed = subprocess.run(
            f"{shlex.quote(sys.executable)} -m launch.chat recipe=demo endpoint.base_url={server.url} <&-",
            shell=True, capture_output=True, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        refused(closed, "standard input")


def test_transcripts_are_written_only_when_asked_for_and_never_over_a_file(tmp_path):
    file = tmp_path / "talk.json"
    with StreamServer({"*": THOUGHT}) as server:
        done = chat(server, f"我不想活了\n/save {file}\n/save {file}\n/help\n/exit\n没人听\n", "seed=1")
        refused(done, "File exists")
        assert len(server.asked) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    saved = json.loads(file.read_text())
    assert saved["model"] == "tiny" and saved["messages"] == [
        {"role": "user", "content": "我不想活了", "crisis": ["suicide"]},
        {"role": "assistant", "content": "听起来很辛苦。", "thought": "他很累。"},
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("temperature=3", "temperature=3: a number from 0 to 2"),
        ("top_p=0", "top_p=0: a number"),
        ("max_new_tokens=1.5", "max_new_tokens=1.5: a whole number"),
        ("thoughts=some", "known are shown, hidden"),
        ("language=fr", "known are zh, en"),
        ("system=chat_psylm.zh", "Did you mean chat_psyllm.zh?"),
        ("country=uk", "has cn, hk, us, none"),
        ("helplines=[{name: x, number: '1'}]", "each needs name, number, source, date"),
        ("helplines=12356", "chat: helplines=12356; a list of {name, number, source, date}"),
        ("message=x", "message= goes with once=true"),
        ("once=maybe", "once=maybe: true or false"),
        ("hardware=cpu", "chat takes no hardware="),
        ("temprature=1", "Did you mean temperature?"),
    ],
)
def test_settings_that_fit_nothing_are_refused(word, expected):
    with pytest.raises(BadInput, match=re.escape(expected)):
        command = arguments.parse(arguments.CHAT, ["recipe=demo", "dry_run=true", word])
        talking.run(configuration.compose_stage(arguments.CHAT, command), command)


def test_dry_run_and_help_touch_nothing():
    done = launch("chat", "recipe=psyllm", "run=nobody-ever", "dry_run=true")
    assert done.returncode == 0 and "model unknown: run nobody-ever" in done.stdout
    assert "max_new_tokens: 32768" in done.stdout and not Path("runs/nobody-ever").exists()
    done = launch("chat", "--help")
    assert done.returncode == 0 and "Talks to a model" in done.stdout and "keep_thoughts" in done.stdout


# The crisis gate


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


# A terminal


class Terminal:
    """The command on a pseudo-terminal; `until(text)` reads on until the text has come.

    Keys that come before readline has taken the terminal can be lost, Ctrl-D above all, so `answer` awaits the prompt.
    """

    def __init__(self, *words: str, term: str = "xterm", output=None) -> None:
        self.leader, follower = pty.openpty()
        env = {**os.environ, "TERM": term, "COLUMNS": "200"}
        env.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launch.chat", "recipe=demo", *words],
            stdin=follower, stdout=output or follower, stderr=follower, cwd=REPOSITORY, env=env,
            start_new_session=True, preexec_fn=self._own_terminal,
        )  # fmt: skip
        os.close(follower)
        self.seen, self.read = "", 0

    @staticmethod
    def _own_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C becomes SIGINT, as in a shell

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.leader)

    def type(self, text: str | bytes) -> None:
        os.write(self.leader, text.encode() if isinstance(text, str) else text)

    def answer(self, text: str | bytes) -> None:
        """Types `text` at the next prompt."""
        self.until("> ")
        self.type(text)

    def leave(self, text: str) -> None:
        self.answer(text)
        assert self.process.wait(60) == 0

    def interrupt(self, text: str) -> None:
        """Presses Ctrl-C until `text` comes: between showing its prompt and waiting for a key, readline loses one."""
        while True:
            self.type("\x03")
            with contextlib.suppress(TimeoutError):
                return self.until(text, 1)

    def until(self, text: str, seconds: float = 60) -> str:
        begun, end = self.read, time.monotonic() + seconds
        while text not in self.seen[begun:]:
            ready, _, _ = select.select([self.leader], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{text!r} did not come; seen: {self.seen[-800:]!r}")
            try:
                self.seen += os.read(self.leader, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended before {text!r}: {self.seen[-800:]!r}") from None
        self.read = self.seen.index(text, begun) + len(text)
        return self.seen[begun : self.read]


def test_ctrl_c_stops_the_answer_and_not_the_program():
    slow = Told(["<think>\n", *["想一想。"] * 3, "\n</think>\n\n", *["慢慢说，"] * 200], wait=0.05)
    with StreamServer({"慢": slow}) as server, Terminal(f"endpoint.base_url={server.url}") as terminal:
        terminal.until("医疗器械")
        terminal.answer("慢\n")
        said = terminal.until("慢慢说，慢慢说，")
        assert "\x1b[2m想一想。" in said and "<think>" not in said
        terminal.type("\x03")
        terminal.until("stopped; what was said is kept")
        terminal.until("> ")
        terminal.interrupt("/exit or Ctrl-D ends")
        terminal.answer("快\n")
        terminal.until("答：快")
        earlier = contents(server.asked[-1])[1]
        assert earlier[0] == "assistant" and 2 <= earlier[1].count("慢慢说，") < 100
        terminal.leave("/exit\n")


def test_ctrl_c_stops_a_model_in_this_process(tiny):
    with Terminal(f"base_model={tiny}", "max_new_tokens=1000", "seed=2") as terminal:
        for _ in range(2):
            terminal.answer("什么是记忆？\n")
            terminal.until("\n")
            terminal.until("的")
            terminal.type("\x03")
            terminal.until("stopped")
        terminal.leave("\x04")


def test_a_terminal_that_is_none_gets_no_escapes_and_a_file_no_prompts(tmp_path):
    with StreamServer({"*": Told(["<think>\n想\n</think>\n\n", "\x1b[2J好。"])}) as server:
        with Terminal(f"endpoint.base_url={server.url}", term="dumb") as terminal:
            terminal.answer("好\n")
            said = terminal.until("好。")
            assert "<think>" in said and "\x1b" not in said.replace("\x1b[?2004l", "")
            terminal.answer(b"\xff\xfe\n")
            terminal.until("not UTF-8")
            terminal.answer("/nothing\n")
            terminal.until("is no command")
            terminal.leave("\x04")
        with (tmp_path / "out").open("w") as out:
            with Terminal(f"endpoint.base_url={server.url}", output=out) as terminal:
                terminal.answer("好\n")
                terminal.leave("/exit\n")
        assert (tmp_path / "out").read_text() == "<think>\n想\n</think>\n\n\x1b[2J好。\n"


# Thoughts and stop words in pieces


def split(pieces: list[str], prefilled: bool = False) -> dict[str, str]:
    splitter, found = reasoning.Splitter(prefilled), {"thought": "", "reply": ""}
    for piece in pieces:
        for kind, text in splitter.feed(piece):
            if kind == "late":
                found = {"thought": found["reply"], "reply": ""}
            else:
                found[kind] += text
    for kind, text in splitter.end():
        found[kind] += text
    return found


@pytest.mark.parametrize(
    ("text", "prefilled", "expected"),
    [
        ("<think>\n想\n</think>\n\n答", False, ("想\n", "答")),
        ("想</think>答", True, ("想", "答")),
        ("想</think>答", False, ("想", "答")),
        ("<think>想</think>答</think>完", False, ("想", "答完")),
        ("<think>想", False, ("想", "")),
        ("答 <thin 完", False, ("", "答 <thin 完")),
        ("<think></think>答", False, ("", "答")),
    ],
)
def test_thoughts_are_told_from_replies_however_they_arrive(text, prefilled, expected):
    for size in (1, 2, 3, len(text)):
        found = split([text[i : i + size] for i in range(0, len(text), size)], prefilled)
        assert (found["thought"], found["reply"]) == expected, size


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think", ">", "甲", "\n", "</"]), max_size=12), st.data())
def test_the_pieces_of_a_text_do_not_change_what_is_thought(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    assert split([text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]) == split([text])


@given(st.text("ab停", max_size=20), st.lists(st.text("ab停", min_size=1, max_size=3), max_size=3), st.data())
def test_a_stop_word_ends_the_text_before_it(text, stops, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    pieces = [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    whole = "".join(reasoning.until(pieces, stops))
    assert text.startswith(whole) and not any(word in whole for word in stops)
    if whole != text:
        assert any(text.startswith(word, len(whole)) for word in stops)
