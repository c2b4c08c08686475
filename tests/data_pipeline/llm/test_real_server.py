"""The client against a real model behind a real server: the demo's tiny model, served by `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.llm.structured import Failure
from data_pipeline.records import Request, read_jsonl
from tests.data_pipeline.scripted import ask_all_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_server(tmp_path_factory):
    """Gives (address, model) of a random model of the demo's shape that is served on this machine."""
    from launch.models import tiny

    folder = tmp_path_factory.mktemp("served")
    model, log = folder / "model", folder / "serve.log"
    shape: Any = OmegaConf.to_container(OmegaConf.load("recipes/demo/sft.yaml").psyforge.random_model)
    texts = [row["stem"] for _, row in read_jsonl(Path("data_pipeline/samples/questions.jsonl"))]
    tiny.make(model, texts, 42, shape)
    sampling = model / "generation_config.json"  # as real models bring it: greedy, random weights repeat one token
    sampling.write_text(json.dumps(json.loads(sampling.read_text()) | {"do_sample": True}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--default-seed", "42"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1", str(model)
        finally:
            process.kill()


class Verdict(BaseModel, extra="forbid"):
    keep: bool


def test_a_real_model_answers_and_is_not_asked_twice(model_server, tmp_path):
    url, model = model_server
    ledger = tmp_path / "ledger.sqlite"
    ask = llm.asker(Server(url, model, concurrency=4, timeout_s=120), ledger, "real")
    texts = [f"我最近睡不着（{n}）" for n in range(8)]
    params = {"max_tokens": 24, "temperature": 1.0}
    requests = [Request("greet", text, 0, [{"role": "user", "content": text}], params) for text in texts]
    replies = ask(requests)
    assert all(reply.finish in ("stop", "length") for reply in replies), replies
    assert any(reply.text.strip() for reply in replies), replies
    assert all(0 < reply.tokens <= 24 and reply.prompt_tokens > 5 for reply in replies)
    nowhere = llm.asker(Server("http://127.0.0.1:9/v1", model), ledger, "again")
    assert nowhere(requests) == replies
    (total,) = llm.totals(ledger)
    assert (total["calls"], total["completion_tokens"]) == (8, sum(reply.tokens for reply in replies))

    results, counts = ask_all_json(ask, requests[:2], Verdict)  # random weights write no JSON: told, not guessed
    assert all(isinstance(result, Failure) and "not JSON" in result.reason for result in results)
    assert counts["failed"] == counts["invalid"] == 2
