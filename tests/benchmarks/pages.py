"""The pages of a large run: 75,000 questions, 150,000 dialogues in several steps, 20,000 responses of two checkpoints.

    python -m tests.benchmarks.pages

Prints, for each page, the seconds until its first bytes and until its last, those of the CPU, which say the same on a
busy machine, and the server's largest memory.
"""

import http.client
import random
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, urlsplit

import orjson
import psutil

from tests.launch.pages import made
from tests.launch.pages.browser import Served, serving

RUN = "benchmark-pages"
QUESTIONS, DIALOGUES, RESPONSES = 75_000, 150_000, 10_000  # responses of each of two checkpoints


def build() -> None:
    """Writes the run: the records of the tests' run, lengthened to what synthesis gives and numbered."""
    draw = random.Random(0)
    words = "来访者说最近总是睡不好心里很累工作压力大和家人也常常争吵不知道该怎么办咨询师听见了这份疲惫和委屈"
    data = made.data_stage(RUN, made.questions(3), made.dialogues(3))

    pool = ["".join(draw.choices(words, k=500)) for _ in range(1000)]

    def text(n: int) -> str:
        begin = draw.randrange(500 - n + 1)
        return draw.choice(pool)[begin : begin + n]

    def write(file: Path, row: dict, many: int, fill) -> None:
        with file.open("wb") as out:
            for n in range(many):
                fill(row, n)
                out.write(orjson.dumps(row) + b"\n")

    def question(row: dict, n: int) -> None:
        row.update(id=f"q{n}", stem=f"第{n}题 {text(60)}", rationale=text(300), subject=f"学科{n % 12}")
        row["meta"]["parents"] = [f"p{n // 5}"]

    def dialogue(row: dict, n: int) -> None:
        row.update(id=f"d{n}")
        for turn in row["turns"]:
            turn.update(content=text(120), thought=text(80) if turn["role"] == "counselor" else "")

    talk = asdict(made.dialogues(1)[0])
    talk["turns"] = [dict(turn) for turn in talk["turns"] * 4]
    for place, fill, row, many in (
        ("questions/1_generate_questions", question, asdict(made.questions(1)[0]), QUESTIONS),
        ("posts/1_rewrite_empathy", dialogue, talk, DIALOGUES),
    ):
        made.step(data, place, [])
        first = data / "steps" / place / "rows.jsonl"
        write(first, row, many, fill)
        for number in range(2, 5):  # later steps pass them on
            later = f"{place.split('/')[0]}/{number}_clean"
            made.step(data, later, [])
            shutil.copy(first, data / "steps" / later / "rows.jsonl")
    for name, place in (("questions", "questions/1_generate_questions"), ("dialogues", "posts/1_rewrite_empathy")):
        shutil.copy(data / "steps" / place / "rows.jsonl", data / f"{name}.jsonl")
    made.write_jsonl(data / "heldout.jsonl", made.questions(RESPONSES))
    replies = [f"<think>\n{text(500)}\n</think>\n\n答案：{'AB'[n % 2]}" for n in range(RESPONSES)]
    made.eval_stage(RUN, {"base": replies, "sft": replies})


def ask(served: Served, path: str) -> tuple[float, float, int]:
    """Returns (seconds to the first bytes of the body, to the last, bytes)."""
    parts = urlsplit(served.origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    begun = time.perf_counter()
    connection.request("GET", path, headers={"cookie": f"psyforge-{parts.port}={served.token}"})
    answer = connection.getresponse()
    size = len(answer.read(1000))
    first = time.perf_counter() - begun
    size += len(answer.read())
    assert answer.status == 200, path
    return first, time.perf_counter() - begun, size


def main() -> None:
    if "keep" not in sys.argv or not Path("runs", RUN).exists():
        shutil.rmtree(Path("runs", RUN), ignore_errors=True)
        build()
    of, talks, last, nowhere = f"/runs/{RUN}", quote("posts/4_clean/rows.jsonl"), DIALOGUES - 1, quote("没有这样的话")
    listed, answers = f"{of}/rows?table={talks}", f"{of}/responses?checkpoint=sft"
    pages = {
        "the state alone": f"{of}/state", "runs": "/", "run": of, "rows": f"{of}/rows", "dialogues": listed,
        "the last dialogues": f"{listed}&first={DIALOGUES - 60}", "search, found late": f"{listed}&q=d{last}",
        "search, not found": f"{listed}&q={nowhere}", "a question by its id": f"{of}/row?id=q{QUESTIONS - 1}",
        "a dialogue by its id": f"{of}/row?id=d{last}",
        "a dialogue by its line": f"{of}/row?table={talks}&number={last}",
        "responses": answers, "wrong responses": f"{answers}&verdict=wrong",
        "responses, searched": f"{answers}&q={nowhere}",
        "a response": f"{of}/response?set=heldout&id=q{RESPONSES - 1}",
        "review": f"{of}/review", "compare": f"{of}/compare",
    }  # fmt: skip
    try:
        with serving("port=0") as served:
            process, most = psutil.Process(served.process.pid), 0
            for _ in range(2):
                for name, path in pages.items():
                    before = process.cpu_times()
                    first, last, size = ask(served, path)
                    after, most = process.cpu_times(), max(most, process.memory_info().rss)
                    busy = after.user + after.system - before.user - before.system
                    print(
                        f"{name:24} first {first:6.3f} s, last {last:6.3f} s, of the CPU {busy:5.2f} s, {size:9,} bytes"
                    )
            print(f"largest memory {most / 2**20:.0f} MiB")
    finally:
        if "keep" not in sys.argv:
            shutil.rmtree(Path("runs", RUN), ignore_errors=True)


if __name__ == "__main__":
    main()
