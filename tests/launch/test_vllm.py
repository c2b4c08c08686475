"""vLLM's own server, started as a user starts it, and what this project relies on of it. All but one test are slow.

Skipped where vLLM is not installed: bash launch/install.sh cpu vllm
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.records import Request
from launch.frameworks import vllm
from launch.models import local
from launch.models.reasoning import Sampling
from tests.conftest import REPOSITORY, launch, refused
from tests.data_pipeline.scripted import ask_all_json
from tests.launch import tiny_model

pytestmark = pytest.mark.skipif(not vllm.is_installed(), reason="no vLLM here: bash launch/install.sh cpu vllm")
slow = pytest.mark.slow
HELLO = [{"role": "user", "content": "什么是记忆？"}]
WINDOW = 4096


class Verdict(BaseModel, extra="forbid"):
    answer: Literal["A", "B", "C", "D"]
    rounds: int = Field(ge=1, le=3)


@contextmanager
def served(model: Path, *words: str) -> Iterator[str]:
    """Gives the address of `launch.serve engine=vllm` with the model, called "tiny"."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "launch.serve", f"base_model={model}", "name=tiny", "engine=vllm", f"port={port}"]
    log = model.parent / f"{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *words], cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
        )  # fmt: skip
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return tiny_model.make_as_large(folder, hidden_size=128, max_position_embeddings=WINDOW)


@pytest.fixture(scope="module")
def server(model) -> Iterator[str]:
    with served(model) as address:
        yield address


@pytest.fixture(scope="module")
def thinker(model) -> Iterator[str]:
    with served(model, "vllm={reasoning-parser: qwen3, max-model-len: 1024}") as address:
        yield address


def complete(address: str, **words: Any) -> Any:
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120) as client:
        return client.chat.completions.create(
            **({"model": "tiny", "messages": HELLO, "max_tokens": 24, "seed": 1} | words)
        )


def text(address: str, **words: Any) -> str:
    return complete(address, **words).choices[0].message.content


def asker(address: str, folder: Path, **settings: Any):
    return llm.asker(Server(address, "tiny", concurrency=32, **settings), folder / "ledger.sqlite", "the test")


