"""The ledger of model calls: a finished call is replayed, never paid twice; a failed one is logged.

One sqlite file, or a Postgres database (`ledger=postgresql://...`) for clients on several machines. `data_pipeline.llm`
writes it; several processes may share it: a call that one of them makes is leased, and the others wait for its reply.
The leases of a process that has ended are free at once, those of one that hangs after a minute. Keys and headers never
come here.

python -m data_pipeline.llm.ledger recover FILE     saves what can be read of a broken ledger
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.errors import BadInput, storage_fault
from data_pipeline.llm.calls import Call, checksum
from data_pipeline.llm.places import Where, is_database, is_there, place
from data_pipeline.llm.postgres_store import PostgresStore
from data_pipeline.llm.sqlite_store import SqliteStore
from data_pipeline.records import Response

_PATIENCE = 60.0  # seconds to wait for another process that writes
LEASE = 60.0  # seconds after which a lease that its owner has not renewed is free; ours
_CHUNK = 500  # keys of one query

Got = TypeVar("Got")

_FIELDS = ", ".join(f'"{name}"' for name in (*Call._fields, "checksum"))
_INSERT = f"INSERT INTO calls ({_FIELDS}) VALUES (?{', ?' * len(Call._fields)})"
_LEASE = """INSERT INTO leases (key, owner, until) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until"""
_TOTALS = """SELECT step, model,
    SUM(CASE WHEN finish != 'failed' THEN 1 ELSE 0 END) AS calls,
    SUM(CASE WHEN finish = 'failed' THEN 1 ELSE 0 END) AS failures,
    CAST(SUM(prompt_tokens) AS BIGINT) AS prompt_tokens, CAST(SUM(completion_tokens) AS BIGINT) AS completion_tokens,
    SUM(cost) AS cost FROM calls GROUP BY step, model ORDER BY MIN(id)"""


class Ledger:
    """An open ledger, made if it is absent; a context manager. Raises BadInput for what is no ledger, and for a file on
    a disk of the network.
    """

    def __init__(self, where: Where) -> None:
        kind: Any = PostgresStore if is_database(where) else SqliteStore
        self._store = kind(where, Call.__annotations__, _PATIENCE)
        self.path = self._store.path
        self._pending: deque[Call] = deque()
        self._dropped: deque[str] = deque()  # keys whose lease goes without a call
        self._leased = False  # whether this process has ever had a lease
        self._thread = ThreadPoolExecutor(1)  # a commit waits for the disk and for other processes, the calls do not

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()
        try:
            self._commit()  # what a cancelled task left
            if self._leased:
                free_all = "DELETE FROM leases WHERE owner = ?"
                self._safe(lambda: self._store.execute(free_all, (self._store.owner,)), durable=False)
        finally:
            self._store.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    def replies(self, keys: Iterable[str]) -> Iterator[tuple[str, Response]]:
        """Yields (key, response) of the keys whose call is finished."""
        for chunk in _chunks(keys):
            yield from self._query(partial(self._replies, chunk)).items()

    async def reply(self, key: str) -> Response | None:
        """Returns the response of a finished call. Waits for other processes without holding up the event loop."""
        return (await self._in_thread(lambda: dict(self.replies([key])))).get(key)

    def totals(self) -> list[dict]:
        """Returns one dict per step and model: step, model, served (names under which servers answered, comma between),
        calls, failures, prompt_tokens, completion_tokens, cost.
        """
        names = "SELECT step, model, served FROM calls WHERE served != '' GROUP BY step, model, served ORDER BY MIN(id)"
        rows, served = self._query(lambda: (self._store.execute(_TOTALS), self._store.execute(names)))
        keys = ("calls", "failures", "prompt_tokens", "completion_tokens", "cost")
        return [
            {"step": step, "model": model, "served": ",".join(s for *of, s in served if of == [step, model])}
            | dict(zip(keys, figures, strict=True))
            for step, model, *figures in rows
        ]

    def calls(self, step: str, row: str, sample: int) -> list[Call]:
        """Returns the finished calls of one request, repairs of its reply included, in their order."""
        repair = f"{step}.repair"
        where = """(step = ? OR substr(step, 1, ?) = ?) AND "row" = ? AND sample = ? AND finish != 'failed'"""
        query = f"SELECT {_FIELDS} FROM calls WHERE {where} ORDER BY id"
        values = (step, len(repair), repair, row, sample)
        return self._query(lambda: [self._whole(values) for values in self._store.execute(query, values)])

    def served(self, model: str) -> list[str]:
        """Returns the names under which servers answered for a model, in the order in which they first came."""
        query = "SELECT served FROM calls WHERE model = ? AND served != '' GROUP BY served ORDER BY MIN(id)"
        return [name for (name,) in self._query(lambda: self._store.execute(query, (model,)))]

    def servers(self) -> list[tuple[str, int, int, float]]:
        """Returns (address, calls, failures, calls a second in the last minute in which any server answered), by
        address.
        """
        ((first, last),) = self._query(lambda: self._store.execute('SELECT MIN("at"), MAX("at") FROM calls'))
        if not last:
            return []
        end = datetime.fromisoformat(last)
        begin = max(end - timedelta(minutes=1), datetime.fromisoformat(first))
        since, seconds = begin.isoformat(timespec="milliseconds"), max((end - begin).total_seconds(), 1)
        query = """SELECT base_url, SUM(CASE WHEN finish != 'failed' THEN 1 ELSE 0 END),
            SUM(CASE WHEN finish = 'failed' THEN 1 ELSE 0 END),
            SUM(CASE WHEN finish != 'failed' AND "at" >= ? THEN 1 ELSE 0 END) FROM calls GROUP BY 1 ORDER BY 1"""
        rows = self._query(lambda: self._store.execute(query, (since,)))
        return [(address, calls, failures, recent / seconds) for address, calls, failures, recent in rows]

    def slowest(self) -> str:
        """Returns the step for whose answers was waited the longest, "" without calls."""
        query = "SELECT step FROM calls GROUP BY step ORDER BY SUM(latency) DESC LIMIT 1"
        return next((step for (step,) in self._query(lambda: self._store.execute(query))), "")

    def spent(self) -> float:
        """Returns what all calls cost together, those without a price 0."""
        return self._query(lambda: self._store.execute("SELECT COALESCE(SUM(cost), 0.0) FROM calls"))[0][0]

    # --- writing ------------------------------------------------------------------------------------------------------

    async def record(self, call: Call) -> None:
        """Returns when the call is on disk and its lease free; calls that arrive together share one commit."""
        self._pending.append(call)
        await self._in_thread(self._commit)

    def add(self, calls: Iterable[Call]) -> None:
        """Writes calls as they are, in one commit."""
        self._pending.extend(calls)
        self._commit()

    def claim(self, run: str) -> None:
        """Says whose ledger it is, where that is not said yet; raises BadInput for the ledger of another run."""
        name = "INSERT INTO about (name, value) VALUES ('run', ?) ON CONFLICT (name) DO NOTHING"

        def named() -> str:
            self._store.execute(name, (run,))
            return self._store.execute("SELECT value FROM about WHERE name = 'run'")[0][0]

        if (of := self._safe(named)) != run:
            raise BadInput(
                f"ledger={self.path}: it is the ledger of run={of}, whose budget and costs it counts; name another one "
                f"for run={run}, or go on with run={of}"
            )

    # --- leases -------------------------------------------------------------------------------------------------------

    async def lease(self, keys: Sequence[str], most: int = 1000) -> dict[str, Response | bool]:
        """Returns of each key its response if its call is finished, True if it is ours to make now, and False if
        another process makes it; nothing of the keys behind the last of `most` that are ours. A lease is free again
        when the call is recorded, or dropped.
        """
        return await self._in_thread(lambda: self._commit(keys, most))

    async def look(self, keys: Sequence[str]) -> dict[str, Response | bool]:
        """Returns as `lease`, and leases nothing."""
        return await self._in_thread(lambda: self._query(lambda: self._state(keys)))

    async def renew(self) -> None:
        """Lets our leases hold on; to be called more often than LEASE."""
        query = f"UPDATE leases SET until = {self._store.clock} + {LEASE} WHERE owner = ?"
        await self._in_thread(lambda: self._safe(lambda: self._store.execute(query, (self._store.owner,)), False))

    def drop(self, key: str) -> None:
        """Frees a lease, with the next commit, whose call has not been made."""
        self._dropped.append(key)

    def _state(self, keys: Sequence[str]) -> dict[str, Response | bool]:
        state: dict[str, Response | bool] = {}
        for chunk in _chunks(keys):
            held = f"SELECT key, owner FROM leases WHERE until > {self._store.clock} AND key IN ({_marks(chunk)})"
            owners = dict(self._store.execute(held, chunk))
            others = {owner for owner in owners.values() if owner != self._store.owner}
            living = self._store.living(others) if others else ()
            state |= {key: owners.get(key) not in living for key in chunk}
            state |= self._replies(chunk)
        return state

    # --- inside -------------------------------------------------------------------------------------------------------

    def _commit(self, wanted: Sequence[str] = (), most: int = 0) -> dict[str, Response | bool]:
        """Writes what waits to be written, and leases what is wanted, in one transaction."""
        calls = [self._pending.popleft() for _ in range(len(self._pending))]
        free = [self._dropped.popleft() for _ in range(len(self._dropped))] + [call.key for call in calls]
        if not wanted and not free:
            return {}
        again = False

        def work() -> dict[str, Response | bool]:
            nonlocal again
            new = [call for call in calls if not (again and self._has(call))]  # a broken commit may have been one
            again = True
            self._store.insert(_INSERT, [(*call, checksum(call)) for call in new])
            for chunk in _chunks(free) if self._leased else ():
                self._store.execute(
                    f"DELETE FROM leases WHERE owner = ? AND key IN ({_marks(chunk)})", (self._store.owner, *chunk)
                )
            if not wanted:
                return {}
            self._store.live()
            state, left = {}, most
            for key, one in self._state(wanted).items():
                left -= one is True
                if left < 0:
                    break
                state[key] = one
            ((now,),) = self._store.execute(f"SELECT {self._store.clock}")
            ours = [(key, self._store.owner, float(now) + LEASE) for key, one in state.items() if one is True]
            self._store.insert(_LEASE, ours)
            return state

        self._leased = self._leased or bool(wanted)
        try:
            return self._safe(work, durable=bool(calls))
        except (BadInput, OSError):
            self._pending.extendleft(reversed(calls))  # they are paid for: once more when the ledger is closed
            raise

    def _has(self, call: Call) -> bool:
        return bool(self._store.execute('SELECT 1 FROM calls WHERE key = ? AND "at" = ?', (call.key, call.at)))

    def _replies(self, keys: Sequence[str]) -> dict[str, Response]:
        query = f"SELECT {_FIELDS} FROM calls WHERE key IN ({_marks(keys)}) AND finish != 'failed' ORDER BY id DESC"
        found = {}
        for values in self._store.execute(query, keys):  # of several the first
            of = self._whole(values)
            found[of.key] = Response(of.text, of.finish, of.completion_tokens, of.reasoning, of.prompt_tokens)
        return {key: found[key] for key in keys if key in found}

    def _whole(self, row: tuple) -> Call:
        """Returns the call of a row; raises for one that has been altered since it was written."""
        call = Call(*row[:-1])
        if row[-1] and row[-1] != checksum(call):
            raise self._store.altered(f"{call.step}, row {call.row}", call.key)
        return call

    def _query(self, work: Callable[[], Got]) -> Got:
        with self._store.told():
            try:
                return work()
            except Exception as error:
                if not self._store.lost(error):
                    raise
                return work()

    def _safe(self, work: Callable[[], Got], durable: bool = True) -> Got:
        def in_transaction() -> Got:
            with self._store.transaction(durable):
                return work()

        return self._query(in_transaction)

    async def _in_thread(self, work: Callable[[], Got]) -> Got:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _marks(values: Sequence) -> str:
    return ", ".join("?" * len(values))


def _chunks(keys: Iterable[str]) -> Iterator[tuple[str, ...]]:
    rest = iter(keys)
    while chunk := tuple(islice(rest, _CHUNK)):
        yield chunk


def claim(given: str | None, run: str) -> None:
    """Raises BadInput unless the ledger that `ledger=` names can be opened, and is that of the run, or new."""
    if given:
        with Ledger(place(given, Path())) as ledger:
            ledger.claim(run)


def totals(where: Where) -> list[dict]:
    """Returns calls, failures, tokens and cost by step and model, in the order of their first call; [] without a file.

    A failure is a request that failed in one run; the next run asks it again. `cost` is None where no price was set.
    """
    if not is_there(where):
        return []
    with Ledger(where) as ledger:
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
