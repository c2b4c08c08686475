"""A server's settings and its key, which goes nowhere else."""

import json
import logging

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.llm import Server, server_from
from tests.data_pipeline.llm.conftest import KEY, query
from tests.model_server import Answer, ModelServer, completion


def test_an_unset_key_is_named_before_anything_is_asked(ask, monkeypatch):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(BadInput, match="NOT_SET_HERE is not set: put the key of https://api.invalid/v1"):
        ask("https://api.invalid/v1", "a", api_key_env="NOT_SET_HERE")
    with ModelServer() as server:  # this machine's own server may do without
        assert ask(server, "a", api_key_env="NOT_SET_HERE")[0].finish == "stop"


def test_a_key_goes_only_where_its_variable_is_named(ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ModelServer() as server:
        ask(server, "a")
        ask(server, "b", api_key_env="OPENAI_API_KEY")
    assert KEY not in str(server.calls[0])
    assert server.calls[1].headers["Authorization"] == f"Bearer {KEY}"


def test_the_key_never_leaks(ask, ledger, monkeypatch, caplog, capfd):
    monkeypatch.setenv("TEST_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    parrot = completion(f"you sent {KEY}", reasoning=f"a key: {KEY}")
    plan = {
        "echo": [Answer(status=500, echo=True)],
        "refused": [Answer(status=400, echo=True)],
        "no choices": [Answer(echo=True)],
        "cut": [Answer(json.dumps(parrot).encode()[:-3])],
        "parrot": [Answer(parrot)],
    }
    with ModelServer(plan=plan) as server:
        settings = {"api_key_env": "TEST_KEY", "attempts": 1}
        replies = ask(server, *plan, **settings)
        assert server.calls[0].headers["Authorization"] == f"Bearer {KEY}"
    assert all("***" in reply.error + reply.text for reply in replies)
    if isinstance(ledger, str):
        files = str(query(ledger, "SELECT * FROM calls")).encode()
    else:
        files = b"".join(file.read_bytes() for file in ledger.parent.iterdir())
    assert b"you sent ***" in files
    output = "".join(capfd.readouterr())
    for told in (str(replies), files.decode("latin-1"), caplog.text, output, repr(Server(server.url, "t", "TEST_KEY"))):
        assert KEY not in told


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base_ulr": "x"}, r"recipe llm: unknown setting base_ulr; known are base_url, model"),
        ({"api_key": KEY}, "unknown setting api_key; known are"),
        ({"model": None}, "recipe llm: model missing"),
        ({"base_url": "127.0.0.1:8000"}, "base_url: '127.0.0.1:8000' is not an address"),
        ({"base_url": "http://h:port/v1"}, "is not an address"),
        ({"base_url": f"https://user:{KEY}@h/v1"}, "base_url: credentials"),
        ({"base_url": f"https://h/v1?key={KEY}"}, "base_url: credentials or a query"),
        ({"api_key_env": KEY}, "api_key_env: not the name of an environment variable"),
        ({"concurrency": 0}, r"recipe llm\.concurrency=0: Input should be greater than or equal to 1"),
        ({"concurrency": "8"}, r"llm\.concurrency='8': Input should be a valid integer"),
        ({"concurrency": 1001}, r"llm\.concurrency=1001: Input should be less than or equal to 1000"),
        ({"attempts": True}, r"llm\.attempts=True: Input should be a valid integer"),
        ({"timeout_s": None}, r"llm\.timeout_s=None: Input should be a valid number"),
        ({"timeout_s": float("inf")}, "Input should be a finite number"),
        ({"requests_per_minute": -1}, r"llm\.requests_per_minute=-1: Input should be greater"),
        ({"input_price": 1}, "only one is set"),
        ({"json_schema": "yes"}, r"llm\.json_schema='yes': Input should be a valid boolean"),
        ({"extra_body": "top_k"}, r"llm\.extra_body='top_k': Input should be a valid dictionary"),
    ],
)
def test_a_wrong_setting_is_refused(change, expected):
    with pytest.raises(BadInput, match=expected) as error:
        server_from({"base_url": "http://127.0.0.1:8000/v1", "model": "tiny"} | change, "recipe llm")
    assert KEY not in str(error.value)
