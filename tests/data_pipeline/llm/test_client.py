"""The client of model servers and its ledger, against a real HTTP server with planned faults."""

import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.llm.ledger import Ledger
from data_pipeline.records import Request, Response
from tests.data_pipeline.llm.conftest import KEY, requests, rows
from tests.model_server import Answer, ModelServer, completion

OK = Answer()
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


def test_a_thought_without_a_reply_and_an_end_as_the_first_token_are_answers(ask):
    """vLLM's reasoning parser gives the first; asked again with the same seed both would come again, for ever."""
    thought: Any = {"reasoning": "想了又想"}
    plan = {
        "thought": [Answer(completion(None, **thought))],
        "cut": [Answer(completion("", "length", **thought))],
        "ended": [Answer(completion("", usage=(10, 1)))],
        "filtered": [Answer(completion("", "content_filter", **thought))],
    }
    with ModelServer(plan=plan) as server:
        *answers, filtered = ask(server, *plan, attempts=3)
        assert set(server.counts().values()) == {1}
    assert [(r.text, r.reasoning, r.finish, r.error) for r in answers] == [
        ("", "想了又想", "stop", ""), ("", "想了又想", "length", ""), ("", "", "stop", "")
    ]  # fmt: skip
    assert (filtered.finish, filtered.reasoning) == ("refused", "想了又想")


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


def test_what_a_servers_filter_holds_back_is_a_refusal_and_never_asked_again(ask):
    """As a failure it would be asked by every run, and a stage with one such item could never end."""
    code = {"error": {"message": "filtered", "code": "content_filter"}}
    plan = {"reply": [Answer(completion("", "content_filter"))], "prompt": [Answer(code, status=400)]}
    with ModelServer(plan=plan) as server:
        for _ in range(2):
            replies = ask(server, *plan)
            assert [reply.finish for reply in replies] == ["refused", "refused"]
            assert not any(reply.passing for reply in replies)
        assert set(server.counts().values()) == {1}


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


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "想"}]}, {"type": "text", "text": "你"}, "好"]


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"content": PARTS}, ("你好", "stop", "想")),
        ({"content": None, "refusal": "I can't help with that."}, ("", "refused", "")),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, ("", "refused", "")),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function"}]}, ("", "tool_calls", "")),
        ({"content": "好", "tool_calls": []}, ("好", "stop", "")),
    ],
)
def test_what_is_no_plain_text_is_an_answer_and_asked_once(message, read, ledger):
    with ModelServer(plan={"said": [Answer(completion(message.pop("content"), **message))]}) as server:
        for _ in range(2):
            (reply,) = llm.run_all(Server(server.url, "tiny", attempts=8), requests("said"), ledger, "parts")
            assert (reply.text, reply.finish, reply.reasoning) == read
        assert server.counts()["said"] == 1


def test_the_model_that_answers_is_recorded_and_a_change_told(ledger, caplog):
    plan = {name: [Answer(completion('"model": "x"') | {"model": name})] for name in ("tiny-0901", "tiny-1001")}
    with ModelServer(plan=plan) as server:
        settings = Server(server.url, "tiny")
        llm.run_all(settings, requests("tiny-0901"), ledger, "first")
        assert not caplog.records
        llm.run_all(settings, requests("tiny-0901", "tiny-1001"), ledger, "again")
    (told,) = caplog.records
    assert "answers as tiny-1001, earlier calls of this run as tiny-0901" in told.getMessage()
    with Ledger(ledger) as opened:
        assert opened.served("tiny") == ["tiny-0901", "tiny-1001"] and opened.served("other") == []
