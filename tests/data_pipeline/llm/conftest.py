"""Requests, prices and the fixtures of all tests that ask a server through a ledger.

What asks for `ledger` or `new_ledger` runs with sqlite, and with a real Postgres among the slow tests; what is about
sqlite's own file asks for `sqlite_ledger`.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.llm.places import Where
from data_pipeline.llm.postgres_store import WRITERS
from data_pipeline.records import Request, Response
from tests import postgres

KEY = "sk-test-5e0c9a7d41"
# A request of these tests: about 12 tokens of prompt (guessed), 5 of the reply; paid are 10 and 5.
PRICES: dict[str, Any] = {"input_price": 1e6, "output_price": 1e6}  # a token costs 1


def requests(*texts: str, step: str = "step", **params) -> list[Request]:
    return [Request(step, text, 0, [{"role": "user", "content": text}], params) for text in texts]


def rows(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


@pytest.fixture(scope="session")
def database_server():
    """The address of a Postgres, which runs for all tests of this process."""
    if postgres.programs() is None:
        pytest.skip("Postgres is not installed (Debian: apt-get install postgresql)")
    with postgres.running() as address:
        yield address


@pytest.fixture
def new_database(database_server) -> Callable[[str], str]:
    """Gives the address of a new database."""
    return lambda name: postgres.create(database_server, f"{name}_{uuid4().hex[:8]}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def new_ledger(request, tmp_path) -> Callable[[str], Where]:
    """Gives the place of a new ledger by a name."""
    if request.param == "sqlite":
        return lambda name: tmp_path / f"{name}.sqlite"
    return request.getfixturevalue("new_database")


@pytest.fixture
def ledger(new_ledger) -> Where:
    return new_ledger("ledger")


@pytest.fixture
def sqlite_ledger(tmp_path) -> Path:
    return tmp_path / "ledger.sqlite"


def query(ledger: Where, text: str) -> list[tuple]:
    """Returns the rows of a query, by another way than the ledger's own."""
    if isinstance(ledger, str):
        return postgres.query(ledger, text)
    with closing(sqlite3.connect(ledger)) as db:
        return db.execute(text).fetchall()


@contextmanager
def locked(ledger: Where) -> Iterator[None]:
    """Holds the lock for writing, as another process does."""
    if isinstance(ledger, str):
        import psycopg

        with psycopg.connect(ledger, autocommit=True) as db:
            db.execute(f"SELECT pg_advisory_lock({WRITERS}, 0)".encode())
            yield
    else:
        with closing(sqlite3.connect(ledger, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("COMMIT")


@pytest.fixture
def ask(ledger):
    """Asks a server (or the one of these settings) the texts and returns the responses."""

    def run(model_server, *texts, on_reply=None, params=None, budget=None, **settings) -> list[Response]:
        server = Server(**{"base_url": getattr(model_server, "url", model_server), "model": "tiny"} | settings)
        return llm.run_all(server, requests(*texts, **(params or {})), ledger, "the test", on_reply, budget)

    return run
