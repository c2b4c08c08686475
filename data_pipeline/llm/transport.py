"""Asks an OpenAI-compatible server one request until it is answered.

Every fault on the way is retried, then becomes a response with finish "failed". Only what no other request would
survive either is raised: a refused key, an unknown model, an empty account, an address where no server is.
"""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server, api_key, is_loopback
from data_pipeline.records import Response

# Soon at first, for most faults pass at once, then doubled: eight attempts wait 13 s together. Ours
_WAITS = {"wait_initial": 0.1, "wait_max": 60, "wait_jitter": 0.2}
_LONGEST_WAIT = 600.0  # seconds; a server that asks for more (a daily quota) is not waited for
_SHOWN = 300  # characters of a server's message in an error
_USELESS = (401, 402, 403, 404)  # key, account, permission, model or path: every other request would get it as well
_BROKEN_OFF = ("abort", "error", "insufficient_system_resource")  # finish reasons of completions that are no result
_LONE = re.compile("[\ud800-\udfff]")


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
        return text.replace(self.key, "***") if self.key else text


@dataclass
class Outcome:
    response: Response
    attempts: int
    latency: float  # seconds of the last attempt
    cost: float | None  # of all attempts
    refused: bool  # the server will not take this request, whoever asks


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Connection]:
    """Gives the connection; raises BadInput when the key's variable is not set. Asks the server nothing."""
    import aiolimiter
    import openai
    import stamina

    key = api_key(server)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line per request under Hydra's logging
    stamina.instrumentation.set_on_retry_hooks([])  # else a line per retry; the ledger counts them
    # A proxy of the environment stands between here and the world, never between here and this machine.
    transport = openai.DefaultAioHttpClient(trust_env=not is_loopback(server))
    rates = [(server.requests_per_minute, False), (server.tokens_per_minute, True)]
    limits = [(aiolimiter.AsyncLimiter(rate, 60), tokens) for rate, tokens in rates if rate]
    for limiter, _ in limits:
        await limiter.acquire(limiter.max_rate)  # full: with an empty one the first minute has twice the rate
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key=key or "none", max_retries=0, timeout=None, http_client=transport
    ) as client:
        yield Connection(server, client, key, limits)


class _Failed(Exception):
    """One attempt came to nothing. `after`: seconds that the server asks to wait, else we choose."""

    def __init__(self, response: Response | str, again: bool = True, after: float | None = None, why: str = "") -> None:
        self.response = Response("", "failed", 0, error=response) if isinstance(response, str) else response
        self.again, self.after, self.why = again, after, why  # why: "refused", "nowhere" or ""


def _pause(error: Exception) -> bool | float:
    if not isinstance(error, _Failed) or not error.again:
        return False
    return True if error.after is None else error.after


async def ask(connection: Connection, body: dict) -> Outcome:
    """Returns what became of one request; raises BadInput when no other request would fare better."""
    import stamina

    server, spent, refused = connection.server, [0, 0], False
    try:
        async for attempt in stamina.retry_context(on=_pause, attempts=server.attempts, timeout=None, **_WAITS):
            with attempt:
                await _turn(connection, body)
                begun = time.monotonic()
                response, again = _read(await _post(connection, body), connection)
                spent = [spent[0] + response.prompt_tokens, spent[1] + response.tokens]
                if again:
                    raise _Failed(response)
    except _Failed as failure:
        if failure.why == "nowhere" and not connection.reached:
            raise BadInput(f"{failure.response.error}; correct base_url or start the server") from None
        response, refused = failure.response, failure.why == "refused"
    return Outcome(response, attempt.num, time.monotonic() - begun, server.cost(*spent), refused)


def count_tokens(body: dict) -> tuple[int, int]:
    """Returns about how many tokens a prompt has (its bytes / 4), and how many its reply may have (0: not said)."""
    prompt = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace")) // 4
    return prompt, body.get("max_tokens") or body.get("max_completion_tokens") or 0


