"""A 1,000-item evaluation against a local server (50 ms latency, 32 at once), against a bare openai+aiohttp loop.

    python -m tests.benchmarks.evaluation

Ours asks, keeps a ledger, stores and scores; rates are of items from the first request to the last score, in
alternating rounds of the same run. The bar is 80 %.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from data_pipeline.llm import Server
from data_pipeline.prompts import question_messages
from data_pipeline.records import Question
from eval import responses
from eval.contract import Item, Loaded, benchmark_of_files
from eval.settings import EvaluationSet, SetSettings, settings
from launch.cli.configuration import CONF, as_dict, load_config
from launch.eval import score
from launch.models.answering import from_server

ITEMS, AT_ONCE, ROUNDS = 1000, 32, 3
SETTINGS = settings(as_dict(load_config(CONF / "eval.yaml")) | {"run": "benchmark", "max_new_tokens": 64, "sets": {}})


def items() -> list[Item]:
    return [
        Item(Question(f"q{i}", "table", "", "single", f"第{i}题", ["甲", "乙", "丙", "丁"], "A"), "single")
        for i in range(ITEMS)
    ]


async def bare(url: str, conversations: list[Any]) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="-", http_client=openai.DefaultAioHttpClient()) as client:
        left = list(conversations)

        async def work() -> None:
            while left:
                await client.chat.completions.create(model="tiny", messages=left.pop(), max_tokens=64)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def main() -> int:
    asked = items()
    one = EvaluationSet("benchmark", SetSettings(), benchmark_of_files(), Loaded(asked, [], []))
    conversations = [question_messages(item.question) for item in asked]
    line = [sys.executable, "-m", "tests.model_server", "--latency", "0.05"]
    rates = {"bare": [], "ours": []}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            server = Server(url, "tiny", concurrency=AT_ONCE)
            asyncio.run(bare(url, conversations[:64]))  # warm
            for _ in range(ROUNDS):
                started = time.perf_counter()
                asyncio.run(bare(url, conversations))
                rates["bare"].append(ITEMS / (time.perf_counter() - started))
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    ledger = Path(folder) / "ledger.sqlite"
                    generate = from_server(SETTINGS, server, ledger, "benchmark")
                    score(SETTINGS, one, "tiny", responses.ask(one, generate), Path(folder), ledger)
                    rates["ours"].append(ITEMS / (time.perf_counter() - started))
        finally:
            process.terminate()
    ratio = max(rates["ours"]) / max(rates["bare"])
    for name, values in rates.items():
        print(f"{name}: {', '.join(f'{value:.0f}' for value in values)} items/s")
    print(f"ratio of the best rounds: {ratio:.2f} (bar 0.80)")
    return 0 if ratio >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
