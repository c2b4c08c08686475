"""Asks an OpenAI-compatible server, or one of several, a request until it is answered, whole or piece by piece.

Every fault on the way is retried, then becomes a response with finish "failed"; an answer that has begun to arrive is
not asked again. Only what no other request would survive either is raised: a refused key, an unknown model, an empty
account, an address where no server is.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

from data_pipeline.errors import BadInput
from data_pipeline.llm.completions import SHOWN, Arriving, Delta, count_tokens, hide, read_reply, served_model
from data_pipeline.llm.server import Server, api_key, is_loopback
from data_pipeline.records import REFUSED, Response

# Soon at first, for most faults pass at once, then doubled: eight attempts wait 13 s together. Ours
_WAITS = {"wait_initial": 0.1, "wait_max": 60, "wait_jitter": 0.2}
_LONGEST_WAIT = 600.0  # seconds; a server that asks for more (a daily quota) is not waited for
_CONNECT = 10.0  # seconds; ours
_REFUSES_US = (401, 402, 403)  # key, account, permission
_BUSY = (429, 503, 529)  # too many requests at once
_USELESS = (*_REFUSES_US, 404)  # and model or path: every other request would get it as well
_FILTERED = ("content_filter", "content_policy_violation", "data_inspection_failed")  # Azure, OpenAI, DashScope

Got = TypeVar("Got")


@dataclass
class Connection:
    """An open connection to a server."""

    server: Server
    client: Any  # openai.AsyncOpenAI
    key: str = field(repr=False)
    limits: list[tuple[Any, bool]]  # (aiolimiter.AsyncLimiter, whether it counts tokens)
    closed_until: float = 0.0  # time.monotonic(): the server asked all of us to wait
    reached: bool = False  # some HTTP answer has come

    def hide(self, text: str) -> str:
        return hide(text, self.key)

    @asynccontextmanager
    async def turn(self, body: dict) -> AsyncIterator["Connection"]:
        """Gives itself when its limits per minute, and the server, let the request through."""
        await pass_limits(self.limits, body)
        while (left := self.closed_until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        yield self


class Line(Protocol):
    """Whom a request is asked: a connection, or several that share the work (balancer.py). A turn is one attempt."""

    @property
    def server(self) -> Server: ...

    @property
    def reached(self) -> bool: ...

    def turn(self, body: dict) -> AbstractAsyncContextManager[Connection]: ...


@dataclass
class Outcome:
    response: Response
    attempts: int
    latency: float  # seconds of the last attempt
    cost: float | None  # of all attempts
    refused: bool  # the server will not take this request, whoever asks
    served: str = ""  # the model that answered, as the server names it
    address: str = ""  # of the last server that was asked


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Connection]:
    """Gives the connection to a server with one address; raises BadInput when its key's variable is not set. Asks the
    server nothing.
    """
    import openai
    import stamina

    key = api_key(server)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line per request under Hydra's logging
    stamina.instrumentation.set_on_retry_hooks([])  # else a line per retry; the ledger counts them
    # A proxy of the environment stands between here and the world, never between here and this machine.
    transport = openai.DefaultAioHttpClient(trust_env=not is_loopback(server))
    limits = await limits_of(server)
    patience = openai.Timeout(None, connect=_CONNECT)
    async with openai.AsyncOpenAI(
        base_url=str(server.base_url), api_key=key or "none", max_retries=0, timeout=patience, http_client=transport
    ) as client:
        yield Connection(server, client, key, limits)


async def limits_of(server: Server) -> list[tuple[Any, bool]]:
    """Returns the limits per minute, as `Connection.limits`."""
    import aiolimiter

    rates = [(server.requests_per_minute, False), (server.tokens_per_minute, True)]
    limits = [(aiolimiter.AsyncLimiter(rate, 60), tokens) for rate, tokens in rates if rate]
    for limiter, _ in limits:
        await limiter.acquire(limiter.max_rate)  # full: with an empty one the first minute has twice the rate
    return limits


async def pass_limits(limits: list[tuple[Any, bool]], body: dict) -> None:
    """Returns when the limits per minute let the request through."""
    for limiter, tokens in limits:
        weight = sum(count_tokens(body)) if tokens else 1
        await limiter.acquire(min(weight, limiter.max_rate))


async def ask(line: Line, body: dict, first: AbstractAsyncContextManager[Connection] | None = None) -> Outcome:
    """Returns what became of one request; raises BadInput when no other request would fare better. `first` is a turn
    that it has already.
    """
    tries, spent, refused = _Tries(), [0, 0], False
    turns = [first] if first else []

    async def once() -> Response:
        async with turns.pop() if turns else line.turn(body) as connection:
            tries.begun, tries.address = time.monotonic(), str(connection.server.base_url)
            with _faults(connection):
                async with asyncio.timeout(connection.server.timeout_s):
                    # Its text: openai would build typed objects, in twice the time, of what we check ourselves.
                    content = await connection.client.post("/chat/completions", cast_to=str, body=body)
            response, again = read_reply(content, connection.key)
            tries.served = served_model(content)
            spent[0] += response.prompt_tokens
            spent[1] += response.tokens
            if again:
                raise Failed(response)
            return response

    try:
        response = await _persist(line, once, tries)
    except Failed as failure:
        response, refused = failure.response, failure.why == "refused"
        response.passing = failure.again or failure.why == "later"
    latency = time.monotonic() - tries.begun
    cost = line.server.cost(*spent)
    return Outcome(response, tries.number, latency, cost, refused, tries.served, tries.address)


async def stream(connection: Connection, body: dict) -> AsyncGenerator[Delta | Response, None]:
    """Yields an answer's text and reasoning as they come, and at last the Response of the whole, as `ask` gives it.

    A fault before the first piece is retried as `ask` does; a later one ends the answer with finish "failed", and its
    text is what has come. `timeout_s` is the longest silence. `tokens` are 0 unless the server counts them unasked;
    body["stream_options"] = {"include_usage": True} asks it to. Closing it hangs up. Raises BadInput as `ask`.
    """

    async def once() -> tuple[AsyncGenerator[Delta | Response, None], Delta | Response]:
        async with connection.turn(body):
            events = _events(connection, body)
            return events, await anext(events)

    try:
        events, first = await _persist(connection, once, _Tries())
    except Failed as failure:
        yield failure.response
        return
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


async def models(connection: Connection) -> list[str]:
    """Returns the names of the models that the server lists, [] where it has no list; raises BadInput as `listed`."""
    return [str(entry["id"]) for entry in await listed(connection)]


async def listed(connection: Connection) -> list[dict]:
    """Returns what the server lists of its models, at least the "id" of each; [] where it has no list.

    Raises BadInput where no server is, where the server refuses the key, or where it is no OpenAI-compatible one.
    """

    async def once() -> str:
        with _faults(connection, listing=True):
            async with asyncio.timeout(connection.server.timeout_s):
                return await connection.client.get("/models", cast_to=str)

    try:
        entries = json.loads(await _persist(connection, once, _Tries()))["data"]
        return [{**entry, "id": entry["id"]} for entry in entries]
    except Failed as failure:
        if connection.reached:  # some servers have no such list
            return []
        raise BadInput(f"{failure.response.error}; correct base_url or start the server") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            f"{connection.server.base_url}: something answers there, but no OpenAI-compatible server"
        ) from None


class Failed(Exception):
    """One attempt came to nothing. `after`: seconds that the server asks to wait, else we choose."""

    def __init__(self, response: Response | str, again: bool = True, after: float | None = None, why: str = "") -> None:
        self.response = Response("", "failed", 0, error=response) if isinstance(response, str) else response
        self.again, self.after, self.why = again, after, why  # why: "refused", "later", "busy", "nowhere" or ""


@dataclass
class _Tries:
    number: int = 0
    begun: float = field(default_factory=time.monotonic)  # of the last one
    served: str = ""
    address: str = ""


async def _persist(line: Line, once: Callable[[], Awaitable[Got]], tries: _Tries) -> Got:
    """Returns what `once` gives at last; raises the Failed of its last attempt, or BadInput where no server is."""
    import stamina

    attempts = line.server.attempts
    try:
        async for attempt in stamina.retry_context(on=_pause, attempts=attempts, timeout=None, **_WAITS):
            with attempt:
                tries.number = attempt.num
                return await once()
    except Failed as failure:
        if failure.why == "nowhere" and not line.reached:
            raise BadInput(f"{failure.response.error}; correct base_url or start the server") from None
        raise
    raise AssertionError("stamina gives an attempt, or raises what the last one raised")


def _pause(error: Exception) -> bool | float:
    if not isinstance(error, Failed) or not error.again:
        return False
    return True if error.after is None else error.after


async def _events(connection: Connection, body: dict) -> AsyncGenerator[Delta | Response, None]:
    """Yields as `stream`, of one attempt; raises Failed where nothing has come yet."""
    import openai

    answer, client, silence = Arriving(connection.key), connection.client, connection.server.timeout_s
    begun = False
    try:
        with _faults(connection):
            async with asyncio.timeout(silence):
                chunks = await client.post(
                    "/chat/completions",
                    cast_to=object,
                    body={**body, "stream": True},
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
            connection.reached = True
            async with chunks:
                while True:
                    try:
                        async with asyncio.timeout(silence):
                            chunk = await anext(chunks)
                    except StopAsyncIteration:
                        break
                    for delta in answer.take(chunk):
                        begun = True
                        yield delta
        response, again = answer.response()
        failure = Failed(response) if again else None
    except Failed as error:
        failure, response = error, answer.broken(error.response.error)
    for delta in answer.rest():
        begun = True
        yield delta
    if failure and not begun:
        raise failure
    yield response


@contextmanager
def _faults(connection: Connection, listing: bool = False) -> Iterator[None]:
    """Raises Failed or BadInput for what goes wrong between here and the server's answer."""
    import aiohttp
    import openai

    try:
        yield
        connection.reached = True
    except openai.APIStatusError as error:
        connection.reached = True
        raise _refusal(connection, error, listing) from None
    except UnicodeEncodeError:
        error = "the messages hold half a character (a lone surrogate); read their source with its true encoding"
        raise Failed(error, again=False) from None
    except TimeoutError:
        raise Failed(f"no answer within {connection.server.timeout_s:g} s") from None
    except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__:
            causes.append(causes[-1].__cause__)
        told = connection.hide(f"{type(causes[-1]).__name__}: {causes[-1]}")[:SHOWN]
        nowhere = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError
        if any(isinstance(cause, nowhere) for cause in causes) and not connection.reached:
            raise Failed(f"no server at {connection.server.base_url}: {told}", why="nowhere") from None
        raise Failed(f"connection lost: {told}") from None
    except openai.APIError as error:  # in the middle of a stream
        raise Failed(f"broken off by the server: {connection.hide(error.message)[:SHOWN]}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        told = connection.hide(f"{type(error).__name__}: {error}")[:SHOWN]
        raise Failed(f"a piece that cannot be read: {told}") from None


def _refusal(connection: Connection, error: Any, listing: bool) -> Exception:
    server, status = connection.server, error.status_code
    told = f"HTTP {status}: {connection.hide(error.response.text)[:SHOWN]}"
    if status in (_REFUSES_US if listing else _USELESS) or error.code == "insufficient_quota":
        key = f"the key in {server.api_key_env}" if connection.key else "no key (api_key_env)"
        what = f"{key}; correct it" if listing else f"model {server.model!r} with {key}; correct one of them"
        return BadInput(f"{server.base_url} refuses {what}: {told}")
    if status == 400 and error.code in _FILTERED:
        return Failed(Response("", REFUSED, 0, error=told), again=False)  # what it was asked, not how: never answered
    if status < 500 and status not in (408, 409, 425, 429):
        return Failed(told, again=False, why="refused")
    after = _retry_after(error.response.headers.get("retry-after"))
    if after is not None and after > _LONGEST_WAIT:
        return Failed(f"to be asked again after {after:.0f} s, which is too long; {told}", again=False, why="later")
    connection.closed_until = max(connection.closed_until, time.monotonic() + (after or 0))
    return Failed(told, after=after, why="busy" if status in _BUSY else "")


def _retry_after(value: str | None) -> float | None:
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)
