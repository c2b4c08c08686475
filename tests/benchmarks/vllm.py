"""vLLM without a GPU: the evaluation's rate beside a bare loop's, and its throughput beside the transformers server's.

    python -m tests.benchmarks.vllm

Two servers of the demo's tiny model, random weights, are up in turn. Evaluation: 512 items, 32 at once, 64 tokens,
rates from the first request to the last score, in alternating rounds against the same vLLM; the bar is 80 % of the
bare loop. Throughput: 128 answers of 128 tokens, 32 at once; the bar is 4 times the transformers server.
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

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.prompts import question_messages
from data_pipeline.records import Question, Request
from eval import responses
from eval.contract import Item, Loaded, benchmark_of_files
from eval.settings import EvaluationSet, SetSettings, settings
from launch.cli.configuration import CONF, as_dict, load_config
from launch.eval import score
from launch.frameworks import vllm
from launch.models import vllm_server
from launch.models.answering import from_server
from tests.conftest import REPOSITORY
from tests.launch import tiny_model

ITEMS, TOKENS, AT_ONCE, ROUNDS = 512, 64, 32, 3
SETTINGS = settings(
    as_dict(load_config(CONF / "eval.yaml")) | {"run": "benchmark", "max_new_tokens": TOKENS, "sets": {}}
)
GENERATED = {"max_tokens": 128, "temperature": 1.0}


def items() -> list[Item]:
    options = ["甲", "乙", "丙", "丁"]
    return [Item(Question(f"q{i}", "table", "", "single", f"第{i}题", options, "A"), "single") for i in range(ITEMS)]


async def bare(url: str, conversations: list[Any]) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="-", http_client=openai.DefaultAioHttpClient()) as client:
        left = list(conversations)

        async def work() -> None:
            while left:
                asked: Any = {"model": "tiny", "messages": left.pop(), "max_tokens": TOKENS, "temperature": 0}
                await client.chat.completions.create(**asked)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def ours(url: str, one: EvaluationSet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        generate = from_server(SETTINGS, Server(url, "tiny", concurrency=AT_ONCE), ledger, "benchmark")
        score(SETTINGS, one, "tiny", responses.ask(one, generate), Path(folder), ledger)


def tokens_per_second(url: str) -> float:
    requests = [
        Request("benchmark", str(n), 0, [{"role": "user", "content": f"第{n}题"}], {**GENERATED, "seed": n})
        for n in range(128)
    ]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        server = Server(url, "tiny", concurrency=AT_ONCE)
        replies = llm.run_all(server, requests, Path(folder) / "ledger.sqlite", "throughput")
        return sum(reply.tokens for reply in replies) / (time.perf_counter() - begun)


def timed(function, *words: Any) -> float:
    begun = time.perf_counter()
    function(*words)
    return ITEMS / (time.perf_counter() - begun)


def main() -> int:
    if not vllm.is_installed():
        raise BadInput("no vLLM here: bash launch/install.sh cpu vllm")
    asked = items()
    one = EvaluationSet("benchmark", SetSettings(), benchmark_of_files(), Loaded(asked, [], []))
    conversations = [question_messages(item.question) for item in asked]
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.make(Path(folder))
        with vllm_server.serving(str(model), "tiny", {}, Path(folder) / "vllm.log") as url:
            asyncio.run(bare(url, conversations[:64]))  # warm
            for _ in range(ROUNDS):
                rates["bare"].append(timed(lambda: asyncio.run(bare(url, conversations))))
                rates["ours"].append(timed(ours, url, one))
            speeds["vllm"] = [tokens_per_second(url) for _ in range(ROUNDS)]
        line = [
            sys.executable,
            "-m",
            "launch.serve",
            f"base_model={model}",
            "name=tiny",
            "engine=transformers",
            "port=0",
        ]
        with subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                url = next(word for said in process.stdout for word in said.split() if word.startswith("http"))
                speeds["transformers"] = [tokens_per_second(url) for _ in range(ROUNDS)]
            finally:
                process.terminate()
    for name, values in rates.items():
        print(f"{name}: {', '.join(f'{value:.1f}' for value in values)} items/s")
    for name, values in speeds.items():
        print(f"{name}: {', '.join(f'{value:.0f}' for value in values)} tokens/s")
    share = max(rates["ours"]) / max(rates["bare"])
    times = statistics.median(speeds["vllm"]) / statistics.median(speeds["transformers"])
    print(f"evaluation: {share:.2f} of the bare loop, best rounds (bar 0.80)")
    print(f"throughput: {times:.1f} times the transformers server, medians (bar 4)")
    return 0 if share >= 0.8 and times >= 4 else 1


if __name__ == "__main__":
    sys.exit(main())
