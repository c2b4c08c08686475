"""Decoding is what was asked, also of a model whose generation_config.json says otherwise (Qwen2.5's values)."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from launch.models import local, openai_api
from launch.models.reasoning import Sampling
from tests.launch import tiny_model

TALK = [[{"role": "user", "content": "下列哪一项是正强化的例子？"}], [{"role": "user", "content": "情绪"}]]
TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tiny_model.make_as_large(tmp_path_factory.mktemp("model"))
    said = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert said["do_sample"] and said["repetition_penalty"] == 1.05
    return folder


@pytest.fixture(scope="module")
def loaded(model) -> local.Loaded:
    return local.load(str(model), "model")


@pytest.fixture(scope="module")
def greedy(loaded) -> list[str]:
    """The most probable tokens, computed without `generate`."""
    import torch

    texts = []
    for messages in TALK:
        ids = loaded.tokenizer(local.prompt(loaded, messages, {}), add_special_tokens=False)["input_ids"]
        start = len(ids)
        while len(ids) < start + TOKENS and (len(ids) == start or ids[-1] not in loaded.ends):
            with torch.inference_mode():
                ids.append(int(loaded.network(torch.tensor([ids])).logits[0, -1].argmax()))
        answer = [token for token in ids[start:] if token not in loaded.ends]
        texts.append(loaded.tokenizer.decode(answer, skip_special_tokens=True))
    return texts


def answers(loaded: local.Loaded, sampling: Sampling, seed: int, batch: int = 1) -> list[str]:
    return [of_one[0].text for of_one in local.generate(loaded, TALK, 1, sampling, batch, seed)]


def test_temperature_0_is_greedy_whatever_the_model_folder_says(loaded, greedy):
    for seed in (1, 2):
        assert answers(loaded, Sampling(TOKENS, 0.0), seed) == greedy


def test_what_is_asked_counts_and_what_the_folder_says_does_not(loaded, greedy):
    drawn = [answers(loaded, Sampling(TOKENS, 1.0, 1.0, 0, 1.0), seed) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    assert answers(loaded, Sampling(TOKENS, 1.0, 1.0, 1, 1.0), 3) == greedy  # of one token
    assert answers(loaded, Sampling(TOKENS, 0.0, 1.0, 0, 5.0), 1) != greedy
    assert answers(loaded, Sampling(TOKENS, 1.0, 1.0), 1) == drawn[0]  # what is not said is the whole distribution


def test_a_stream_and_the_server_decode_as_asked(loaded, greedy):
    client = TestClient(openai_api.app(loaded, "tiny"))

    def asked(**params: Any) -> str:
        body = {"model": "tiny", "messages": TALK[0], "max_tokens": TOKENS, **params}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    for seed in (1, 2):
        assert asked(temperature=0, seed=seed) == greedy[0]
        assert asked(temperature=1, top_k=1, seed=seed) == greedy[0]
    assert asked(temperature=1, seed=1) != asked(temperature=1, seed=2)
    assert asked(temperature=1, seed=1, top_k=-1) == asked(temperature=1, seed=1)
    assert asked(temperature=0, repetition_penalty=5.0) != greedy[0]


def test_a_server_is_sent_every_setting_and_none_that_is_null():
    whole = Sampling(10, 0.5, 0.9, 20, 1.05).params()
    assert whole == {"max_tokens": 10, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05}
    none = Sampling(10, 0.5, 0.9).params()
    assert none["top_k"] is None and none["repetition_penalty"] is None


def test_the_rollout_on_a_cpu_validates_greedily(model, loaded, greedy):
    from types import SimpleNamespace

    from launch.cpu import rollout

    server: Any = object.__new__(rollout.HFServer.__ray_metadata__.modified_class)  # pyright: ignore[reportAttributeAccessIssue]
    config = SimpleNamespace(prompt_length=256, response_length=TOKENS, seed=1, max_num_seqs=4)
    server.__init__(config, SimpleNamespace(path=str(model)), 0)
    prompt = loaded.tokenizer(local.prompt(loaded, TALK[0], {}), add_special_tokens=False)["input_ids"]
    for _ in range(2):
        (output,) = server._generate([prompt], {"temperature": 0, "top_p": 1.0, "top_k": -1, "logprobs": True})
        answer = [token for token in output.token_ids if token not in loaded.ends]
        assert loaded.tokenizer.decode(answer, skip_special_tokens=True) == greedy[0]
