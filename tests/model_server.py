"""A real HTTP server that answers as an OpenAI-compatible one, with the faults a test plans for it.

python -m tests.model_server --latency 0.05 --port 0     prints its address; ends with the process that started it

In a test: `with ModelServer(plan={"row 3": [Answer(status=500), Answer()]}) as server: ... server.url`. The plan's key
is the last message of a request; its answers are given one after the other, the last one from then on.
"""

import argparse
import asyncio
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web


def completion(text: str | None, finish: str | None = "stop", usage: tuple[int, int] = (10, 5), **message) -> dict:
    """Returns the body of a chat completion; `message` adds fields to its message, as `reasoning_content`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [choice],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


@dataclass
class Answer:
    body: dict | bytes | None = None  # None: a completion "reply to <last message>"
    status: int = 200
    headers: dict = field(default_factory=dict)
    wait: float = 0.0  # seconds before it answers, beside the server's latency
    drop: bool = False  # half of the body, then the connection is cut
    echo: bool = False  # the request's headers in the body, as a careless server shows them


@dataclass
class Call:
    text: str  # last message
    body: dict
    headers: dict
    at: float  # time.monotonic()


class Plan(Protocol):
    """A dictionary of answers by last message, or what looks like one."""

    def get(self, text: str, usual: list[Answer], /) -> list[Answer]: ...


class ModelServer:
    """Runs in a thread of this process between `with` and its end; `url`, `calls` and `most_in_flight` are to read."""

    def __init__(self, latency: float = 0.0, plan: Plan | None = None, port: int = 0) -> None:
        self.latency, self.plan, self.port = latency, plan or {}, port
        self.url = ""
        self.calls: list[Call] = []
        self.routes: list[web.RouteDef] = []  # further ones
        self.in_flight = self.most_in_flight = 0

    def counts(self) -> Counter:
        """Returns how often each last message was asked."""
        return Counter(call.text for call in self.calls)

    def __enter__(self) -> "ModelServer":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10), "the server does not start"
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        self._loop.run_until_complete(self.listen())
        self._loop.call_soon(started.set)
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}  # answers to clients that hung up
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def listen(self) -> None:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_routes(self.routes)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = json.loads(await request.read())
            text = body["messages"][-1]["content"]
            self.calls.append(Call(text, body, dict(request.headers), time.monotonic()))
            planned = self.plan.get(text, [Answer()])
            answer = planned.pop(0) if len(planned) > 1 else planned[0]
            await asyncio.sleep(self.latency + answer.wait)
            content = completion(f"reply to {text}") if answer.body is None else answer.body
            if answer.echo:
                content = {"error": {"message": f"not with these headers: {dict(request.headers)}"}}
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            if answer.drop:
                return await self._cut(request, content)
            return web.Response(
                body=content, status=answer.status, headers=answer.headers, content_type="application/json"
            )
        finally:
            self.in_flight -= 1

    async def _cut(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        if content:
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
        if request.transport is not None:  # the client may have left
            request.transport.abort()
        return response


async def serve(latency: float, port: int) -> None:
    server = ModelServer(latency, port=port)
    await server.listen()
    print(server.url, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.latency, arguments.port))
    except KeyboardInterrupt:
        pass
