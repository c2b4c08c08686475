"""150,000 posts through clean -> deduplicate -> export: seconds and peak memory, that of all processes.

    python -m tests.benchmarks.synthesis [POSTS]

Posts are spliced from sentences of our own corpus, of 200 characters and more, one in fifty with a contact or an emoji.
The bars are 90 s and 1.5 GiB.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from data_pipeline.export import llama_factory
from data_pipeline.records import Dialogue, Post, Turn
from data_pipeline.synthesis import apply

CORPUS = Path(__file__).resolve().parents[2] / "data_pipeline" / "samples" / "corpus" / "passages"


def posts(count: int):
    draw = random.Random(0)
    text = "".join(p.read_text(encoding="utf-8") for p in sorted(CORPUS.rglob("*.*")))
    sentences = [s.strip() + "。" for s in text.replace("\n", "").split("。") if len(s.strip()) > 8]
    for i in range(count):
        body = "".join(draw.choices(sentences, k=6))
        body += f"我的微信是psy{i:06d}哦😊" if i % 50 == 0 else f"这是第{i}个人的话。"
        yield Post(f"p{i}", "benchmark", f"第{i}帖", body, ["".join(draw.choices(sentences, k=3))])


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 150_000
    rows, seconds = list(posts(count)), {}
    length = sum(len(row.text) for row in rows) / count
    for name in ("clean", "deduplicate"):
        started = time.perf_counter()
        rows = apply.run(name, rows).rows
        seconds[name] = round(time.perf_counter() - started, 1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        turns = (Dialogue(p.id, p.source, [Turn("client", p.text), Turn("counselor", p.replies[0])]) for p in rows)
        exported = llama_factory.write(Path(folder), [], turns)
    seconds["export"] = round(time.perf_counter() - started, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    peak += len(os.sched_getaffinity(0)) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    total = sum(seconds.values())
    print(f"{count} posts of {length:.0f} characters on average; {len(rows)} kept, {exported} exported")
    print(f"{json.dumps(seconds)}: {total:.1f} s in all (bar 90), peak memory {peak:.2f} GiB (bar 1.5)")
    return 0 if total <= 90 and peak <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
