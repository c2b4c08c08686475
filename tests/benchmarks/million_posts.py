"""A million posts of 72 characters through clean and deduplicate: seconds, and peak memory of all processes.

    python -m tests.benchmarks.million_posts [POSTS] [CHECKOUT]

The data stage as a user runs it, from the file of posts to the rows of the second step. Every post is another, joined
from pieces of our own corpus; one in twenty is a near copy of an earlier one, one in fifty has a contact or an emoji.
Memory is the PSS of the process and all its children, looked at twice a second. With a CHECKOUT of an earlier version
of this repository (with its .venv) the same posts go through that one first, and the merges of the two are compared.
Bars: 1.5 GiB, and with a CHECKOUT 1.15 of its time and the same merges.
"""

import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.synthesis import CORPUS
from tests.conftest import REPOSITORY

LENGTH, PIECE = 72, 6
GIB, TIME = 1.5, 1.15
WORDS = ("recipe=psyche_r1", "passages=null", "steps=[clean,deduplicate]")


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu_seconds: float  # of all processes: other work on the machine disturbs it less
    gib: float
    merged: list[str]  # ids


def posts(count: int, length: int = LENGTH) -> Iterator[dict]:
    """Yields posts of so many characters, a multiple of PIECE."""
    draw = random.Random(random.SystemRandom().random())  # not seen before: automata grow with what they have seen
    text = "".join("".join(p.read_text(encoding="utf-8").split()) for p in sorted(CORPUS.rglob("*.*")))
    earlier = []
    for i in range(count):
        if i % 20 == 19:
            body = draw.choice(earlier)
            at = draw.randrange(length - 1)
            body = body[:at] + draw.choice(text) + body[at + 1 :]
        else:
            pieces = (draw.randrange(len(text) - PIECE) for _ in range(length // PIECE))
            body = "".join(text[at : at + PIECE] for at in pieces)
            if i % 50 == 0:
                body = body[:-14] + f"微信psy{draw.randrange(10**6):06d}哦😊。"
        if len(earlier) < 10_000:
            earlier.append(body)
        yield {"id": f"p{i}", "title": "", "text": body, "replies": []}


def measure(checkout: Path, file: Path) -> Measured:
    """Returns what the data stage of a checkout takes for the posts in a file, and what it merges."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "launch.data", f"run={run}", f"posts={file}", *WORDS]
    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, pss(psutil.Process(process.pid)))
        time.sleep(0.5)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        if process.returncode:
            sys.exit(f"{' '.join(command)} in {checkout} ended with {process.returncode}")
        report = json.loads((checkout / "runs" / run / "data/steps/posts/2_deduplicate/report.json").read_bytes())
    finally:
        shutil.rmtree(checkout / "runs" / run, ignore_errors=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, cpu, peak / 2**30, report["merged_ids"])


def pss(process: psutil.Process) -> int:
    """Returns the bytes that a process and its children hold, what they share counted once."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except (psutil.Error, AttributeError):  # it has just ended
        pass
    return total


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    checkouts = [Path(sys.argv[2]).absolute()] if len(sys.argv) > 2 else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "posts.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for post in posts(count):
                out.write(json.dumps(post, ensure_ascii=False) + "\n")
        measured = []
        for checkout in (*checkouts, REPOSITORY):
            measured.append(one := measure(checkout, file))
            print(f"{checkout.name}: {count:,} posts, {one.seconds:.1f} s (CPU {one.cpu_seconds:.1f} s), peak "
                  f"{one.gib:.2f} GiB (bar {GIB}), {len(one.merged):,} merged", flush=True)  # fmt: skip
    earlier, ours = measured[0], measured[-1]
    met = ours.gib <= GIB
    if checkouts:
        ratio, same = ours.seconds / earlier.seconds, ours.merged == earlier.merged
        print(f"{ratio:.2f} of the earlier time (bar {TIME}), CPU {ours.cpu_seconds / earlier.cpu_seconds:.2f}; "
              f"{'the same merges' if same else 'OTHER MERGES'}")  # fmt: skip
        met = met and ratio <= TIME and same
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
