"""vLLM without a GPU: the evaluation's rate beside a bare loop's, and its throughput beside the transformers server's.

    python -m tests.benchmarks.vllm          # five minutes on two quiet cores, two of them while servers load

Two servers of the demo's tiny model, random weights, 32 requests at once. Evaluation: 256 items of 64 tokens, rates
from the first request to the last score; the bar is 80 % of the bare loop against the same vLLM. Throughput: 64 answers
of 128 tokens; the bar is 4 times the transformers server. Rounds alternate, so that other work on the machine disturbs
both sides, the best ones count, and no round asks what another has asked; one of each before them is not counted, in
which vLLM compiles what these shapes need.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
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

ITEMS, TOKENS, ANSWERS, AT_ONCE, ROUNDS = 256, 64, 64, 32, 3
SETTINGS = settings(
    as_dict(load_config(CONF / "eval.yaml")) | {"run": "benchmark", "max_new_tokens": TOKENS, "sets": {}}
)
GENERATED = {"max_tokens": 128, "temperature": 1.0}


NUMBERS = count()  # of questions: none is asked twice


def items() -> list[Item]:
    options = ["甲", "乙", "丙", "丁"]
    made = [Question(f"q{n}", "table", "", "single", f"第{next(NUMBERS)}题", options, "A") for n in range(ITEMS)]
    return [Item(question, "single") for question in made]


async def bare(url: str) -> None:
    conversations = [question_messages(item.question) for item in items()]
    async with openai.AsyncOpenAI(base_url=url, api_key="-", http_client=openai.DefaultAioHttpClient()) as client:
        left = list(conversations)

        async def work() -> None:
            while left:
                asked: Any = {"model": "tiny", "messages": left.pop(), "max_tokens": TOKENS, "temperature": 0}
                await client.chat.completions.create(**asked)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def ours(url: str) -> None:
    one = EvaluationSet("benchmark", SetSettings(), benchmark_of_files(), Loaded(items(), [], []))
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        generate = from_server(SETTINGS, Server(url, "tiny", concurrency=AT_ONCE), ledger, "benchmark")
        score(SETTINGS, one, "tiny", responses.ask(one, generate), Path(folder), ledger)


def tokens_per_second(url: str) -> float:
    requests = [
        Request("benchmark", str(n), 0, [{"role": "user", "content": f"第{next(NUMBERS)}题"}], {**GENERATED, "seed": n})
        for n in range(ANSWERS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        server = Server(url, "tiny", concurrency=AT_ONCE)
        replies = llm.run_all(server, requests, Path(folder) / "ledger.sqlite", "throughput")
        return sum(reply.tokens for reply in replies) / (time.perf_counter() - begun)


def items_per_second(function, *words: Any) -> float:
    begun = time.perf_counter()
    function(*words)
    return ITEMS / (time.perf_counter() - begun)


@contextlib.contextmanager
def transformers_server(model: Path) -> Iterator[str]:
    words = (f"base_model={model}", "name=tiny", "engine=transformers", "port=0")
    line = [sys.executable, "-m", "launch.serve", *words]
    with subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield next(word for said in process.stdout for word in said.split() if word.startswith("http"))
        finally:
            process.terminate()


def alternate(unit: str, **sides: Any) -> list[float]:
    """Returns each side's best rate of ROUNDS rounds, taken in turn, and prints them all; the first is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + ROUNDS):
        for name, rate in sides.items():
            rates[name].append(rate())
    for name, (_, *values) in rates.items():
        print(f"{name}: {', '.join(f'{value:.1f}' for value in values)} {unit}", flush=True)
    return [max(values) for _, *values in rates.values()]


def main() -> int:
    if not vllm.is_installed():
        raise BadInput("no vLLM here: bash launch/install.sh cpu vllm")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        model = tiny_model.make(Path(folder))
        other = servers.enter_context(transformers_server(model))
        url = servers.enter_context(vllm_server.serving(str(model), "tiny", {}, Path(folder) / "vllm.log"))
        loop, evaluation = alternate(
            "items/s",
            bare=lambda: items_per_second(lambda: asyncio.run(bare(url))),
            ours=lambda: items_per_second(ours, url),
        )
        many, single = alternate(
            "tokens/s", vllm=lambda: tokens_per_second(url), transformers=lambda: tokens_per_second(other)
        )
    share, times = evaluation / loop, many / single
    print(f"evaluation: {share:.2f} of the bare loop (bar 0.80)")
    print(f"throughput: {times:.1f} times the transformers server (bar 4)")
    return 0 if share >= 0.8 and times >= 4 else 1


if __name__ == "__main__":
    sys.exit(main())
