"""The ledger in one sqlite file: the default, for the processes of one machine."""

import fcntl
import os
import random
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.llm.disk import fault_of_disk, is_on_network

VERSION = 3  # of the table, kept in sqlite's user_version; 1 had no `served`, 2 no checksum
LEASES = "CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner INTEGER NOT NULL, until REAL NOT NULL)"
ABOUT = "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_TYPES = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL NOT NULL", float | None: "REAL"}
_LOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process


class SqliteStore:
    """An open file, made if it is absent, with a table of these columns."""

    clock = "((julianday('now') - 2440587.5) * 86400.0)"  # seconds, as SQL

    def __init__(self, path: Path, columns: dict[str, Any], patience: float) -> None:
        self.path, self.patience, self.owner = Path(path), patience, random.getrandbits(62)
        self.columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in columns.items())
        self.columns += ", checksum TEXT NOT NULL DEFAULT ''"  # of the row; "" in rows of earlier versions
        self._clients = -1  # the file whose locked bytes say which owners live
        with self.told():
            if is_on_network(self.path):
                raise BadInput(
                    f"ledger {self.path}: it would be on a disk of the network, where sqlite's locks and shared memory "
                    "do not hold between machines, and a file that two of them write is soon broken; say "
                    "ledger=postgresql://HOST/DATABASE, or ledger=PATH on a disk of this machine"
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))  # it holds what people said
            self._db = sqlite3.connect(self.path, timeout=patience, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit outlives a power cut; 0.3 ms on the disk measured
        with self.transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(
                    f"a ledger of version {version}, and this PsyForge knows {VERSION}: go on with the newer one that "
                    "made it"
                )
            if version == 0 and tables == 0:
                self._db.execute(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, {self.columns})")
                self._db.execute("CREATE INDEX calls_by_key ON calls (key)")
            elif version == 0:
                raise sqlite3.DatabaseError(f"a database, but not a ledger of version {VERSION}")
            elif version < VERSION:
                there = {name for _, name, *_ in self._db.execute("PRAGMA table_info (calls)")}
                for name in [name for name in ("served", "checksum") if name not in there]:
                    self._db.execute(f"ALTER TABLE calls ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
                if "checksum" in there:
                    self._db.execute("UPDATE calls SET checksum = ''")  # of a table that somebody has changed since
            self._db.execute(LEASES)  # which earlier versions do without
            self._db.execute(ABOUT)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def execute(self, query: str, values: Sequence = ()) -> list[tuple]:
        return self._db.execute(query, values).fetchall()

    def insert(self, query: str, rows: Iterable[Sequence]) -> None:
        self._db.executemany(query, rows)

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[None]:
        """Holds the one lock for writing; `durable`: what it writes outlives a power cut."""
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")  # not deferred: two processes would refuse each other instead of waiting
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise

    def lost(self, error: Exception) -> bool:
        """A file is always there."""
        return False

    def live(self) -> None:
        """Says that this owner lives, as long as its process does: a byte of a file is locked, which the system frees
        when the process ends, however it does.
        """
        if self._clients < 0:
            self._clients = os.open(f"{self.path}-clients", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._lock(fcntl.F_OFD_SETLK, self.owner)

    def living(self, owners: Iterable[int]) -> set[int]:
        """Returns which of the owners live."""
        self.live()
        return {one for one in owners if one == self.owner or self._lock(fcntl.F_OFD_GETLK, one) != fcntl.F_UNLCK}

    def _lock(self, what: int, owner: int) -> int:
        lock = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, owner, 1, 0)
        return struct.unpack(_LOCK, fcntl.fcntl(self._clients, what, lock))[0]

    def close(self) -> None:
        self._db.close()
        if self._clients >= 0:
            os.close(self._clients)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raises BadInput with a cure, or the disk's own error, for what sqlite raises."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if fault := fault_of_disk(error, self.path):
                raise fault from None
            if "Could not decode" in str(error):  # and it would show the text
                error = "a reply is not as it was written: malformed"
            recover = f"python -m data_pipeline.llm.ledger recover '{self.path}'"
            cure = f"move the file away or name another ledger; if it was one, save what can be read: {recover}"
            if "locked" in str(error):
                cure = f"another process has kept it for {self.patience:g} s; run again when that one has ended"
            elif "malformed" in str(error):
                cure = f"save what can be read of it: {recover}"
            raise BadInput(f"ledger {self.path}: {error}; {cure}") from None

    def altered(self, of: str, key: str) -> Exception:
        """Returns what is raised in `told` for a row that is not as it was written."""
        return sqlite3.DatabaseError(f"the reply to {of} is not as it was written: malformed")
