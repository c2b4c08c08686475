"""The chat command with a pipe as its standard input, and an answer that thinks."""

import os
import subprocess
import sys
from subprocess import CompletedProcess

from tests.conftest import REPOSITORY
from tests.launch.stream_server import StreamServer, Told

HELP = "【求助信息"
THOUGHT = Told(["<thi", "nk>\n他很", "累。\n</th", "ink>\n\n听起来", "很辛苦。"])


def chat(server: StreamServer, said: str | bytes, *words: str, env: dict | None = None) -> CompletedProcess[str]:
    """Pipes `said` into the command, which talks to `server`; recipe demo has no system prompt."""
    said = said.encode() if isinstance(said, str) else said
    words = words if any(word.startswith("recipe=") for word in words) else ("recipe=demo", *words)
    done = subprocess.run(
        [sys.executable, "-m", "launch.chat", f"endpoint={server.url}", *words],
        input=said, capture_output=True, timeout=120, cwd=REPOSITORY, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def contents(body: dict) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in body["messages"]]
