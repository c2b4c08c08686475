"""How fast texts are read for a crisis, and how long a reply of 120,000 characters takes in the chat's gate (bar: 2 s).

python -m tests.benchmarks.crisis [SMILE_FOLDER]

Every post is another (tests/benchmarks/clean.py); the reply comes in pieces of seven characters, as models write.
"""

import sys
import time
from pathlib import Path

from data_pipeline.safety.crisis import crisis_flags
from launch.conversation.crisis_gate import CrisisGate
from launch.conversation.session import Answer, Reader
from launch.conversation.terminal import Terminal
from tests.benchmarks import clean
from tests.conftest import DATA


class Silent(Terminal):
    """Shows nothing."""

    def _write(self, text: str, style: str = "") -> None:
        pass


def main(folder: Path) -> None:
    clean.COUNT = 12_000
    posts = [post.text for post in clean.posts(folder)]
    for text in posts[:6000]:  # RE2 builds its automata as texts come
        crisis_flags(text)
    started = time.process_time()
    for text in posts[6000:]:
        crisis_flags(text)
    print(f"{6000 / (time.process_time() - started):,.0f} posts/s on one core")
    reply = "".join(posts)[:120_000]
    answer = Answer(Silent(shown=True), Reader(CrisisGate(())), "guidance")
    started = time.process_time()
    for start in range(0, len(reply), 7):
        answer.take("reply", reply[start : start + 7])
        answer.reader.flags = []  # reading goes on, as if nothing had been flagged
    print(f"{len(reply):,} characters in pieces: {time.process_time() - started:.2f} s", end="; ")
    started = time.process_time()
    CrisisGate(()).flags(reply)
    print(f"at once: {time.process_time() - started:.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "smile")
