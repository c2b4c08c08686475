"""The ledger of model calls, one sqlite file: a finished call is replayed, never paid twice; a failed one is logged.

`data_pipeline.llm` writes it; several processes may share it. Keys and headers never come here.

python -m data_pipeline.llm.ledger recover FILE     saves what can be read of a broken ledger
"""

import asyncio
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import BadInput
from data_pipeline.records import Response

_VERSION = 2  # of the table, kept in sqlite's user_version; 1 had no `served`
_PATIENCE = 60.0  # seconds to wait for another process that writes


class Call(NamedTuple):
    key: str  # sha256 of model, messages, parameters and sample number
    step: str
    row: str
    sample: int
    model: str
    base_url: str
    finish: str  # "failed": asked again by the next run
    text: str
    reasoning: str
    error: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # of all attempts; None without prices
    latency: float  # seconds of the last attempt
    attempts: int
    at: str  # UTC
    served: str = ""  # the model that answered, as the server names it


_TYPES = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL NOT NULL", float | None: "REAL"}
_COLUMNS = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in Call.__annotations__.items())
_INSERT = f"INSERT INTO calls VALUES (NULL{', ?' * len(Call._fields)})"
_REPLY = """SELECT text, finish, completion_tokens, reasoning, prompt_tokens FROM calls
    WHERE key = ? AND finish != 'failed' ORDER BY id LIMIT 1"""
_TOTALS = """SELECT step, model, COALESCE(GROUP_CONCAT(DISTINCT NULLIF(served, '')), '') AS served,
    SUM(finish != 'failed') AS calls, SUM(finish = 'failed') AS failures,
    SUM(prompt_tokens) AS prompt_tokens, SUM(completion_tokens) AS completion_tokens, SUM(cost) AS cost
    FROM calls GROUP BY step, model ORDER BY MIN(id)"""


class Ledger:
    """An open ledger, made if `path` is absent; a context manager. Raises BadInput for a file that is not a ledger."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._pending: deque[Call] = deque()
        self._thread = ThreadPoolExecutor(1)  # a commit waits for the disk and for other processes, the calls do not
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit outlives a power cut; 0.3 ms on the disk measured
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                self._db.execute(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, {_COLUMNS})")
                self._db.execute("CREATE INDEX calls_by_key ON calls (key)")
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version == 1:
                self._db.execute("ALTER TABLE calls ADD COLUMN served TEXT NOT NULL DEFAULT ''")
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"a database, but not a ledger of version {_VERSION}")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()
        try:
            self._commit()  # what a cancelled task left
        finally:
            self._db.close()

    def replies(self, keys: Iterable[str]) -> Iterator[tuple[str, Response]]:
        """Yields (key, response) of the keys whose call is finished."""
        with self._told():
            for key in keys:
                if row := self._db.execute(_REPLY, (key,)).fetchone():
                    text, finish, tokens, reasoning, prompt_tokens = row
                    yield key, Response(text, finish, tokens, reasoning, prompt_tokens)

    async def reply(self, key: str) -> Response | None:
        """Returns the response of a finished call. Waits for other processes without holding up the event loop."""
        replies = asyncio.get_running_loop().run_in_executor(self._thread, lambda: dict(self.replies([key])))
        return (await replies).get(key)

    async def record(self, call: Call) -> None:
        """Returns when the call is on disk; calls that arrive together share one commit."""
        self._pending.append(call)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit)

    def totals(self) -> list[dict]:
        """Returns one dict per step and model: step, model, served (names under which servers answered, comma between),
        calls, failures, prompt_tokens, completion_tokens, cost.
        """
        with self._told():
            cursor = self._db.execute(_TOTALS)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def calls(self, step: str, row: str, sample: int) -> list[Call]:
        """Returns the finished calls of one request, repairs of its reply included, in their order."""
        names = ", ".join(f'"{name}"' for name in Call._fields)
        where = "(step = ? OR step GLOB ? || '.repair[0-9]*') AND row = ? AND sample = ? AND finish != 'failed'"
        with self._told():
            rows = self._db.execute(f"SELECT {names} FROM calls WHERE {where} ORDER BY id", (step, step, row, sample))
            return [Call(*values) for values in rows]

    def served(self, model: str) -> list[str]:
        """Returns the names under which servers answered for a model, in the order in which they first came."""
        query = "SELECT served FROM calls WHERE model = ? AND served != '' GROUP BY served ORDER BY MIN(id)"
        with self._told():
            return [name for (name,) in self._db.execute(query, (model,))]

    def spent(self) -> float:
        """Returns what all calls cost together, those without a price 0."""
        with self._told():
            return self._db.execute("SELECT TOTAL(cost) FROM calls").fetchone()[0]

    def _commit(self) -> None:
        calls = [self._pending.popleft() for _ in range(len(self._pending))]
        if calls:
            try:
                with self._told(), self._transaction():
                    self._db.executemany(_INSERT, calls)
            except BadInput:
                self._pending.extendleft(reversed(calls))  # they are paid for: once more when the ledger is closed
                raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")  # not deferred: two processes would refuse each other instead of waiting
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            cure = "move the file away or name another ledger"
            if "locked" in str(error):
                cure = f"another process has kept it for {_PATIENCE:g} s; run again when that one has ended"
            elif "malformed" in str(error):
                cure = f"save what can be read of it: python -m data_pipeline.llm.ledger recover '{self.path}'"
            raise BadInput(f"ledger {self.path}: {error}; {cure}") from None


def totals(path: Path) -> list[dict]:
    """Returns calls, failures, tokens and cost by step and model, in the order of their first call; [] without a file.

    A failure is a request that failed in one run; the next run asks it again. `cost` is None where no price was set.
    """
    if not Path(path).exists():
        return []
    with Ledger(path) as ledger:
        return ledger.totals()


def recover(path: Path) -> int:
    """Puts a ledger with all calls that can be read in the place of a broken one, and returns their number.

    The broken file becomes `path` + ".broken". Raises BadInput when there is no file, or no ledger in it.
    """
    path, broken = Path(path), Path(f"{path}.broken")
    if not path.exists() or broken.exists():
        raise BadInput(f"ledger {path}: " + (f"{broken} exists; move it away" if broken.exists() else "no such file"))
    rows: dict[int, list] = {}
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA writable_schema = ON")  # reads a file that is shorter than it says
        for order in ("ASC", "DESC"):  # from both ends, each up to the first page that is broken
            try:
                for number, *call in db.execute(f"SELECT * FROM calls NOT INDEXED ORDER BY id {order}"):
                    rows[number] = call
            except sqlite3.Error:
                continue
    except sqlite3.Error as error:
        raise BadInput(f"ledger {path}: {error}") from None
    finally:
        db.close()
    fresh = Path(f"{path}.partial")
    fresh.unlink(missing_ok=True)
    with Ledger(fresh) as ledger:
        ledger._pending.extend(Call(*rows[number]) for number in sorted(rows))
    for end in ("-wal", "-shm", ""):
        if Path(f"{path}{end}").exists():
            os.replace(f"{path}{end}", f"{broken}{end}")
    os.replace(fresh, path)
    return len(rows)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "recover":
        sys.exit("usage: python -m data_pipeline.llm.ledger recover FILE")
    try:
        print(f"{sys.argv[2]}: {recover(Path(sys.argv[2]))} calls saved")
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
