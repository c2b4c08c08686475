"""Judgements per second of an evaluation, beside a bare openai loop that asks the same in the same run.

python -m tests.benchmarks.judging [ROUNDS]

2,400 judgements: 240 replies, five dimensions, two judges; a server in a process of its own takes 50 ms. Ours:
prompts rendered, ledger, reading, votes and figures. Bare: the same bodies with openai's aiohttp transport, 32 at
once, and nothing else. The bar: ours is at least 0.80 of the bare rate."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from data_pipeline.llm import Server
from data_pipeline.records import Dialogue, Response, Turn
from eval.contract import Answered, Item, Scoring, find_benchmark, judge_calls
from eval.judging.judges import Panel, ask_judges
from eval.judging.votes import by_judge

REPLIES, CONCURRENCY, LATENCY = 240, 32, 0.05
RUBRIC = Path(__file__).parents[2] / "eval/benchmarks/rubric/rubrics/psycrisis.yaml"
BENCHMARK = find_benchmark("rubric", "benchmark")


def answered() -> list[Answered]:
    return [
        Answered(
            Item(
                Dialogue(str(n), "test", [Turn("client", f"我撑不住了，第{n}次。")]),
                "replies",
                facts={"rubric": RUBRIC},
            ),
            [Response(f"听起来你很难受。（{n}）", "stop", 9)],
            [],
            None,
        )
        for n in range(REPLIES)
    ]


async def bare(url: str, bodies: list[dict[str, Any]]) -> None:
    left = iter(bodies)
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient()
    ) as client:

        async def work() -> None:
            for body in left:
                reply = await client.chat.completions.create(**body)
                assert reply.choices[0].message.content

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def ours(url: str, items: list[Answered]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        panel = Panel({name: Server(url, name, concurrency=CONCURRENCY) for name in ("first", "second")})
        judged, _ = ask_judges(BENCHMARK, items, panel, Path(folder, "ledger.sqlite"), "benchmark", Scoring())
    for one, judgements in zip(items, judged, strict=True):
        one.judgements = judgements
    assert sum(of["votes"] for of in by_judge(items, Scoring()).values()) == 10 * REPLIES


def rate(function) -> float:
    started = time.perf_counter()
    function()
    return 10 * REPLIES / (time.perf_counter() - started)


def main(rounds: int) -> None:
    items = answered()
    bodies = [
        {"model": name, "messages": call.messages(one.item, one.responses[0].text), **call.params, "seed": 42}
        for name in ("first", "second") for one in items for call in judge_calls(BENCHMARK, one.item)
    ]  # fmt: skip
    command = [sys.executable, "-m", "tests.model_server", "--latency", str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            rates = []
            for _ in range(rounds):
                rates.append((rate(lambda: asyncio.run(bare(url, bodies))), rate(lambda: ours(url, items))))
                print("bare {:.0f}/s, ours {:.0f}/s".format(*rates[-1]), flush=True)
        finally:
            process.terminate()
    theirs, mine = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"ours is {mine / theirs:.2f} of the bare rate (medians {mine:.0f}/s and {theirs:.0f}/s; bar 0.80)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
