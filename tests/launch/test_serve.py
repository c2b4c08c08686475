"""The server of a model, asked with the official client: chat, streaming, stop words, and what it refuses."""

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import openai
import pytest

from data_pipeline import llm
from data_pipeline.records import Request
from launch.models.openai_gate import QUEUE
from launch.models.tiny import CHAT_TEMPLATE
from tests.conftest import REPOSITORY, launch, refused

HELLO = [{"role": "user", "content": "什么是记忆？"}]


def start(*words: str, **env: str) -> tuple[subprocess.Popen, str]:
    """Returns (the command, which ends with this process, its address) once it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.serve", "port=0", *words],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env},
        preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
    )  # fmt: skip
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if address := re.search(r"at (http://\S+)", line):
            return process, address[1]
    raise AssertionError("".join(said))


@pytest.fixture(scope="module")
def server(tiny):
    """The address of a server of the tiny model, called "tiny"."""
    process, address = start(f"base_model={tiny}", "name=tiny")
    yield address
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def complete(client: Any, **words):
    words = {"model": "tiny", "messages": HELLO, "max_tokens": 40, "seed": 1} | words
    return client.chat.completions.create(**words)


def streamed(client: openai.OpenAI, **words) -> tuple[str, str | None, Any]:
    text, finish, usage = "", None, None
    for chunk in complete(client, stream=True, stream_options={"include_usage": True}, **words):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text, finish = text + (choice.delta.content or ""), choice.finish_reason or finish
    return text, finish, usage


def test_chat_gives_one_answer_or_several_with_counts(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    answer = complete(client)
    assert answer.choices[0].message.content and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (40, 40 + answer.usage.prompt_tokens)
    texts = {choice.message.content for choice in complete(client, n=3, temperature=1.5).choices}
    assert len(texts) == 3
    assert complete(client, max_tokens=None, max_completion_tokens=5).usage.completion_tokens == 5


def test_sampling_is_sampling_and_a_seed_repeats_it(client):
    """`transformers serve` 5.5.4 answers greedily at any temperature unless the model's own settings sample."""
    texts = [
        complete(client, temperature=t, seed=s).choices[0].message.content for t, s in ((0, 1), (1, 1), (1, 1), (1, 2))
    ]
    assert texts[1] == texts[2] and len(set(texts)) == 3


def test_streaming_gives_the_same_text_in_pieces(client):
    whole = complete(client, temperature=0.7).choices[0].message.content
    text, finish, usage = streamed(client, temperature=0.7)
    assert (text, finish, usage.completion_tokens) == (whole, "length", 40)
    pieces = [c for chunk in complete(client, stream=True, temperature=0.7) for c in chunk.choices if c.delta.content]
    assert len(pieces) > 5


def test_stop_words_end_the_answer_before_them(client):
    whole = complete(client, temperature=0.7).choices[0].message.content
    word = next(whole[i : i + 2] for i in range(8, 30) if "�" not in whole[i : i + 2])
    before = whole[: whole.index(word)]
    for stop in (word, ["永不出现", word]):
        answer = complete(client, temperature=0.7, stop=stop).choices[0]
        assert (answer.message.content, answer.finish_reason) == (before, "stop")
        assert streamed(client, temperature=0.7, stop=stop)[:2] == (before, "stop")
    assert complete(client, temperature=0.7, stop="永不出现").choices[0].message.content == whole


def test_what_would_change_the_answer_and_is_not_supported_is_refused_and_not_ignored(client):
    for words, told in (
        ({"model": "other"}, "'tiny' is"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "长" * 3000}]}, "the model takes 1024"),
        ({"temperature": 3}, "temperature"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stream": True, "n": 2}, "only 1 with stream"),
    ):
        with pytest.raises(openai.APIStatusError, match=re.escape(told)) as error:
            complete(client, **words)
        assert error.value.status_code in (400, 404)
    parts = [{"role": "user", "content": [{"type": "text", "text": "什么是"}, {"type": "text", "text": "记忆？"}]}]
    assert complete(client, messages=parts).choices[0].message.content == complete(client).choices[0].message.content


def test_a_client_that_hangs_up_frees_the_server(client):
    begun = time.monotonic()
    complete(client, max_tokens=900)
    whole = time.monotonic() - begun
    for _ in range(5):
        with complete(client, stream=True, max_tokens=900) as chunks:
            next(iter(chunks))
    begun = time.monotonic()
    assert complete(client, max_tokens=1)
    assert time.monotonic() - begun < 2.5 * whole, "five answers to nobody would take five times as long"


