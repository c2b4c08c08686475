"""Several clients of one ledger: each call is made once, and a dead client's calls are made by the others."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server, sqlite_store
from data_pipeline.llm import ledger as ledgers
from data_pipeline.llm.ledger import Ledger, claim, place
from data_pipeline.records import Response
from tests.data_pipeline.llm.conftest import query, requests, rows
from tests.data_pipeline.llm.damage import call
from tests.data_pipeline.llm.test_ledger import batch
from tests.model_server import ModelServer

HANG = """
import asyncio, os, signal, sys
from pathlib import Path
from data_pipeline.llm.ledger import Ledger
ledger = Ledger(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]))
print(asyncio.run(ledger.lease(["a", "b"])), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def lease(ledger: Ledger, *keys: str) -> dict:
    return asyncio.run(ledger.lease(keys))


def test_a_call_is_leased_once_until_it_is_recorded_dropped_or_its_client_ends(ledger):
    made = call(1, random.Random(1))
    with Ledger(ledger) as one:
        assert lease(one, "a", made.key) == {"a": True, made.key: True}
        assert lease(one, "a") == {"a": True}, "our own"
        with Ledger(ledger) as other:
            assert lease(other, "a", "b", made.key) == {"a": False, "b": True, made.key: False}
            assert asyncio.run(one.look(["b", "c"])) == {"b": False, "c": True}
            asyncio.run(one.record(made))
            (reply,) = lease(other, made.key).values()
            assert isinstance(reply, Response) and reply.text == made.text
            one.drop("a")
            lease(one, "d")
            assert lease(other, "a") == {"a": True}
        assert lease(one, "a", "b") == {"a": True, "b": True}, "the other has ended"
    assert query(ledger, "SELECT COUNT(*) FROM leases") == [(0,)]


def test_leases_of_a_killed_client_are_free_at_once_and_of_a_hanging_one_after_a_while(ledger, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", HANG, str(ledger)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and "True" in process.stdout.readline()
        with Ledger(ledger) as ours:
            assert lease(ours, "a") == {"a": False}
            monkeypatch.setattr(ledgers, "LEASE", 0.3)
            renewing, late = "UPDATE leases SET until = until - 61", lease(ours, "c")
            assert late == {"c": True}
            ours._safe(lambda: ours._store.execute(renewing + " WHERE key = 'a'"))  # a minute passes
            assert lease(ours, "a", "b") == {"a": True, "b": False}
            process.send_signal(signal.SIGKILL)
            process.wait()
            for _ in range(50):  # until the system, or Postgres, has noticed
                if lease(ours, "b") == {"b": True}:
                    break
                time.sleep(0.1)
            assert lease(ours, "b") == {"b": True}


def test_leases_are_renewed_while_a_call_takes_long(ledger, monkeypatch):
    monkeypatch.setattr(ledgers, "LEASE", 1.0)

    async def run(url: str) -> tuple:
        async with llm.connected(Server(url, "tiny"), ledger) as ask:
            slow = asyncio.ensure_future(ask(*requests("slow")))
            await asyncio.sleep(2)
            async with llm.connected(Server(url, "tiny"), ledger) as other:
                return await asyncio.gather(slow, other(*requests("slow")))

    with ModelServer(latency=3) as server:
        first, second = asyncio.run(run(server.url))
        assert first == second and len(server.calls) == 1


def test_three_clients_make_each_call_once(ledger):
    with ModelServer(latency=0.02) as server:
        processes = [batch(server.url, ledger, 0, 300) for _ in range(3)]
        told = [process.communicate(timeout=120) for process in processes]
        assert all(process.returncode == 0 for process in processes), told
        assert all({*out.split("\n")} >= {*rows(300)} for out, _ in told), "each has every reply"
        assert set(server.counts().values()) == {1} and len(server.counts()) == 300
    assert query(ledger, "SELECT COUNT(*) FROM leases") == [(0,)]


def test_of_three_clients_one_is_killed_and_nothing_is_lost(ledger):
    with ModelServer(latency=0.05) as server:
        processes = [batch(server.url, ledger, 0, 300) for _ in range(3)]
        while len(server.calls) < 100:
            time.sleep(0.01)
        processes[0].kill()
        told = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes[1:]] == [0, 0], told
        again = sum(count - 1 for count in server.counts().values())
        assert len(server.counts()) == 300 and 0 <= again <= 8, "its calls that were in flight"
    assert query(ledger, "SELECT COUNT(DISTINCT key), COUNT(*) FROM calls") == [(300, 300)]


def test_a_ledger_of_another_run_is_refused(ledger):
    claim(str(ledger), "mine")
    claim(str(ledger), "mine")
    with pytest.raises(BadInput, match="it is the ledger of run=mine, .* name another one for run=other"):
        claim(str(ledger), "other")
    claim(None, "other")


def test_a_file_on_a_disk_of_the_network_is_refused_with_the_reason(sqlite_ledger, monkeypatch):
    monkeypatch.setattr(sqlite_store, "is_on_network", lambda path: True)
    with pytest.raises(BadInput, match="on a disk of the network, where sqlite's locks .* say ledger=postgresql://"):
        llm.run_all(Server("http://127.0.0.1:9/v1", "tiny"), requests("a"), sqlite_ledger, "the test")
    assert not sqlite_ledger.exists()


# --- Postgres ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://me:geheimnis4711@h/db", "a password in the address"),
        ("postgresql://me@h/db?password=geheimnis4711", "a password in the address"),
        ("postgresql://me@h/db?sslpassword=geheimnis4711", "a password in the address"),
        ("postgresql://me@h", "names no database"),
        ("postgresql://me@h:port/db", "names no database"),
        ("mysql://me@h/db", "takes a file, or postgresql://"),
    ],
)
def test_an_address_that_cannot_be_is_refused(given, expected, tmp_path):
    with pytest.raises(BadInput, match=expected) as told:
        place(given, tmp_path)
    assert "geheimnis" not in str(told.value)


