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

from data_pipeline.errors import BadInput, storage_fault
from data_pipeline.llm.calls import Call, checksum
from data_pipeline.llm.disk import fault_of_disk, is_on_network
from data_pipeline.records import Response

VERSION = 3  # of the table, kept in sqlite's user_version; 1 had no `served`, 2 no checksum
_PATIENCE = 60.0  # seconds to wait for another process that writes


_TYPES = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL NOT NULL", float | None: "REAL"}
_COLUMNS = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in Call.__annotations__.items())
_COLUMNS += ", checksum TEXT NOT NULL DEFAULT ''"  # of the row; "" in rows of earlier versions
_FIELDS = ", ".join(f'"{name}"' for name in (*Call._fields, "checksum"))
_INSERT = f"INSERT INTO calls ({_FIELDS}) VALUES (?{', ?' * len(Call._fields)})"
_REPLY = f"SELECT {_FIELDS} FROM calls WHERE key = ? AND finish != 'failed' ORDER BY id LIMIT 1"
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
            if not self.path.exists():
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))  # it holds what people said
            self._db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        # A write-ahead log is shared memory of the processes of one machine; on a network disk there may be others.
        self._db.execute(f"PRAGMA journal_mode = {'DELETE' if is_on_network(self.path) else 'WAL'}")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit outlives a power cut; 0.3 ms on the disk measured
        with self._transaction():
            version = self._version()
            (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(
                    f"a ledger of version {version}, and this PsyForge knows {VERSION}: go on with the newer one that "
                    "made it"
                )
            if version == 0 and tables == 0:
                self._db.execute(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, {_COLUMNS})")
                self._db.execute("CREATE INDEX calls_by_key ON calls (key)")
            elif version == 0:
                raise sqlite3.DatabaseError(f"a database, but not a ledger of version {VERSION}")
            elif version < VERSION:
                there = {name for _, name, *_ in self._db.execute("PRAGMA table_info (calls)")}
                for name in [name for name in ("served", "checksum") if name not in there]:
                    self._db.execute(f"ALTER TABLE calls ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
                if "checksum" in there:
                    self._db.execute("UPDATE calls SET checksum = ''")  # of a table that somebody has changed since
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

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
                    of = self._whole(row)
                    yield key, Response(of.text, of.finish, of.completion_tokens, of.reasoning, of.prompt_tokens)

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
        where = "(step = ? OR step GLOB ? || '.repair[0-9]*') AND row = ? AND sample = ? AND finish != 'failed'"
        with self._told():
            rows = self._db.execute(f"SELECT {_FIELDS} FROM calls WHERE {where} ORDER BY id", (step, step, row, sample))
            return [self._whole(values) for values in rows]

    def served(self, model: str) -> list[str]:
        """Returns the names under which servers answered for a model, in the order in which they first came."""
        query = "SELECT served FROM calls WHERE model = ? AND served != '' GROUP BY served ORDER BY MIN(id)"
        with self._told():
            return [name for (name,) in self._db.execute(query, (model,))]

    def spent(self) -> float:
        """Returns what all calls cost together, those without a price 0."""
        with self._told():
            return self._db.execute("SELECT TOTAL(cost) FROM calls").fetchone()[0]

    def add(self, calls: Iterable[Call]) -> None:
        """Writes calls as they are, in one commit."""
        self._pending.extend(calls)
        self._commit()

    def _whole(self, row: tuple) -> Call:
        """Returns the call of a row; raises DatabaseError for one that has been altered since it was written."""
        call = Call(*row[:-1])
        if row[-1] and row[-1] != checksum(call):
            raise sqlite3.DatabaseError(f"the reply to {call.step}, row {call.row} is not as it was written: malformed")
        return call

    def _commit(self) -> None:
        calls = [self._pending.popleft() for _ in range(len(self._pending))]
        if calls:
            try:
                with self._told(), self._transaction():
                    self._db.executemany(_INSERT, [(*call, checksum(call)) for call in calls])
            except (BadInput, OSError):
                self._pending.extendleft(reversed(calls))  # they are paid for: once more when the ledger is closed
                raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")  # not deferred: two processes would refuse each other instead of waiting
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
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
                cure = f"another process has kept it for {_PATIENCE:g} s; run again when that one has ended"
            elif "malformed" in str(error):
                cure = f"save what can be read of it: {recover}"
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
    """Puts a ledger with all calls that can be read in the place of a broken one, and returns their number; raises as
    `recovery.recover`.
    """
    from data_pipeline.llm import recovery

    return recovery.recover(path, _write).saved


def _write(path: Path, calls: list[Call]) -> None:
    with Ledger(path) as ledger:
        ledger.add(calls)


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 saved, 1 for a full disk, 2 for what is no ledger, or none that can be read."""
    if len(argv) != 2 or argv[0] != "recover":
        print("usage: python -m data_pipeline.llm.ledger recover FILE", file=sys.stderr)
        return 2
    from data_pipeline.llm import recovery

    try:
        print(recovery.recover(Path(argv[1]), _write))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"failed: {storage_fault(error) or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
