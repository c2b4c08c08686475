"""One ledger for killed batches, several processes, and the tasks of one loop."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.llm.ledger import Ledger
from data_pipeline.records import Response
from tests.conftest import REPOSITORY
from tests.data_pipeline.llm.conftest import locked, query, requests, rows
from tests.model_server import Answer, ModelServer


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(sqlite_ledger):
    ledger = sqlite_ledger
    ledger.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(BadInput, match=r"the test: ledger .*ledger.sqlite: file is not a database; move"):
        llm.run_all(Server("http://127.0.0.1:9/v1", "tiny"), requests("a"), ledger, "the test")
    ledger.unlink()
    with sqlite3.connect(ledger) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    with pytest.raises(BadInput, match="not a ledger of version 3"):
        llm.totals(ledger)
    with pytest.raises(BadInput, match="unable to open"):
        llm.totals(ledger.parent)


BATCH = """
import sys
from pathlib import Path
from data_pipeline import llm

url, ledger, first, last = sys.argv[1:]
ledger = ledger if "://" in ledger else Path(ledger)
texts = [f"row {number}" for number in range(int(first), int(last))]
requests = [llm.Request("step", text, 0, [{"role": "user", "content": text}]) for text in texts]
server = llm.Server(url, "tiny", concurrency=8)
llm.run_all(server, requests, ledger, "batch", lambda request, *_: print(request.row, flush=True))
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
            assert process.stdout
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
            assert other.stdout
            other.stdout.readline()  # it has begun
            ask(server, *rows(300)[100:], concurrency=8)
            _, errors = other.communicate(timeout=60)
        assert other.returncode == 0, errors
        asked = len(server.calls)
        ask(server, *rows(300))
        assert len(server.calls) == asked
    assert query(ledger, "SELECT COUNT(DISTINCT key), COUNT(*) FROM calls") == [(300, 300)]
    assert query(ledger, "SELECT COUNT(*) FROM leases") == [(0,)]
    if not isinstance(ledger, str):
        assert query(ledger, "PRAGMA integrity_check") == [("ok",)]
        assert query(ledger, "PRAGMA journal_mode") == [("wal",)]


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
            first, second = asyncio.ensure_future(ask(request)), asyncio.ensure_future(ask(request))
            await asyncio.sleep(0.1)
            first.cancel()
            return await second

    with ModelServer(latency=0.3) as server:
        assert asyncio.run(run(server.url)).text == "reply to a" and len(server.calls) == 1


def test_a_ledger_that_another_process_holds_does_not_hold_up_the_event_loop(ledger):
    async def run(url: str) -> Response:
        async with llm.connected(Server(url, "tiny"), ledger) as ask:
            with locked(ledger):
                task = asyncio.ensure_future(ask(*requests("a")))
                for _ in range(20):  # a loop that is held up would come back when the ledger gives up, and fail there
                    await asyncio.sleep(0.02)
                assert not task.done()
            return await task

    with ModelServer() as server:
        assert asyncio.run(run(server.url)).text == "reply to a"


def test_a_ledger_of_the_version_before_is_taken_on(sqlite_ledger):
    ledger = sqlite_ledger

    def ask(url: str, *texts: str) -> None:
        llm.run_all(Server(url, "tiny"), requests(*texts), ledger, "the test")

    with ModelServer() as server:
        ask(server.url, "a")
        with sqlite3.connect(ledger) as db:
            db.execute("ALTER TABLE calls DROP COLUMN served")
            db.execute("PRAGMA user_version = 1")
        db.close()
        ask(server.url, "a", "b")
        assert server.counts() == {"a": 1, "b": 1}
    with Ledger(ledger) as opened:
        assert [call.row for call in opened.calls("step", "a", 0)] == ["a"] and opened.served("tiny") == ["tiny"]
