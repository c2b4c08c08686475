"""How fast texts are read for a crisis, how long a reply of 120,000 characters takes in the chat's gate (bar: 2 s), and
how time grows with a text of one unit again and again (bar: four times the text in eight times the time, at most).

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

UNITS = ("死", "不想", "我", "a", "k ", "想*", "wo bu ", "《", "，", "割自己", "1l", "\n", "自杀是", "'a", "-a", "(死)")


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
    growth = {}
    for unit in UNITS:  # a pattern that tries every length from every start would take minutes
        crisis_flags(unit * 100)
        taken = []
        for size in (10_000, 40_000):
            started = time.process_time()
            crisis_flags(unit * (size // len(unit)))
            taken.append(time.process_time() - started)
        growth[unit] = taken[1] / taken[0]
    worst = max(growth, key=growth.__getitem__)
    print(f"four times as much of one unit: {growth[worst]:.1f} times the time at most, of {worst!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "smile")
