"""Takes requests to the servers: as slots become free, leased in the ledger, so that of several processes one asks.

A process leases what it is about to ask, few requests ahead, and another one may take all the rest. Who finds a call
leased by another waits for its reply, or takes it over when that process has ended.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from data_pipeline.llm import balancer
from data_pipeline.llm import ledger as ledgers
from data_pipeline.llm.balancer import Member, Pool
from data_pipeline.llm.budget import BudgetSpent, BudgetTracker
from data_pipeline.llm.calls import Call
from data_pipeline.llm.completions import request_body
from data_pipeline.llm.ledger import Ledger
from data_pipeline.llm.served import Served
from data_pipeline.llm.server import Server
from data_pipeline.llm.transport import Outcome, ask, pass_limits
from data_pipeline.records import Request, Response

_FEW = 4  # requests that are leased ahead at least; no more under limits per minute; ours
_CANDIDATES = 64  # requests that are looked at where others ask too; ours
_LOOK = 0.2  # seconds between two looks at what others ask; ours


class Answer(NamedTuple):
    response: Response
    cost: float | None  # None when nothing was paid here
    refused: bool = False  # the server will not take this request, whoever asks


@dataclass
class _Item:
    key: str
    request: Request
    future: "asyncio.Future[Answer]"


@dataclass
class Dispatcher:
    """What waits to be asked, what is being asked here, and what others ask."""

    server: Server
    ledger: Ledger
    pool: Pool
    tracker: BudgetTracker
    served: Served
    queue: deque[_Item] = field(default_factory=deque)
    leasing: list[_Item] = field(default_factory=list)
    ready: deque[_Item] = field(default_factory=deque)  # leased, and waiting for a slot
    others: dict[str, _Item] = field(default_factory=dict)
    asking: set[asyncio.Task] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    sendable: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # waited for answers, by step
    paid: float = 0.0
    ended: BaseException | None = None

    async def ask(self, key: str, request: Request) -> Answer:
        """Returns the answer; raises BudgetSpent where the request does not fit into what is left of the budget,
        BadInput where no other would fare better, and what the ledger raises.
        """
        if self.ended:
            raise self.ended
        item = _Item(key, request, asyncio.get_running_loop().create_future())
        self.queue.append(item)
        self.woken.set()
        return await item.future

    async def run(self) -> None:
        """Asks what comes into the queue, until it is cancelled; what ends it ends all who wait."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lease())
                group.create_task(self._send())
                group.create_task(self._watch())
        except BaseException as error:
            self.ended = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            for task in self.asking:
                task.cancel()
            await asyncio.gather(*self.asking, return_exceptions=True)
            for item in (*self.queue, *self.leasing, *self.ready, *self.others.values()):
                self._fail(item, self.ended)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _lease(self) -> None:
        """Keeps some requests leased: when a slot is free one is sent at once, and not when a commit has ended."""
        while True:
            await self._next()
            await self.pool.check()
            room = (_FEW if self.pool.limits else max(_FEW, self.pool.in_flight)) - len(self.ready)
            if room <= 0:
                await self._woken()
                continue
            # Where others ask too, more than there is room for: what they have done or are doing is found out at once
            wanted = room if not self.others else max(room, _CANDIDATES)
            items = []
            while self.queue and len(items) < wanted and self._afford(self.queue[0]):
                items.append(self.queue.popleft())
            self.leasing = items
            states = await self.ledger.lease([item.key for item in items], room) if items else {}
            self.leasing = []
            self.queue.extendleft(item for item in reversed(items) if item.key not in states)
            for item in items:
                state = states.get(item.key)
                if state is True:
                    self.ready.append(item)
                    self.sendable.set()
                    continue
                self.tracker.settle(self._price(item), None)
                if state is False:
                    self.others[item.key] = item
                elif state is not None:
                    self._answer(item, Answer(state, None))

    async def _send(self) -> None:
        """Sends what is leased as slots become free. A server's slot is free with its answer, before that is written;
        in flight and waiting to be written are no more than may be asked at once, for these are what a kill costs.
        """
        while True:
            while not self.ready or len(self.asking) >= self.server.at_most:
                self.sendable.clear()
                await self.sendable.wait()
            if self.pool.limits:
                await pass_limits(self.pool.limits, request_body(self.server, self.ready[0].request))
            member = await self.pool.slot()
            task = asyncio.create_task(self._call(self.ready.popleft(), member))
            self.asking.add(task)
            task.add_done_callback(self._done)
            self.woken.set()

    async def _woken(self) -> None:
        self.woken.clear()
        await self.woken.wait()

    async def _next(self) -> None:
        """Returns once there is a request in the queue that may be paid for."""
        while True:
            if self.queue and self.tracker.fits(self._price(self.queue[0])):
                return
            if not self.asking and not self.ready:  # else a request in flight may yet cost less than it holds back
                while self.queue:
                    self._fail(self.queue.popleft(), BudgetSpent())
            await self._woken()

    def _price(self, item: _Item) -> float:
        return self.tracker.price(request_body(self.server, item.request)) if self.tracker.budget else 0.0

    def _afford(self, item: _Item) -> bool:
        price = self._price(item)
        if not self.tracker.fits(price):
            return False
        self.tracker.reserved += price
        return True

    async def _call(self, item: _Item, member: Member) -> None:
        recorded = False
        try:
            outcome = await ask(self.pool, request_body(self.server, item.request), self.pool.using(member))
            self.tracker.settle(self._price(item), outcome.cost)
            self.seconds[item.request.step] += outcome.latency
            self.paid += outcome.cost or 0.0
            recorded = True  # or kept to be, when the ledger is closed
            await self.ledger.record(call_of(item.key, self.server, item.request, outcome))
            self.served.tell(outcome.served)
            self._answer(item, Answer(outcome.response, outcome.cost, outcome.refused))
        except BaseException as error:
            if not recorded:
                self.ledger.drop(item.key)
            self._fail(item, error)
            if isinstance(error, asyncio.CancelledError):
                raise

    def _done(self, task: asyncio.Task) -> None:
        self.asking.discard(task)
        self.woken.set()
        self.sendable.set()

    async def _watch(self) -> None:
        """Looks at what others ask, and renews the leases of what is asked here."""
        renewed = 0.0
        while True:
            await asyncio.sleep(_LOOK)
            renewed += _LOOK
            if (self.asking or self.ready) and renewed >= ledgers.LEASE / 3:
                await self.ledger.renew()
                renewed = 0.0
            if not self.others:
                continue
            for key, state in (await self.ledger.look(list(self.others))).items():
                if state is True:
                    self.queue.appendleft(self.others.pop(key))
                elif state is not False:
                    self._answer(self.others.pop(key), Answer(state, None))
            self.woken.set()

    def _answer(self, item: _Item, answer: Answer) -> None:
        if not item.future.done():
            item.future.set_result(answer)

    def _fail(self, item: _Item, error: BaseException) -> None:
        if item.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            item.future.cancel()
        else:
            item.future.set_exception(error)


@asynccontextmanager
async def dispatching(server: Server, ledger: Ledger, tracker: BudgetTracker) -> AsyncIterator[Dispatcher]:
    """Gives the dispatcher to one server, or several; at the end what is still asked is ended."""
    served = Served(server, ledger)
    async with balancer.connect(server) as pool:
        dispatcher = Dispatcher(server, ledger, pool, tracker, served)
        pool.backlog = lambda: bool(dispatcher.ready or dispatcher.queue)
        running = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def call_of(key: str, server: Server, request: Request, outcome: Outcome) -> Call:
    """Returns what the ledger keeps of a request and what became of it."""
    response = outcome.response
    return Call(
        key=key,
        step=_storable(request.step),
        row=_storable(request.row),
        sample=request.sample,
        model=server.model,
        base_url=outcome.address,
        finish=response.finish,
        text=response.text,
        reasoning=response.reasoning,
        error=_storable(response.error),
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.tokens,
        cost=outcome.cost,
        latency=round(outcome.latency, 4),
        attempts=outcome.attempts,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        served=_storable(outcome.served),
    )


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # no database takes lone surrogates
