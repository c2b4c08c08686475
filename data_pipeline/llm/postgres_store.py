"""The ledger in a Postgres database, for clients on several machines: `ledger=postgresql://[USER@]HOST[:PORT]/DATABASE`.

The password comes from where Postgres' own programs take it, PGPASSWORD or ~/.pgpass, and is written nowhere. One
database holds the ledger of one run. As in sqlite one client writes at a time; calls that arrive together share a
commit. A connection that breaks is opened anew for a minute, and what was to be written is.
"""

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import BadInput
from data_pipeline.llm.sqlite_store import ABOUT, VERSION
from data_pipeline.safety.credentials import could_be_key, hide_keys

PREFIXES = ("postgresql://", "postgres://")
_TYPES = {str: "TEXT NOT NULL", int: "BIGINT NOT NULL", float: "FLOAT8 NOT NULL", float | None: "FLOAT8"}
WRITERS = 5059079  # the advisory lock of who writes; ours
_CONNECT = 10  # seconds; ours
# Postgres' text holds no NUL: it and the sign that stands for it are written as two signs
_MARK = "\U0010fffe"


def check_address(address: str) -> str:
    """Returns the address of a database; raises BadInput, which does not show it, for one with a password."""
    if could_be_key(address) or re.search(r"[?&](?:\w*pass\w*)=", address, re.I):
        raise BadInput(
            "ledger: a password in the address (not shown); put it into PGPASSWORD or ~/.pgpass, and say "
            "ledger=postgresql://USER@HOST/DATABASE"
        )
    try:
        parts = urlsplit(address)
        good = len(parts.path) > 1 and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise BadInput(f"ledger={address}: names no database; say ledger=postgresql://USER@HOST:5432/DATABASE")
    return address


class PostgresStore:
    """An open database, with tables that are made if they are absent."""

    clock = "extract(epoch FROM clock_timestamp())"

    def __init__(self, address: str, columns: dict[str, Any], patience: float) -> None:
        self.path, self.patience, self.owner = check_address(address), patience, random.getrandbits(62)
        self.columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in columns.items())
        self.columns += ", checksum TEXT NOT NULL"
        self._lives = False
        with self.told():
            self._connect()
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _connect(self) -> None:
        try:
            import psycopg
        except ImportError:
            raise BadInput(f"ledger {self.path}: psycopg is not installed; first: bash launch/install.sh") from None
        self._db = psycopg.connect(
            self.path, autocommit=True, connect_timeout=_CONNECT, application_name="psyforge", client_encoding="UTF8",
            keepalives_idle=30,
        )  # fmt: skip
        self.execute(f"SET lock_timeout = {max(1, round(1000 * self.patience))}")
        if self._lives:
            self._lives = False
            self.live()

    def _prepare(self) -> None:
        import psycopg

        with self.transaction():
            there = self.execute("SELECT table_name FROM information_schema.tables WHERE table_schema=current_schema()")
            names = {name for (name,) in there} & {"calls", "leases", "about"}
            if names and names != {"calls", "leases", "about"}:
                raise psycopg.DataError(f"it has a table {min(names)}, but is not a ledger of version {VERSION}")
            if not names:
                self.execute(f"CREATE TABLE calls (id BIGSERIAL PRIMARY KEY, {self.columns})")
                self._db.execute("CREATE INDEX calls_by_key ON calls (key)")
                self._db.execute("CREATE TABLE leases (key TEXT PRIMARY KEY, owner BIGINT NOT NULL, until FLOAT8)")
                self._db.execute(ABOUT)
                self.execute(f"INSERT INTO about VALUES ('version', '{VERSION}')")
            ((version,),) = self.execute("SELECT value FROM about WHERE name = 'version'")
            if int(version) > VERSION:
                raise psycopg.DataError(
                    f"a ledger of version {version}, and this PsyForge knows {VERSION}: go on with the newer one"
                )

    def execute(self, query: str, values: Sequence = ()) -> list[tuple]:
        cursor = self._db.execute(self._sql(query), [_out(value) for value in values])
        return [tuple(map(_in, row)) for row in cursor] if cursor.description else []

    def insert(self, query: str, rows: Iterable[Sequence]) -> None:
        with self._db.cursor() as cursor:
            cursor.executemany(self._sql(query), [[_out(value) for value in row] for row in rows])

    def _sql(self, query: str) -> Any:
        return query.replace("?", "%s")

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[None]:
        """Holds the one lock for writing; `durable`: what it writes outlives a power cut."""
        with self._db.transaction():
            self.execute(f"SELECT pg_advisory_xact_lock({WRITERS}, 0)")
            if not durable:
                self._db.execute("SET LOCAL synchronous_commit = off")
            yield

    def lost(self, error: Exception) -> bool:
        """Returns whether the error is that of a broken connection, and it has been opened anew."""
        import psycopg

        if not isinstance(error, psycopg.Error) or not self._db.closed:
            return False
        ends = time.monotonic() + self.patience
        while True:
            try:
                self._connect()
                return True
            except psycopg.OperationalError:
                if time.monotonic() > ends:
                    return False
                time.sleep(1)

    def live(self) -> None:
        """Says that this owner lives, as long as its connection does, which ends with its process."""
        if not self._lives:
            self.execute(f"SELECT pg_advisory_lock({self.owner})")
            self._lives = True

    def living(self, owners: Iterable[int]) -> set[int]:
        """Returns which of the owners live."""
        number = "(classid::bigint << 32) | objid::bigint"
        held = f"SELECT {number} FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
        held += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        return set(owners) & {owner for (owner,) in self.execute(held)}

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raises BadInput with a cure for what psycopg raises."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            told = " ".join(hide_keys(str(error)).split())
            cure = "see that Postgres runs there, takes this user, and has the database (createdb NAME)"
            if isinstance(error, psycopg.errors.LockNotAvailable):
                told = "locked"
                cure = f"another process has kept it for {self.patience:g} s; run again when that one has ended"
            elif isinstance(error, psycopg.DataError):
                cure = "name another database"
            raise BadInput(f"ledger {self.path}: {told}; {cure}") from None

    def altered(self, of: str, key: str) -> Exception:
        """Returns what is raised in `told` for a row that is not as it was written."""
        return BadInput(
            f"ledger {self.path}: the reply to {of} is not as it was written; have it asked anew: "
            f"psql {self.path} -c \"DELETE FROM calls WHERE key = '{key}'\""
        )


def _out(value: Any) -> Any:
    if isinstance(value, str) and ("\0" in value or _MARK in value):
        return value.replace(_MARK, f"{_MARK}1").replace("\0", f"{_MARK}0")
    return value


def _in(value: Any) -> Any:
    if isinstance(value, str) and _MARK in value:
        return value.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)
    return value
