"""Requests per second of our client, beside a bare openai loop and a sequential one in the same run.

python -m tests.benchmarks.client [ROUNDS]

A server in a process of its own takes 50 ms for an answer. Ours: 1,000 requests, 32 at once, with ledger, budget,
both limits per minute and the progress bar. Bare: the same with openai's aiohttp transport and nothing else.
Sequential: one request at a time, as PsyLLM's released filter agent asks; 100 requests, which need no more to tell.
The bars: ours is at least 0.80 of the bare rate and 15 times the sequential one.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from data_pipeline.llm import Server, run_all
from data_pipeline.records import Request

REQUESTS, SEQUENTIAL, CONCURRENCY, LATENCY = 1000, 100, 32, 0.05
PARAMS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 1024}


def messages(row: int) -> list[Any]:
    case = "我最近总是睡不着，白天也没有精神，工作的时候常常走神，不知道该怎么办。" * 5
    return [{"role": "system", "content": "你是一名心理咨询师。"}, {"role": "user", "content": f"{case}（{row}）"}]


async def bare(url: str) -> None:
    rows = iter(range(REQUESTS))
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient()
    ) as client:

        async def work() -> None:
            for row in rows:
                reply = await client.chat.completions.create(model="tiny", messages=messages(row), **PARAMS)
                assert reply.choices[0].message.content

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def sequential(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none") as client:
        for row in range(SEQUENTIAL):
            reply = client.chat.completions.create(model="tiny", messages=messages(row), **PARAMS)
            assert reply.choices[0].message.content


def ours(url: str) -> None:
    requests = [Request("benchmark", str(row), 0, messages(row), PARAMS) for row in range(REQUESTS)]
    with tempfile.TemporaryDirectory() as folder:
        limits: dict[str, Any] = {"requests_per_minute": 1e6, "tokens_per_minute": 1e10}  # on, and never reached
        server = Server(url, "tiny", concurrency=CONCURRENCY, **limits, input_price=1, output_price=1)
        replies = run_all(server, requests, Path(folder) / "ledger.sqlite", "benchmark", budget=1000)
    assert all(reply.finish == "stop" for reply in replies)


def rate(function, count: int = REQUESTS) -> float:
    started = time.perf_counter()
    function()
    return count / (time.perf_counter() - started)


def main(rounds: int) -> None:
    command = [sys.executable, "-m", "tests.model_server", "--latency", str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            rates = []
            for _ in range(rounds):
                one = rate(lambda: sequential(url), SEQUENTIAL)
                rates.append((one, rate(lambda: asyncio.run(bare(url))), rate(lambda: ours(url))))
                print("sequential {:.1f}/s, bare {:.0f}/s, ours {:.0f}/s".format(*rates[-1]), flush=True)
        finally:
            process.terminate()
    one, theirs, mine = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"ours is {mine / theirs:.2f} of the bare rate (medians {mine:.0f}/s and {theirs:.0f}/s; bar 0.80)")
    print(f"ours is {mine / one:.1f} times the sequential rate (median {one:.1f}/s; bar 15)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
