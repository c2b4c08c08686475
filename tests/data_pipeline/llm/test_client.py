"""The client of model servers and its ledger, against a real HTTP server with planned faults."""

import asyncio
import json
import logging
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server, server_from
from data_pipeline.llm.ledger import Ledger
from data_pipeline.records import Request, Response
from tests.conftest import REPOSITORY
from tests.model_server import Answer, ModelServer, completion

KEY = "sk-test-5e0c9a7d41"
OK = Answer()


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


# What a server may do wrong, and what the error of a request says that meets it at every attempt.
FAULTS = {
    "500": (Answer(b"boom", status=500), "HTTP 500: boom"),
    "429": (Answer({"error": {"message": "slow down"}}, status=429), "HTTP 429: .*slow down"),
    "empty body": (Answer(b""), "empty body"),
    "no choices": (Answer({"object": "chat.completion", "choices": []}), "no choices"),
    "an error with status 200": (Answer({"error": {"message": "overloaded"}}), "no choices: .*overloaded"),
    "no object": (Answer(b'["a list"]'), "no choices"),
    "odd choices": (Answer({"choices": ["text"], "usage": [1]}), "empty content, finish unknown"),
    "odd counts": (Answer(completion("", usage=(-1, 10**30))), "empty content"),
    "empty content": (Answer(completion("")), "empty content, finish stop"),
    "blank content": (Answer(completion(" \n")), "empty content, finish stop"),
    "null content": (Answer(completion(None)), "empty content, finish stop"),
    "broken off": (Answer(completion("Half a", "insufficient_system_resource")), "broken off by the server"),
    "cut JSON": (Answer(json.dumps(completion("whole")).encode()[:70]), "broken JSON, 70 characters"),
    "a web page": (Answer(b"<html>gateway</html>"), "broken JSON, .*gateway"),
    "dropped at once": (Answer(b"", drop=True), "connection lost"),
    "dropped half way": (Answer(drop=True), "connection lost"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """One batch that meets every fault once and always: (responses by text, server, ledger)."""
    plan = {f"once {name}": [answer, OK] for name, (answer, _) in FAULTS.items()}
    plan |= {f"always {name}": [answer] for name, (answer, _) in FAULTS.items()}
    path = tmp_path_factory.mktemp("faulty") / "ledger.sqlite"
    with ModelServer(plan=dict(plan)) as server:
        settings = Server(server.url, "tiny", attempts=2, concurrency=64)
        replies = llm.run_all(settings, requests(*plan, "fine"), path, "faults")
        yield dict(zip([*plan, "fine"], replies, strict=True)), server, path


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_is_asked_again(faulty, name):
    replies, server, _ = faulty
    assert replies[f"once {name}"] == Response(f"reply to once {name}", "stop", 5, prompt_tokens=10)
    assert server.counts()[f"once {name}"] == 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_a_counted_failure(faulty, name):
    replies, server, _ = faulty
    reply = replies[f"always {name}"]
    assert (reply.finish, reply.text) == ("failed", "")
    assert re.search(FAULTS[name][1], reply.error), reply.error
    assert server.counts()[f"always {name}"] == 2


def test_faults_do_not_touch_the_other_requests_and_are_in_the_ledger(faulty):
    replies, _, path = faulty
    assert replies["fine"].text == "reply to fine"
    (total,) = llm.totals(path)
    assert (total["calls"], total["failures"]) == (len(FAULTS) + 1, len(FAULTS))


def test_no_answer_in_time_is_retried_then_counted(ask):
    with ModelServer(plan={"once": [Answer(wait=9), OK], "always": [Answer(wait=9)]}) as server:
        once, always = ask(server, "once", "always", timeout_s=0.3, attempts=2)
    assert once.text == "reply to once"
    assert (always.finish, always.error) == ("failed", "no answer within 0.3 s")


def test_responses_come_in_the_order_of_the_requests(ask):
    plan = {text: [Answer(wait=0.2 - number / 50)] for number, text in enumerate(rows(10))}
    seen = []
    with ModelServer(plan=plan) as server:
        replies = ask(server, *rows(10), on_reply=lambda request, reply, cost: seen.append(request.row))
    assert [reply.text for reply in replies] == [f"reply to {text}" for text in rows(10)]
    assert sorted(seen) == sorted(rows(10)) and seen != rows(10)


def test_concurrency_is_reached_and_never_exceeded(ask):
    with ModelServer(latency=0.05) as server:
        ask(server, *rows(60), concurrency=7)
        assert server.most_in_flight == 7


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_by_all(ask, form):
    after = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    busy = Answer({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": after})
    started = time.time()
    with ModelServer(latency=0.02, plan={"row 0": [busy, OK]}) as server:
        assert all(reply.finish == "stop" for reply in ask(server, *rows(12), concurrency=2))
    times = [call.at for call in server.calls]
    first, second = (call.at for call in server.calls if call.text == "row 0")
    if form == "seconds":
        assert second - first >= 1
    else:
        assert time.time() - started >= 1  # a date has whole seconds
    assert not [at for at in times if first + 0.5 < at < second - 0.1]


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(ask):
    daily = Answer(b"quota", status=429, headers={"Retry-After": "36000"})
    with ModelServer(plan={"row 0": [daily]}) as server:
        (reply,) = ask(server, "row 0")
    assert reply.finish == "failed" and "36000 s" in reply.error and len(server.calls) == 1


def test_limits_per_minute_hold_from_the_first_second(ask):
    with ModelServer() as server:
        ask(server, *rows(10), requests_per_minute=1200)
        assert server.calls[-1].at - server.calls[0].at >= 0.4  # 9 gaps of 50 ms
        ask(server, "a", "b", "c", "d", tokens_per_minute=12000, params={"max_tokens": 25})
        assert server.calls[-1].at - server.calls[-4].at >= 0.3  # 3 gaps of 125 ms or more


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_or_model_stops_the_batch_with_the_cure(ask, monkeypatch, status):
    monkeypatch.setenv("TEST_KEY", KEY)
    plan = {text: [Answer(status=status, echo=True)] for text in rows(500)}
    with ModelServer(latency=0.01, plan=plan) as server, pytest.raises(BadInput) as error:
        ask(server, *rows(500), api_key_env="TEST_KEY", concurrency=4)
    for part in ("the test: ", server.url, "'tiny'", "TEST_KEY", f"HTTP {status}", "***"):
        assert part in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.calls) < 20


def test_an_account_without_money_stops_the_batch(ask):
    broke = Answer({"error": {"message": "pay first", "code": "insufficient_quota"}}, status=429)
    with ModelServer(plan={"row 0": [broke]}) as server, pytest.raises(BadInput, match="pay first"):
        ask(server, "row 0")


def test_a_bad_request_fails_alone_and_is_not_repeated(ask):
    with ModelServer(plan={"row 1": [Answer(b"prompt too long", status=400)]}) as server:
        good, bad = ask(server, "row 0", "row 1")
    assert good.finish == "stop"
    assert (bad.finish, bad.error) == ("failed", "HTTP 400: prompt too long")
    assert server.counts()["row 1"] == 1


def test_a_server_that_refuses_every_request_is_an_error(ask):
    plan = {text: [Answer(b"no such parameter: tempreature", status=400)] for text in rows(3)}
    with ModelServer(plan=plan) as server, pytest.raises(BadInput, match="refuses every request .*tempreature"):
        ask(server, *rows(3))


def test_an_address_without_a_server_is_an_error(ask):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BadInput, match=f"no server at http://127.0.0.1:{port}/v1.*start the server"):
        ask(f"http://127.0.0.1:{port}/v1", "row 0", attempts=1)


def test_filtered_content_fails_without_another_try(ask):
    with ModelServer(plan={"a": [Answer(completion("", "content_filter"))]}) as server:
        (reply,) = ask(server, "a")
    assert reply.finish == "failed" and "content_filter" in reply.error and len(server.calls) == 1


def test_the_thought_stays_apart_and_a_cut_one_is_a_result(ask):
    plan = {
        "vllm": [Answer(completion("the answer", reasoning="hm"))],
        "deepseek": [Answer(completion("the answer", reasoning_content="hm"))],
        "cut": [Answer(completion("", "length", reasoning="hm, hm"))],
    }
    with ModelServer(plan=plan) as server:
        replies = ask(server, *plan)
        assert ask(server, *plan) == replies and len(server.calls) == 3
    assert replies[0] == replies[1] == Response("the answer", "stop", 5, "hm", 10)
    assert replies[2] == Response("", "length", 5, "hm, hm", 10)


def test_parameters_and_extra_body_are_sent_as_they_are(ask):
    params = {"temperature": 0.5, "top_k": 20, "top_p": None, "response_format": {"type": "json_object"}}
    with ModelServer() as server:
        ask(server, "a", params=params, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    sent = server.calls[0].body
    assert {key: sent[key] for key in sent if key not in ("model", "messages")} == {
        "temperature": 0.5,
        "top_k": 20,
        "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    with pytest.raises(BadInput, match="n, stream: not a parameter"):
        ask(server, "a", params={"n": 2, "stream": True})


def test_the_ledger_answers_without_a_server_a_key_or_openai(ask):
    with ModelServer() as server:
        replies = ask(server, *rows(5))
    assert ask("https://moved.invalid/v1", *rows(5), api_key_env="NOT_SET_HERE") == replies


def test_what_was_asked_decides_what_is_replayed(ask, ledger):
    with ModelServer() as server:
        ask(server, "a", params={"temperature": 0.5})
        for change in ({"params": {"temperature": 0.6}}, {"model": "other"}, {"extra_body": {"top_k": 1}}):
            ask(server, "a", **{"params": {"temperature": 0.5}} | change)
        assert len(server.calls) == 4
        talk, params = [{"role": "user", "content": "a"}], {"temperature": 0.5}
        again = [Request("another step", "another row", sample, talk, params) for sample in (0, 1)]
        llm.run_all(Server(server.url, "tiny"), again, ledger, "again")
        assert len(server.calls) == 5  # sample 0 is known


def test_equal_requests_of_a_batch_are_asked_once(ask):
    costs = []
    with ModelServer() as server:
        replies = ask(server, "a", "b", "a", input_price=1, output_price=1, on_reply=lambda *got: costs.append(got[2]))
    assert server.counts() == {"a": 1, "b": 1} and replies[0] == replies[2]
    assert sum(cost is not None for cost in costs) == 2


def test_a_failure_is_asked_again_by_the_next_run(ask, ledger):
    with ModelServer(plan={"a": [Answer(b"", status=503), OK]}) as server:
        assert ask(server, "a", attempts=1)[0].finish == "failed"
        assert ask(server, "a", attempts=1)[0].finish == "stop"
    (total,) = llm.totals(ledger)
    assert (total["calls"], total["failures"]) == (1, 1)


def test_totals_count_calls_tokens_and_cost_by_step_and_model(ledger):
    plan = {"b": [Answer(completion("", usage=(10, 0))), Answer(completion("yes", usage=(10, 20)))]}
    assert llm.totals(ledger) == []
    with ModelServer(plan=plan) as server:
        priced = Server(server.url, "tiny", input_price=1.0, output_price=10.0)
        llm.run_all(priced, requests("a", "b", step="first"), ledger, "first")
        llm.run_all(Server(server.url, "free"), requests("c", step="second"), ledger, "second")
    first, second = llm.totals(ledger)
    assert first == {
        "step": "first",
        "model": "tiny",
        "calls": 2,
        "failures": 0,
        "prompt_tokens": 20,
        "completion_tokens": 25,
        "cost": pytest.approx((10 + 50 + 10 + 10 + 200) / 1e6),  # the empty answer was paid for as well
    }
    assert (second["step"], second["model"], second["cost"]) == ("second", "free", None)


# A request of these tests: about 12 tokens of prompt (guessed), 5 of the reply; paid are 10 and 5.
PRICES = {"input_price": 1e6, "output_price": 1e6}  # a token costs 1


def test_a_budget_stops_before_the_request_that_would_exceed_it_and_a_larger_one_goes_on(ask, ledger):
    with ModelServer(latency=0.01) as server:
        settings = {**PRICES, "concurrency": 4, "params": {"max_tokens": 20}}
        with pytest.raises(llm.BudgetSpent) as stop:
            ask(server, *rows(20), **settings, budget=100)
        spent = llm.totals(ledger)[0]["cost"]
        assert len(server.calls) == spent / 15  # what was in flight has finished and is in the ledger
        assert 60 < spent <= 100  # one more, of 12 + 20 tokens, would not have fitted
        left = 20 - len(server.calls)
        assert f"the test: the budget of 100 is spent ({spent:.4f} in {ledger}): {left} of 20 requests are" in str(
            stop.value
        )
        with pytest.raises(llm.BudgetSpent):  # it holds over runs, not per run
            ask(server, *rows(20), **settings, budget=spent)
        assert len(server.calls) == spent / 15
        replies = ask(server, *rows(20), **settings, budget=1000)
    assert [reply.text for reply in replies] == [f"reply to {row}" for row in rows(20)]
    assert set(server.counts().values()) == {1}


def test_a_budget_counts_what_is_in_flight(ask, ledger):
    with ModelServer(latency=0.2) as server, pytest.raises(llm.BudgetSpent):
        ask(server, *rows(50), **PRICES, params={"max_tokens": 20}, budget=100)
    assert server.most_in_flight <= 100 // 32 and llm.totals(ledger)[0]["cost"] <= 100


def test_a_budget_of_0_asks_nothing_but_replays(ask):
    with ModelServer() as server:
        for prices in ({}, PRICES, {"input_price": 0, "output_price": 0}):
            with pytest.raises(llm.BudgetSpent, match="the test: the budget is 0: 2 of 2 requests are not asked"):
                ask(server, "a", "b", **prices, budget=0)
        assert not server.calls
        replies = ask(server, "a")
        assert ask(server, "a", budget=0) == replies and len(server.calls) == 1
        with pytest.raises(llm.BudgetSpent, match="1 of 2 requests"):
            ask(server, "a", "b", budget=0)


def test_free_calls_never_spend_a_budget(ask):
    with ModelServer() as server:
        assert len(ask(server, *rows(5), input_price=0, output_price=0, budget=0.01)) == 5


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf"), True, "10"])
def test_a_wrong_budget_is_refused(ask, budget):
    with pytest.raises(BadInput, match="the test: budget: .* is not a sum of money"):
        ask("http://127.0.0.1:9/v1", "a", **PRICES, budget=budget)


def test_a_budget_needs_prices(ask):
    with pytest.raises(BadInput, match="budget=10 needs prices: set input_price and output_price of 'tiny'"):
        ask("http://127.0.0.1:9/v1", "a", budget=10)


def test_an_estimate_counts_what_the_ledger_does_not_have_and_asks_nothing(ask, ledger):
    wanted = requests(*rows(10), "row 1", max_tokens=20)
    nowhere = Server("http://127.0.0.1:9/v1", "tiny", api_key_env="NOT_SET", **PRICES)
    estimate = llm.estimate(nowhere, wanted, ledger)
    assert (estimate.calls, estimate.tokens) == (10, 200)  # equal requests are one call
    assert estimate.cost == estimate.prompt_tokens + 200 and 50 < estimate.prompt_tokens < 200
    assert not ledger.exists()
    with ModelServer(plan={"row 0": [Answer(b"", status=400)]}) as server:
        ask(server, *rows(4), params={"max_tokens": 20})
    assert llm.estimate(nowhere, wanted, ledger).calls == 7  # the failed one is asked again
    free = llm.estimate(Server(nowhere.base_url, "tiny"), requests("new"), ledger)
    assert (free.calls, free.tokens, free.cost) == (1, 0, None)


def test_asker_is_the_callable_of_a_step(ledger):
    with ModelServer() as server:
        ask = llm.asker(Server(server.url, "tiny", **PRICES), ledger, "the step", budget=20)
        assert ask(requests("a"))[0].text == "reply to a"
        with pytest.raises(llm.BudgetSpent, match="^the step: "):
            ask(requests("b", max_tokens=20))


def test_generate_gives_samples_per_conversation_with_seeds_of_their_own(ledger):
    talks = [[{"role": "user", "content": text}] for text in ("a", "b")]
    settings = {"step": "rollout", "rows": ["a", "b"], "ledger_path": ledger}
    with ModelServer() as server:
        tiny = Server(server.url, "tiny", concurrency=1)
        replies = llm.generate(tiny, talks, 3, **settings, temperature=0.7, seed=7)
        assert [[reply.text for reply in group] for group in replies] == [[f"reply to {t}"] * 3 for t in ("a", "b")]
        assert [call.body["seed"] for call in server.calls] == [7, 8, 9] * 2
        llm.generate(tiny, talks, 2, **settings, temperature=0, seed=7)
        assert [call.body["seed"] for call in server.calls[6:]] == [7] * 4


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
    files = b"".join(file.read_bytes() for file in ledger.parent.iterdir())
    assert b"you sent ***" in files
    output = "".join(capfd.readouterr())
    for told in (str(replies), files.decode("latin-1"), caplog.text, output, repr(Server(server.url, "t", "TEST_KEY"))):
        assert KEY not in told


def test_strange_unicode_is_kept_and_half_a_character_is_a_failure(ask, ledger):
    strange = "a\x00b\u2028𝒳😀👨‍👩‍👧\ufeff ﷽"
    halves = json.dumps(completion("pair \ud83d\ude00 half \ud83d end", reasoning="\udc00")).encode()
    with ModelServer(plan={strange: [Answer(completion(strange))], "halves": [Answer(halves)]}) as server:
        replies = ask(server, strange, "half \ud83d", "halves")
        assert ask(server, strange, "halves") == [replies[0], replies[2]]
    assert replies[0].text == strange
    assert replies[1].finish == "failed" and "lone surrogate" in replies[1].error
    assert (replies[2].text, replies[2].reasoning) == ("pair 😀 half \ufffd end", "\ufffd")
    assert len(server.calls) == 2 and llm.totals(ledger)[0]["failures"] == 1


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(ask, ledger):
    ledger.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(BadInput, match=r"the test: ledger .*ledger.sqlite: file is not a database; move"):
        ask("http://127.0.0.1:9/v1", "a")
    ledger.unlink()
    with sqlite3.connect(ledger) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    with pytest.raises(BadInput, match="not a ledger of version 1"):
        llm.totals(ledger)
    with pytest.raises(BadInput, match="unable to open"):
        llm.totals(ledger.parent)


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
        ({"concurrency": 0}, "concurrency: 0 is not a whole number from 1 to 1000"),
        ({"concurrency": "8"}, "concurrency: '8' is not"),
        ({"attempts": True}, "attempts: True is not"),
        ({"timeout_s": None}, "timeout_s: None is not a number"),
        ({"requests_per_minute": -1}, "requests_per_minute: -1 is not"),
        ({"input_price": 1}, "only one is set"),
        ({"json_schema": "yes"}, "json_schema: 'yes' is not true or false"),
        ({"extra_body": "top_k"}, "extra_body: 'top_k' is not a mapping"),
    ],
)
def test_a_wrong_setting_is_refused(change, expected):
    with pytest.raises(BadInput, match=expected) as error:
        server_from({"base_url": "http://127.0.0.1:8000/v1", "model": "tiny"} | change, "recipe llm")
    assert KEY not in str(error.value)


BATCH = """
import sys
from pathlib import Path
from data_pipeline import llm

url, ledger, first, last = sys.argv[1:]
texts = [f"row {number}" for number in range(int(first), int(last))]
requests = [llm.Request("step", text, 0, [{"role": "user", "content": text}]) for text in texts]
server = llm.Server(url, "tiny", concurrency=8)
llm.run_all(server, requests, Path(ledger), "batch", lambda request, *_: print(request.row, flush=True))
"""


def batch(url: str, ledger, first: int, last: int) -> subprocess.Popen:
    """Starts a process that asks rows first to last and prints each row that is finished."""
    words = [sys.executable, "-c", BATCH, url, str(ledger), str(first), str(last)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_was_ended_goes_on_without_repeating_what_was_finished(ask, ledger, end):
    with ModelServer(latency=0.02) as server:
        with batch(server.url, ledger, 0, 150) as process:
            told = {process.stdout.readline().strip() for _ in range(50)}
            process.send_signal(end)
            process.communicate()
        assert process.returncode != 0
        time.sleep(0.1)  # for requests that the server still has
        (total,) = llm.totals(ledger)
        kept, before = total["calls"], len(server.calls)
        assert 50 <= kept <= before < 150
        replies = ask(server, *rows(150))
        assert len(server.calls) == before + 150 - kept
        assert all(server.counts()[row] == 1 for row in told)
    assert replies == [Response(f"reply to {row}", "stop", 5, prompt_tokens=10) for row in rows(150)]


def test_processes_share_a_ledger(ask, ledger):
    with ModelServer(latency=0.02) as server:
        with batch(server.url, ledger, 0, 150) as other:
            other.stdout.readline()  # it has begun
            ask(server, *rows(300)[100:], concurrency=8)
            _, errors = other.communicate(timeout=60)
        assert other.returncode == 0, errors
        asked = len(server.calls)
        ask(server, *rows(300))
        assert len(server.calls) == asked
    db = sqlite3.connect(ledger)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT COUNT(DISTINCT key) FROM calls").fetchone() == (300,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_a_ledger_can_be_made_by_many_at_once(ledger):
    def make(_: int) -> None:
        with Ledger(ledger):
            pass

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(make, range(64)))
    assert llm.totals(ledger) == []


def one_by_one(model_server, ledger, *texts: str, **settings) -> list:
    """Asks each text by a task of its own over one connection; returns responses and what was raised."""

    async def run() -> list:
        server = Server(**{"base_url": model_server.url, "model": "tiny"} | settings)
        async with llm.connected(server, ledger) as ask:
            return await asyncio.gather(*(ask(request) for request in requests(*texts)), return_exceptions=True)

    return asyncio.run(run())


def test_tasks_of_one_loop_share_a_connection_its_limits_and_equal_requests(ledger, ask):
    with ModelServer(latency=0.05) as server:
        replies = one_by_one(server, ledger, *rows(20), *rows(20), concurrency=4)
        assert [reply.text for reply in replies] == [f"reply to {text}" for text in rows(20)] * 2
        assert server.most_in_flight == 4 and len(server.calls) == 20
        assert one_by_one(server, ledger, "row 3", "new") == [replies[3], Response("reply to new", "stop", 5, "", 10)]
        assert ask(server, "row 3", "new")[0] == replies[3] and len(server.calls) == 21


def test_a_refused_request_of_a_task_does_not_touch_the_others(ledger, monkeypatch, tmp_path):
    plan = {"unknown": [Answer(b"no such model", status=404)], "bad": [Answer(b"too long", status=400)]}
    with ModelServer(plan=plan, latency=0.02) as server:
        unknown, bad, good = one_by_one(server, ledger, "unknown", "bad", "good")
        assert isinstance(unknown, BadInput) and "no such model" in str(unknown)
        assert (bad.finish, good.finish) == ("failed", "stop")
        with pytest.raises(BadInput, match="unable to open"):
            one_by_one(server, tmp_path, "good")
    (total,) = llm.totals(ledger)
    assert (total["calls"], total["failures"]) == (1, 1)


def test_one_of_two_who_ask_the_same_may_be_cancelled(ledger):
    async def run(url: str) -> Response:
        async with llm.connected(Server(url, "tiny"), ledger) as ask:
            (request,) = requests("a")
            first, second = asyncio.create_task(ask(request)), asyncio.create_task(ask(request))
            await asyncio.sleep(0.1)
            first.cancel()
            return await second

    with ModelServer(latency=0.3) as server:
        assert asyncio.run(run(server.url)).text == "reply to a" and len(server.calls) == 1


def test_a_ledger_that_another_process_holds_does_not_hold_up_the_event_loop(ledger):
    async def run(url: str) -> Response:
        async with llm.connected(Server(url, "tiny"), ledger) as ask:
            other = sqlite3.connect(ledger, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(ask(*requests("a")))
            for _ in range(20):  # a loop that is held up would come back when the ledger gives up, and fail there
                await asyncio.sleep(0.02)
            assert not task.done()
            other.execute("COMMIT")
            other.close()
            return await task

    with ModelServer() as server:
        assert asyncio.run(run(server.url)).text == "reply to a"
