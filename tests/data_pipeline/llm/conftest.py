"""Requests, prices and the fixtures of all tests that ask a server through a ledger."""

from typing import Any

import pytest

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.records import Request, Response

KEY = "sk-test-5e0c9a7d41"
# A request of these tests: about 12 tokens of prompt (guessed), 5 of the reply; paid are 10 and 5.
PRICES: dict[str, Any] = {"input_price": 1e6, "output_price": 1e6}  # a token costs 1


def requests(*texts: str, step: str = "step", **params) -> list[Request]:
    return [Request(step, text, 0, [{"role": "user", "content": text}], params) for text in texts]


def rows(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ask(ledger):
    """Asks a server (or the one of these settings) the texts and returns the responses."""

    def run(model_server, *texts, on_reply=None, params=None, budget=None, **settings) -> list[Response]:
        server = Server(**{"base_url": getattr(model_server, "url", model_server), "model": "tiny"} | settings)
        return llm.run_all(server, requests(*texts, **(params or {})), ledger, "the test", on_reply, budget)

    return run
