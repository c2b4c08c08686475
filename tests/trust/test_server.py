"""A model's server under attack: nothing that one request asks for is spent, and whoever asks honestly is answered."""

import http.client
import json
import signal
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launch.models.openai_api import RESERVED
from tests.launch.conftest import tiny  # noqa: F401  (a fixture)
from tests.launch.test_serve import start
from tests.trust.attacks import Target, all_of_them

KEY = "geheimer-schluessel"


@pytest.fixture(scope="module")
def served(tiny):  # noqa: F811
    process, address = start(f"base_model={tiny}", "name=tiny", "api_key_env=OUR_KEY", OUR_KEY=KEY)
    target = Target(address, "tiny", KEY)
    target.honest()  # it tells its address a moment before it listens; the client asks again
    yield target, psutil.Process(process.pid)
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def get(target: Target, path: str, key: str | None) -> int:
    connection = http.client.HTTPConnection(*target.place, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    return connection.getresponse().status


def test_the_key_comes_before_the_body_and_before_the_schema(served):
    target, _ = served
    for path in ("/openapi.json", "/v1/models", "/nowhere"):
        assert get(target, path, None) == get(target, path, "wrong") == 401, path
    assert get(target, "/openapi.json", KEY) == get(target, "/v1/models", KEY) == get(target, "/health", None) == 200
    without = Target(target.address, "tiny", "wrong")
    assert without.post(b"no JSON at all")[0] == 401
    assert target.post(b"no JSON at all")[0] == 400


def test_what_is_no_honest_request_is_refused_with_its_reason(served):
    target, _ = served
    for name in sorted(RESERVED):
        status, content = target.ask(chat_template_kwargs={name: "x"})
        assert status == 400 and name.encode() in content, (name, content)
    assert target.ask(chat_template_kwargs={"enable_thinking": False})[0] == 200
    refusals = [{"chat_template_kwargs": {"a": [1]}}, {"stop": ["x"] * 17}, {"repetition_penalty": 1e300}, {"n": 65},
                {"messages": [{"role": "user", "content": "x"}] * 2001}]  # fmt: skip
    for refused in refusals:
        assert target.ask(**refused)[0] == 400, refused
    assert target.ask(temperature=1e-300)[0] == 200
    assert target.post(b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}')[0] == 400
    assert target.post(b'{"model": "tiny", "temperature": NaN}')[0] == 400


def test_what_a_template_takes_for_itself_is_reserved():
    import inspect

    from transformers import PreTrainedTokenizerBase

    taken = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"kwargs"}
    assert taken <= RESERVED


@pytest.mark.slow
def test_attacks_cost_the_server_little_and_honest_clients_nothing(served):
    target, process = served
    before = process.memory_info().rss
    found = all_of_them(target)
    grown = (process.memory_info().rss - before) / 2**20
    for name, (came, took, after) in found.items():
        print(f"{name}: {came} in {took:.1f} s; the next honest answer in {after:.2f} s")
    print(f"memory grew by {grown:.0f} MB; /health took {target.slowest:.3f} s at most; {target.told}")
    assert target.unheard == 0 and grown < 200
    assert found["400 MB"][0] in (0, 413) and "200" not in str(found["400 MB in chunks"][0])
    assert found["10 MB of prompt"][0] == (413, 400) and found["a template"][0] == (400, 400)
    assert found["nested JSON"][0] == (400, 400) and found["half characters"][0] == 400
    assert found["300 half-sent requests"][0] == 300


def values() -> st.SearchStrategy:
    """Whatever JSON may hold, and what is near to what the fields take."""
    plain = st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats(allow_nan=False, allow_infinity=False)
    texts = st.text(max_size=20) | st.sampled_from(["tiny", "user", "assistant", "text", "x" * 300])
    return st.recursive(
        plain | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    )


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_request_that_its_schema_resembles_is_a_fault_of_the_server(served, data):
    target, _ = served
    schema: dict[str, Any] = json.loads(_schema(target))["components"]["schemas"]["Chat"]["properties"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 2}
    for name in data.draw(st.lists(st.sampled_from(sorted(schema)), max_size=4, unique=True)):
        body[name] = data.draw(values(), label=name)
    if isinstance(body.get("max_tokens"), int) or body.get("max_tokens") is None:
        body["max_tokens"] = 2  # else an honest, long answer
    body.pop("max_completion_tokens", None)
    status, content = target.post(json.dumps(body).encode())
    assert status in (200, 400, 404), (status, body, content)


def _schema(target: Target) -> bytes:
    connection = http.client.HTTPConnection(*target.place, timeout=20)
    connection.request("GET", "/openapi.json", headers={"Authorization": f"Bearer {target.key}"})
    return connection.getresponse().read()
