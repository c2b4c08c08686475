"""What stands before the server of a model (openai_api.py): the key first, then limits of size and time, then a queue.

No request decides what the server spends: a body is read only from who has the key, up to a size and in a time; a
request that nobody waits for any more is ended, also while it waits; half-sent ones are cut. All limits are ours.
"""

import asyncio
import hmac
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import orjson
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

COMPLETIONS = "/v1/chat/completions"
QUEUE = 32  # requests that are answered or wait; as many as an evaluation asks at once
BODY = 4 << 20  # bytes of a request
ARRIVING = 64 << 20  # bytes of all bodies that are being received
HEAD_SECONDS = 10.0  # from a connection, or the end of an answer, to the end of the next request's head
BODY_SECONDS = 30.0
READ_SECONDS = 60.0  # in which a client takes what it is sent
WHOLE_SECONDS = 1800.0  # for wait and answer together; as recipes/llm/vllm.yaml waits
CLOSE = {"Connection": "close"}  # what is still sent of a body is not read


class Refused(Exception):
    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.message, self.headers = status, message, headers or {}


def error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns an error as OpenAI's API has it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)


class Gate:
    """The ASGI application around another; `key` is what clients must send, for all but /health, "" for none."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.wanted = app, f"Bearer {key}".encode() if key else b""
        self.arriving = self.inside = 0
        self.left, self.seconds = time.monotonic(), 0.0  # of the last answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            with anyio.fail_after(READ_SECONDS):
                await send(message)

        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
            if body is not None:
                await self._answer(scope, body, receive, answer)
        except Refused as refused:
            if not started:
                await error(refused.status, refused.message, refused.headers)(scope, receive, send)
        except TimeoutError:
            pass  # a client that takes nothing: uvicorn closes what has no end

    def _check_key(self, scope: Scope) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self.wanted and scope["path"] != "/health" and not hmac.compare_digest(given, self.wanted):
            raise Refused(401, "this server asks for a key, and this is not it", CLOSE)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Returns the request's body, None where the client has gone; raises Refused for what is no JSON to answer."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > BODY:
            raise Refused(413, f"a request has {BODY >> 20} MiB at most", CLOSE)
        if scope["method"] != "POST":
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(BODY_SECONDS):
                while (message := await receive())["type"] == "http.request":
                    part = message.get("body", b"")
                    size, self.arriving = size + len(part), self.arriving + len(part)
                    parts.append(part)
                    if size > BODY:
                        raise Refused(413, f"a request has {BODY >> 20} MiB at most", CLOSE)
                    if self.arriving > ARRIVING:
                        raise Refused(503, "too much is being sent here at once", CLOSE | {"Retry-After": "5"})
                    if not message.get("more_body"):
                        break
                else:
                    return None
        except TimeoutError:
            raise Refused(408, f"the request did not come whole within {BODY_SECONDS:g} s", CLOSE) from None
        finally:
            self.arriving -= size
        try:
            orjson.loads(b"".join(parts))  # stricter than json: no half characters, NaN or endless nesting
        except orjson.JSONDecodeError as fault:
            raise Refused(400, f"body: not JSON in UTF-8: {fault}") from None
        return b"".join(parts)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        if scope["path"] != COMPLETIONS:
            return await self._while_waited_for(scope, body, receive, send)
        if self.inside >= QUEUE:
            told = (
                f"{QUEUE} requests are answered or wait here already, and this server gives one answer at a time: ask "
                "with fewer at once, or serve by vLLM (engine=vllm, bash launch/install.sh cpu vllm)"
            )
            raise Refused(503, told, {"Retry-After": str(math.ceil(max(1.0, self.seconds * QUEUE)))})
        begun = time.monotonic()
        self.inside += 1
        try:
            await self._while_waited_for(scope, body, receive, send)
        finally:
            self.inside -= 1
            self.seconds = time.monotonic() - max(begun, self.left)  # of the last one, without its wait
            self.left = time.monotonic()

    async def _while_waited_for(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Runs the application until its end, the client's, or that of its time."""
        unread, gone = [body], anyio.Event()

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            work.cancel()

        with anyio.move_on_after(WHOLE_SECONDS) as limit:
            async with _beside(watch):
                with anyio.CancelScope() as work:
                    await self.app(scope, replay, send)
        if limit.cancelled_caught:
            raise Refused(503, f"no answer within {WHOLE_SECONDS:g} s of wait and work", {"Retry-After": "60"})


@asynccontextmanager
async def _beside(what: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs `what` as a task until the block ends; exceptions of the block come out as they are, in no group."""
    task = asyncio.ensure_future(what())
    try:
        yield
    finally:
        task.cancel()


class Patient(H11Protocol):
    """HTTP of uvicorn, whose patience with a request's head has an end."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if not self._idle():
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._cut)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        self._late = None
        if self._idle():
            self.transport.abort()