async def _turn(connection: Connection, body: dict) -> None:
    for limiter, tokens in connection.limits:
        weight = 1
        if tokens:
            weight = sum(count_tokens(body))
        await limiter.acquire(min(weight, limiter.max_rate))
    while (left := connection.closed_until - time.monotonic()) > 0:
        await asyncio.sleep(left)


async def _post(connection: Connection, body: dict) -> str:
    import aiohttp
    import openai

    try:
        async with asyncio.timeout(connection.server.timeout_s):
            # The text of the answer: openai would build typed objects, in twice the time, of what we check ourselves.
            text = await connection.client.post("/chat/completions", cast_to=str, body=body)
    except openai.APIStatusError as error:
        connection.reached = True
        raise _refusal(connection, error) from None
    except UnicodeEncodeError:
        error = "the messages hold half a character (a lone surrogate); read their source with its true encoding"
        raise _Failed(error, again=False) from None
    except TimeoutError:
        raise _Failed(f"no answer within {connection.server.timeout_s:g} s") from None
    except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__:
            causes.append(causes[-1].__cause__)
        told = connection.hide(f"{type(causes[-1]).__name__}: {causes[-1]}")[:_SHOWN]
        if any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes) and not connection.reached:
            raise _Failed(f"no server at {connection.server.base_url}: {told}", why="nowhere") from None
        raise _Failed(f"connection lost: {told}") from None
    connection.reached = True
    return text


def _refusal(connection: Connection, error: Any) -> Exception:
    server, status = connection.server, error.status_code
    told = f"HTTP {status}: {connection.hide(error.response.text)[:_SHOWN]}"
    if status in _USELESS or error.code == "insufficient_quota":
        key = f"the key in {server.api_key_env}" if connection.key else "no key (api_key_env)"
        return BadInput(f"{server.base_url} refuses model {server.model!r} with {key}; correct one of them: {told}")
    if status < 500 and status not in (408, 409, 425, 429):
        return _Failed(told, again=False, why="refused")
    after = _retry_after(error.response.headers.get("retry-after"))
    if after is not None and after > _LONGEST_WAIT:
        return _Failed(f"to be asked again after {after:.0f} s, which is too long; {told}", again=False)
    connection.closed_until = max(connection.closed_until, time.monotonic() + (after or 0))
    return _Failed(told, after=after)


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


def _read(content: str, connection: Connection) -> tuple[Response, bool]:
    """Returns the response, and whether the server is to be asked again because there is none in `content`."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        if not content.strip():
            return Response("", "failed", 0, error="empty body"), True
        shown = connection.hide(content)[-_SHOWN:]
        return Response("", "failed", 0, error=f"broken JSON, {len(content)} characters, its end: {shown}"), True
    usage = _dict(_dict(data).get("usage"))
    tokens, prompt_tokens = _count(usage.get("completion_tokens")), _count(usage.get("prompt_tokens"))
    choices = _dict(data).get("choices")
    if not isinstance(choices, list) or not choices:
        return Response(
            "", "failed", tokens, "", prompt_tokens, f"no choices: {connection.hide(content)[:_SHOWN]}"
        ), True
    message = _dict(_dict(choices[0]).get("message"))
    text = _clean(connection, message.get("content"))
    thought = _clean(connection, message.get("reasoning_content") or message.get("reasoning"))
    finish = _clean(connection, _dict(choices[0]).get("finish_reason")) or "unknown"
    if finish in _BROKEN_OFF:
        return Response("", "failed", tokens, thought, prompt_tokens, f"broken off by the server: {finish}"), True
    # Nothing but thoughts up to max_tokens is a result: asked again it would cost the same and end the same.
    if not text.strip() and finish != "length":
        response = Response("", "failed", tokens, thought, prompt_tokens, f"empty content, finish {finish}")
        return response, finish != "content_filter"
    return Response(text, finish, tokens, thought, prompt_tokens), False


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0  # what sqlite can add up


def _clean(connection: Connection, text: object) -> str:
    """Returns a server's text as valid Unicode: a pair of surrogates becomes its character, half a one U+FFFD."""
    text = text if isinstance(text, str) else ""
    if _LONE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return connection.hide(text) if len(connection.key) >= 8 else text  # a shorter one is no secret, but may be a word
