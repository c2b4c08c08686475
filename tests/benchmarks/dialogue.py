"""Requests per second of PsyLLM's synthesis beside a sequential loop, without and with faults, in the same run.

python -m tests.benchmarks.dialogue [ROUNDS]

A server in a process of its own takes 50 ms for an answer; with faults it breaks every fourth call (429, 500, timeout,
cut JSON, empty, reset, as in the fault tests; the client's timeout is 1 s). Ours: the synthesis of the data stage with
the recipe psyllm, 200 posts through plan, write, reason and validate, 64 at once, from reading the posts to the rows
of the last step. Sequential: one request at a time over the official
client, as PsyLLM's released filter agent asks, which does not try again and so loses the rows that met a fault; and
the same loop with as many tries as ours, so that it loses none. The rate counts requests with a result.
The bars: no post is lost, and ours is at least 10 times the sequential rate.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import openai

from data_pipeline import llm
from data_pipeline.steps import plan_dialogue
from data_pipeline.synthesis import run
from data_pipeline.synthesis.configuration import configuration as synthesis_part
from launch.cli import arguments, configuration
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.test_faults import FAULTS
from tests.model_server import Answer

POSTS, SEQUENTIAL, CONCURRENCY, LATENCY, TIMEOUT, TRIES = 200, 100, 64, 0.05, 1.0, 8
STEPS = ("plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")


def serve(faults: bool) -> None:
    """Serves until this process is ended."""
    shares = {kind: (share, answer) for kind, (share, answer, _) in FAULTS.items()}
    shares["timeout"] = (shares["timeout"][0], Answer(wait=2 * TIMEOUT))
    with counsellor.server(counsellor.faulty(shares, 6) if faults else counsellor.answer, LATENCY) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def ours(url: str) -> tuple[int, int]:
    """Returns (requests with a result, posts lost)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "posts.jsonl").open("w", encoding="utf-8") as file:
            for post in counsellor.posts(POSTS):
                row = {"id": post.id, "title": post.title, "text": post.text, "replies": ["抱抱你。"]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        words = {
            "recipe": "psyllm", "posts": folder / "posts.jsonl", "pipelines.posts": f"[{','.join(STEPS)}]",
            "llm.base_url": url, "llm.model": "tiny", "llm.concurrency": CONCURRENCY, "llm.timeout_s": TIMEOUT,
            "llm.attempts": TRIES,
        }  # fmt: skip
        command = arguments.parse(arguments.DATA, [f"{key}={value}" for key, value in words.items()])
        composed = configuration.as_dict(configuration.compose_stage(arguments.DATA, command))
        made = run.run(synthesis_part(composed), folder, print)
        rejects = sum(counts.rejected for counts in made.counts.values())
        return sum(total["calls"] for total in llm.totals(folder / "ledger.sqlite")), POSTS - len(
            made.dialogues
        ) - rejects


def sequential(url: str, tries: int) -> tuple[int, int]:
    """Returns (requests with a result, those lost)."""
    done = 0
    with openai.OpenAI(base_url=url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        for post in counsellor.posts(SEQUENTIAL):
            text: Any = plan_dialogue._messages(post, plan_dialogue.Settings())
            for _ in range(tries):
                try:
                    reply = client.chat.completions.create(model="tiny", messages=text, temperature=0)
                    done += bool(reply.choices[0].message.content)
                    break
                except Exception:  # the released loop goes on, whatever it is
                    continue
    return done, SEQUENTIAL - done


def timed(function, *arguments) -> tuple[float, int]:
    begun = time.perf_counter()
    done, lost = function(*arguments)
    return done / (time.perf_counter() - begun), lost


def measure(faults: bool, rounds: int) -> None:
    command = [sys.executable, "-c", f"from tests.benchmarks import dialogue; dialogue.serve({faults})"]
    rounds_of = {"ours": [], "sequential": [], "sequential, tries as ours": []}
    for _ in range(rounds):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            url = process.stdout.readline().strip()
            rounds_of["ours"].append(timed(ours, url))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            url = process.stdout.readline().strip()
            rounds_of["sequential"].append(timed(sequential, url, 1))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            url = process.stdout.readline().strip()
            rounds_of["sequential, tries as ours"].append(timed(sequential, url, TRIES))
    rates = {name: median(rate for rate, _ in runs) for name, runs in rounds_of.items()}
    print("with faults" if faults else "without faults")
    for name, runs in rounds_of.items():
        factor = f", ours is {rates['ours'] / rates[name]:.1f} times that (bar 10)" if name != "ours" else ""
        print(f"  {name}: {rates[name]:.1f}/s, lost {max(lost for _, lost in runs)}{factor}", flush=True)


if __name__ == "__main__":
    for with_faults in (False, True):
        measure(with_faults, int(sys.argv[1]) if len(sys.argv) > 1 else 3)
