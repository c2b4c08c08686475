"""The chat command on a terminal: keys, escapes, and a terminal that is none."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

from tests.conftest import REPOSITORY
from tests.launch.chatting import contents
from tests.launch.stream_server import StreamServer, Told


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
                self.until(text, 1)
                return

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


def test_ctrl_c_stops_a_model_in_this_process(tiny, tmp_path):
    """The model never ends by itself: a random one does now and then, just before the key."""
    file, endless = tmp_path / "said.json", tmp_path / "endless"
    shutil.copytree(tiny, endless)
    settings = json.loads((endless / "generation_config.json").read_text())
    (endless / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": 10**6}))
    with Terminal(f"base_model={endless}", "max_new_tokens=1000", "seed=2") as terminal:
        for _ in range(2):
            terminal.answer("什么是记忆？\n")
            terminal.until("\n")
            terminal.until("的")
            terminal.type("\x03")
        terminal.answer(f"/save {file}\n")
        terminal.until("turns in")
        terminal.leave("\x04")
    answers = [turn for turn in json.loads(file.read_text())["messages"] if turn["role"] == "assistant"]
    assert [turn.get("cut") for turn in answers] == ["stopped"] * 2
    assert all("的" in turn["content"] + turn.get("thought", "") for turn in answers)


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
