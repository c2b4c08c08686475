"""One server, or several of the same model, behind one line: a request goes to the one with the fewest in flight.

Each server has a limit of its own (limiter.py). One of several that fails three times in a row is left out, for 0.1 s
at first, then half as long again each time up to 1 s, and comes back with one request. Before the first request each of
several servers is asked which models it has: a dead one, or one with another model, ends the run before it pays.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.llm import transport
from data_pipeline.llm.limiter import START, Limit
from data_pipeline.llm.server import Server
from data_pipeline.llm.transport import Connection, Failed

FAILURES = 3  # in a row, after which a server of several is left out; ours
PAUSES = (0.1, 1.0)  # seconds, first and longest; ours
BUSY = 0.25  # the longest of one that answers, but that it is busy
_checked: set[tuple[str, ...]] = set()  # addresses and model that have been checked in this process


@dataclass
class Member:
    """A server of several: its connection, its limit, and whether it is left out."""

    connection: Connection
    limit: Limit
    failures: int = 0  # in a row
    left_out_at: float = 0.0  # time.monotonic()
    back_at: float = 0.0
    answers: int = 0

    def opens_at(self) -> float:
        return max(self.back_at, self.connection.closed_until)

    def free(self) -> bool:
        return self.limit.free and not (self.failures >= FAILURES and self.limit.in_flight)  # one on trial


@dataclass
class Pool:
    """The servers, and who waits for one of their slots; a `transport.Line`."""

    server: Server
    members: list[Member]
    limits: list[tuple[Any, bool]]  # as Connection.limits, of all servers together
    backlog: Callable[[], bool] = lambda: False  # whether more requests would be sent, had they a slot
    waiting: deque["asyncio.Future[Member]"] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None

    @property
    def reached(self) -> bool:
        return len(self.members) > 1 or self.members[0].connection.reached  # several have been asked before

    @property
    def in_flight(self) -> int:
        return sum(member.limit.in_flight for member in self.members)

    @asynccontextmanager
    async def turn(self, body: dict) -> AsyncIterator[Connection]:
        """Gives the connection to a server with a free slot, when the limits per minute let the request through."""
        await transport.pass_limits(self.limits, body)
        async with self.using(await self.slot()) as connection:
            yield connection

    @asynccontextmanager
    async def using(self, member: Member) -> AsyncIterator[Connection]:
        """Gives the connection of a slot's server, learns from what becomes of the request, and frees the slot."""
        sent, among = time.monotonic(), member.limit.in_flight
        try:
            yield member.connection
            member.failures = 0
            member.answers += 1
            wanted = bool(self.waiting or self.backlog()) and self.in_flight < self.server.at_most
            member.limit.answered(sent, among, wanted)
        except Failed as failure:
            if failure.again:
                self._failed(member, failure, sent)
            raise
        finally:
            self.release(member)

    def _failed(self, member: Member, failure: Failed, sent: float) -> None:
        if failure.why == "busy" and member.failures < FAILURES:
            member.limit.refused(sent)
        if len(self.members) == 1:
            return  # there is no other to go to
        failure.after = None  # another need not wait
        if sent < member.left_out_at:
            return  # it was on its way with those that have told already
        member.failures += 1
        if member.failures >= FAILURES:
            first, longest = PAUSES[0], BUSY if failure.why == "busy" else PAUSES[1]
            member.left_out_at = time.monotonic()
            member.back_at = member.left_out_at + min(longest, first * 1.5 ** min(member.failures - FAILURES, 10))

    async def slot(self) -> Member:
        """Returns a server one of whose slots is the caller's from now on, to be used or released."""
        if not self.waiting and (member := self.free_slot()):
            return member
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def free_slot(self) -> Member | None:
        """Returns as `slot`, None where none is free."""
        now = time.monotonic()
        free = [member for member in self.members if member.free() and member.opens_at() <= now]
        if not free or self.in_flight >= self.server.at_most:
            return None
        few = not (self.waiting or self.backlog())  # the last requests of a run: none of them tries one on trial
        member = min(free, key=lambda one: (few and one.failures >= FAILURES, one.limit.in_flight))
        member.limit.in_flight += 1
        return member

    def release(self, member: Member) -> None:
        member.limit.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        """Gives free slots to those who wait; looks again when a server that is left out comes back."""
        while self.waiting:
            if self.waiting[0].done():  # cancelled
                self.waiting.popleft()
            elif member := self.free_slot():
                self.waiting.popleft().set_result(member)
            else:
                break
        if self.waiting and self.timer is None:
            now = time.monotonic()
            if closed := [at for member in self.members if (at := member.opens_at()) > now]:
                self.timer = asyncio.get_running_loop().call_later(min(closed) - now, self._opened)

    def _opened(self) -> None:
        self.timer = None
        self._wake()

    async def check(self) -> None:
        """Raises BadInput unless all of several servers are there and have the model; asks once in a process."""
        server = self.server
        asked = (server.model, *server.addresses)
        if len(self.members) == 1 or asked in _checked:
            return
        found = await asyncio.gather(*(_of_one(member.connection) for member in self.members))
        if dead := [error for error in found if isinstance(error, BadInput)]:
            raise BadInput(f"{'; '.join(map(str, dead))}; or take it out of the list")
        models = {address: one for address, one in zip(server.addresses, found, strict=True) if isinstance(one, dict)}
        if without := [address for address, listed in models.items() if server.model not in listed]:
            lines = [f"{address} has {', '.join(listed)}" for address, listed in models.items()]
            cure = f"take {', '.join(without)} out of the list, or say the model that all have"
            raise BadInput(f"base_url: not every server has model {server.model!r}: {'; '.join(lines)}; {cure}")
        behind = {address: one for address, listed in models.items() if (one := listed[server.model])}
        if len(set(behind.values())) > 1:
            told = ", ".join(f"{address} serves {one}" for address, one in behind.items())
            raise BadInput(f"base_url: behind the name {server.model!r} are different models: {told}; take one out")
        _checked.add(asked)


async def _of_one(connection: Connection) -> dict[str, str] | None | BadInput:
    """Returns {model: what is behind the name, where the server says (vLLM's `root`)}; None of one without a list."""
    try:
        entries = await transport.listed(replace(connection, server=replace(connection.server, attempts=2)))
    except BadInput as error:
        return error
    return {str(one["id"]): PurePath(str(one.get("root") or "")).name for one in entries} or None


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Pool]:
    """Gives the servers of `server.addresses`, which it asks nothing; raises BadInput when the key is not set."""
    start = server.concurrency or START
    async with AsyncExitStack() as stack:
        members = []
        for address in server.addresses:
            one = replace(server, base_url=address, requests_per_minute=None, tokens_per_minute=None)
            connection = await stack.enter_async_context(transport.connect(one))
            members.append(Member(connection, Limit(server.at_most, start)))
        pool = Pool(server, members, await transport.limits_of(server))
        try:
            yield pool
        finally:
            if pool.timer:
                pool.timer.cancel()