def test_temperature_0_is_greedy_for_any_seed_and_a_reply_keeps_to_its_schema(server, model, tmp_path):
    """The model's generation_config.json asks for sampling and a penalty, as Qwen2.5's does."""
    here = local.generate(local.load(str(model), "model"), [HELLO], 1, Sampling(24, 0.0), 1, seed=1)[0][0].text
    assert {text(server, temperature=0, seed=seed) for seed in (1, 2)} == {here}
    drawn = [text(server, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    requests = [Request("rate", str(n), 0, HELLO, {"max_tokens": 100, "seed": n}) for n in range(16)]
    verdicts, counts = ask_all_json(asker(server, tmp_path, json_schema=True), requests, Verdict)
    assert counts == {"asked": 16, "invalid": 0, "repaired": 0, "failed": 0}
    assert {verdict.rounds for verdict in verdicts if isinstance(verdict, Verdict)} == {1, 2, 3}


@slow
def test_decoding_is_what_was_asked(server):
    greedy = text(server, temperature=0)
    more: Any = {"temperature": 1.0, "extra_body": {"top_k": 1}}
    assert text(server, **more) == greedy
    assert text(server, temperature=0, extra_body={"repetition_penalty": 5.0}) != greedy
    whole = [text(server, temperature=1.0, seed=7, extra_body={"top_k": k}) for k in (0, -1)]
    assert whole[0] == whole[1] == text(server, temperature=1.0, seed=7)


@slow
def test_several_answers_and_stop_words(server):
    choices = complete(server, n=3, temperature=1.0).choices
    assert len({choice.message.content for choice in choices}) == 3
    whole = text(server, temperature=0)
    word = next(whole[i : i + 2] for i in range(4, len(whole)) if "\ufffd" not in whole[i : i + 2])
    stopped = complete(server, temperature=0, stop=["永不出现", word]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole[: whole.index(word)], "stop")


@slow
def test_too_long_a_context_is_told_and_not_asked_again(server, tmp_path):
    long = [{"role": "user", "content": "睡不着" * WINDOW}]
    requests = [
        Request("long", "long", 0, long, {"max_tokens": 8}),
        Request("long", "short", 0, HELLO, {"max_tokens": 8}),
    ]
    refusal, reply = asker(server, tmp_path)(requests)
    assert refusal.finish == "failed" and f"maximum context length is {WINDOW}" in refusal.error
    assert reply.finish in ("stop", "length")
    with llm_calls(tmp_path) as calls:
        assert {row: attempts for row, attempts in calls} == {"long": 1, "short": 1}
    done = launch("chat", f"endpoint.base_url={server}", "recipe=demo", input="长" * 3 * WINDOW + "\n")
    assert done.returncode == 1 and "maximum context length" in done.stderr and "Traceback" not in done.stderr


@contextmanager
def llm_calls(folder: Path) -> Iterator[list[tuple]]:
    import sqlite3

    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        yield ledger.execute("select row, attempts from calls").fetchall()


@slow
def test_long_prompts_with_seeds_at_once_do_not_end_the_engine(server, tmp_path):
    """A prompt in two parts and a seed did, in every version looked at: hence no chunked prefill."""
    asked = [{"role": "user", "content": "睡不着" * 250}]
    requests = [Request("many", str(n), 0, asked, {"max_tokens": 8, "temperature": 1.0, "seed": n}) for n in range(48)]
    assert {reply.finish for reply in asker(server, tmp_path)(requests)} <= {"stop", "length"}


@slow
def test_the_chat_command_talks_to_it(server):
    done = launch("chat", f"endpoint.base_url={server}", "recipe=demo", input="你好\n再见\n")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@slow
def test_a_thought_stands_in_a_field_of_its_own_and_one_without_a_reply_is_an_answer(thinker, tmp_path):
    message = complete(thinker, temperature=0).choices[0].message
    thought = message.reasoning
    assert thought and not message.content
    word = next(thought[i : i + 2] for i in range(4, len(thought)) if "\ufffd" not in thought[i : i + 2])
    ask = asker(thinker, tmp_path)
    cut, stopped = ask([
        Request("think", "cut", 0, HELLO, {"max_tokens": 24, "temperature": 0}),
        Request("think", "stop", 0, HELLO, {"max_tokens": 24, "temperature": 0, "stop": [word]}),
    ])  # fmt: skip
    assert (cut.text, cut.finish, cut.reasoning) == ("", "length", thought)
    assert (stopped.text, stopped.finish, stopped.reasoning) == ("", "stop", thought[: thought.index(word)])
    with llm_calls(tmp_path) as calls:
        assert [attempts for _, attempts in calls] == [1, 1]


@slow
def test_the_schema_holds_after_the_thought(thinker, model, tmp_path):
    ends = local.load_tokenizer(str(model)).convert_tokens_to_ids("</think>")
    params = {"max_tokens": 300, "temperature": 1.0, "logit_bias": {str(ends): 6}}
    requests = [Request("rate", str(n), 0, HELLO, {**params, "seed": n}, Verdict) for n in range(16)]
    ask = asker(thinker, tmp_path, json_schema=True)
    verdicts, counts = ask_all_json(ask, requests, Verdict)
    assert counts["failed"] == 0, verdicts
    assert all(isinstance(verdict, Verdict) and 1 <= verdict.rounds <= 3 for verdict in verdicts)
    assert any(reply.reasoning.strip() for reply in ask(requests))


@slow
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("{max-model-lenght: 5}", "unrecognized arguments: --max-model-lenght 5. Did you mean max-model-len?"),
        ("{max-model-len: many}", "argument --max-model-len"),
    ],
)
def test_flags_that_this_vllm_does_not_know_are_told(model, flags, told):
    refused(launch("serve", f"base_model={model}", "engine=vllm", "port=18765", f"vllm={flags}"), told, "--help=all")