def test_the_chat_command_talks_to_it(server):
    done = launch("chat", f"endpoint.base_url={server}", "recipe=demo", "endpoint.timeout_s=30", input="你好\n再见\n")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    done = launch("chat", f"endpoint.base_url={server}", "recipe=demo", "max_new_tokens=5000", input="长" * 3000 + "\n")
    assert done.returncode == 1 and "the model takes 1024" in done.stderr


def test_a_key_is_asked_for_and_the_server_ends_with_its_signal(tiny):
    process, address = start(f"base_model={tiny}", "api_key_env=OUR_KEY", OUR_KEY="geheim")
    try:
        with openai.OpenAI(base_url=address, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                complete(client, model=str(tiny))
        refused(launch("chat", f"endpoint.base_url={address}", "recipe=demo", "once=true", "message=x"), "HTTP 401")
        with openai.OpenAI(base_url=address, api_key="geheim", max_retries=0) as client:
            assert complete(client, model=str(tiny)).choices
        port = address.rsplit(":", 1)[1].split("/")[0]
        refused(launch("serve", f"base_model={tiny}", f"port={port}", "engine=transformers"), f"port={port}: Address")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)
    assert process.stdout and "geheim" not in process.stdout.read()


def test_bad_words_are_refused_before_anything_loads(tiny, tmp_path):
    refused(launch("serve"), "serve what?")
    refused(launch("serve", "run=nobody-ever", "engine=transformers"), "run nobody-ever has no model yet")
    refused(launch("serve", f"base_model={tiny}", "port=99999"), "port=99999")
    refused(launch("serve", f"base_model={tiny}", "host=0.0.0.0"), "opens the model to others")
    refused(
        launch("serve", f"base_model={tiny}", "engine=sglang"),
        "engine='sglang': Input should be 'auto', 'vllm'",
    )
    (tmp_path / "bare").mkdir()
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / "bare" / file.name).symlink_to(file)
    assert (tiny / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    refused(launch("serve", f"base_model={tmp_path / 'bare'}", "engine=transformers"), "no chat template")


def test_more_than_the_queue_holds_are_told_when_to_come_back_and_the_client_comes_back(server, tmp_path):
    async def many(count: int) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server, api_key="none", max_retries=0, timeout=60) as client:
            asked = (complete(client, max_tokens=8, stream=number % 2 == 0) for number in range(count))
            return [one for one in await asyncio.gather(*asked, return_exceptions=True) if isinstance(one, Exception)]

    refusals = asyncio.run(many(QUEUE + 8))
    assert 1 <= len(refusals) <= 8
    for refusal in refusals:
        assert refusal.status_code == 503 and "engine=vllm" in str(refusal)
        assert int(refusal.response.headers["Retry-After"]) >= 1
    requests = [Request("many", str(n), n, HELLO, {"max_tokens": 4, "temperature": 1.0}) for n in range(3 * QUEUE)]
    replies = llm.run_all(llm.Server(server, "tiny", concurrency=2 * QUEUE), requests, tmp_path / "ledger", "many")
    assert {reply.finish for reply in replies} <= {"stop", "length"}


def test_dry_run_prints_the_command_and_keeps_the_key_out_of_it():
    words = ("run=nobody-ever", "engine=vllm", "api_key_env=OUR_KEY", "host=0.0.0.0", "vllm={tensor-parallel-size: 2}")
    done = launch("serve", "dry_run=true", *words, env={**os.environ, "OUR_KEY": "geheim"})
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip().splitlines()[-1]
    assert "serve MODEL --served-model-name nobody-ever --host 0.0.0.0 --port 8000" in line
    assert "--generation-config vllm " in line and "--tensor-parallel-size 2" in line
    done = launch("serve", "dry_run=true", *words[:-1], "vllm={generation-config: auto}")
    assert "--generation-config auto" in done.stdout and "--generation-config vllm" not in done.stdout
    assert "geheim" not in done.stdout and "model unknown" in done.stdout
    done = launch("serve", "--help")
    assert done.returncode == 0 and "crisis gate" in done.stdout and "engine=auto" in done.stdout