def test_a_database_that_cannot_be_reached_is_told_without_the_password(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("PGPASSWORD", "geheimnis4711")
    with pytest.raises(BadInput, match="ledger postgresql://me@127.0.0.1:9/db: .*refused.*see that Postgres") as told:
        Ledger("postgresql://me@127.0.0.1:9/db")
    assert "geheimnis" not in str(told.value)


def test_smoke_a_real_postgres_keeps_calls_and_leases(new_database, tmp_path):
    """What the slow tests ask at length; also: what is no ledger, a wrong password, and connections that are cut."""
    import psycopg

    database = new_database("smoke")
    with ModelServer() as server:
        texts = [*rows(20), "a\0b\U0010fffe"]
        settings = Server(server.url, "tiny", input_price=1, output_price=1)
        replies = llm.run_all(settings, requests(*texts), database, "the test")
        assert llm.run_all(settings, requests(*texts), database, "the test") == replies
        assert server.counts() == dict.fromkeys(texts, 1)
        assert [reply.text for reply in replies] == [f"reply to {text}" for text in texts]
        (total,) = llm.totals(database)
        assert (total["calls"], total["failures"], total["cost"]) == (21, 0, pytest.approx(21 * 15 / 1e6))
        with Ledger(database) as ledger:
            assert [c.text for c in ledger.calls("step", texts[-1], 0)] == [replies[-1].text]
            with psycopg.connect(database, autocommit=True) as db:  # as a restart: every connection is cut
                db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
                           " AND datname = current_database()")  # fmt: skip
            asyncio.run(ledger.record(call(5, random.Random(5))))
            assert lease(ledger, "k") == {"k": True}
            with Ledger(database) as other:
                assert lease(other, "k") == {"k": False}
    assert query(database, "SELECT COUNT(*) FROM calls WHERE key NOT IN (SELECT key FROM calls LIMIT 0)") == [(22,)]
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("UPDATE calls SET text = 'altered' WHERE id = 1")
    with (
        Ledger(database) as ledger,
        pytest.raises(BadInput, match="row 0 is not .*; .*DELETE FROM calls"),
    ):
        list(ledger.replies([key for (key,) in query(database, "SELECT key FROM calls")]))
    strange = new_database("strange")
    with psycopg.connect(strange, autocommit=True) as db:
        db.execute("CREATE TABLE calls (number INT)")
    with pytest.raises(BadInput, match="has a table calls, but is not a ledger of version 3; name another database"):
        Ledger(strange)
    right = os.environ["PGPASSWORD"]
    os.environ["PGPASSWORD"] = "geheimnis4711"
    try:
        with pytest.raises(BadInput, match="password authentication failed") as told:
            Ledger(database)
    finally:
        os.environ["PGPASSWORD"] = right
    assert "geheimnis" not in str(told.value) and right not in str(told.value)
