"""A model server as a scheduler sees one: so many slots, a latency, a queue behind them; down and busy when told to be.

python -m tests.slot_server --latency 0.1 --slots 8 --down 10:20 --busy 6:1     prints its address

Down from second 10 for 20 s: nobody listens, and connections are cut. Busy for 1 s every 6 s: each request gets a 429.
Seconds count from the first request. GET /v1/stats says what was asked; it ends with the process that started it.
"""

import argparse
import asyncio
import json
import os
import time
from collections import Counter, deque

HEAD = "HTTP/1.1 {} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Slots:
    """What all connections share."""

    def __init__(self, latency: float, slots: int, down: tuple[float, float], busy: tuple[float, float]) -> None:
        self.latency, self.slots, self.down, self.busy = latency, slots, down, busy
        self.begun = self.last = 0.0  # the first request, the last answer; monotonic
        self.queue: deque[Connection] = deque()
        self.answered, self.asked, self.refused, self.most = Counter[str](), 0, 0, 0
        self.open: set[Connection] = set()

    def is_busy(self) -> bool:
        every, long = self.busy
        return every > 0 and (time.monotonic() - self.begun) % every > every - long

    def serve(self, connection: "Connection", text: str) -> None:
        self.begun = self.begun or time.monotonic()
        self.asked += 1
        if self.is_busy():
            self.refused += 1
            connection.answer(429, {"error": {"message": "too many requests"}})
            return
        connection.text = text
        self.queue.append(connection)
        self.most = max(self.most, len(self.queue))
        self.fill()

    def fill(self) -> None:
        while self.slots and self.queue:
            self.slots -= 1
            asyncio.get_running_loop().call_later(self.latency, self.done, self.queue.popleft())

    def done(self, connection: "Connection") -> None:
        self.slots += 1
        self.last = time.monotonic()
        if connection in self.open:
            self.answered[connection.text] += 1
            message = {"role": "assistant", "content": f"reply to {connection.text}"}
            connection.answer(200, {
                "model": "tiny", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            })  # fmt: skip
        self.fill()


class Connection(asyncio.Protocol):
    """As little of HTTP as a client needs: the server shall not take the processor that is measured."""

    def __init__(self, shared: Slots) -> None:
        self.shared, self.data, self.text = shared, b"", ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.shared.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        if len(body) < length:
            return
        self.data = body[length:]
        if head.startswith(b"GET /v1/models"):
            self.answer(200, {"data": [{"id": "tiny"}]})
        elif head.startswith(b"GET /v1/stats"):
            s = self.shared
            twice = sum(count > 1 for count in s.answered.values())
            figures = {"asked": s.asked, "refused": s.refused, "answered": s.answered.total(), "longest_queue": s.most}
            figures |= {"begun": s.begun, "last": s.last}
            self.answer(200, {**figures, "twice": twice, "texts": sorted(s.answered)})
        else:
            self.shared.serve(self, json.loads(body[:length])["messages"][-1]["content"])

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.transport.write(HEAD.format(status, len(body)).encode() + body)


async def run(shared: Slots, port: int) -> None:
    loop = asyncio.get_running_loop()

    async def listen(port: int) -> asyncio.Server:
        return await loop.create_server(lambda: Connection(shared), "127.0.0.1", port, reuse_address=True)

    server = await listen(port)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    parent, first, long = os.getppid(), *shared.down
    while os.getppid() == parent:
        await asyncio.sleep(0.05)
        since = time.monotonic() - shared.begun if shared.begun else 0.0
        is_down = bool(long) and first <= since < first + long
        if is_down and server.is_serving():
            server.close()
            for connection in list(shared.open):
                connection.transport.abort()
        elif not is_down and not server.is_serving():
            server = await listen(port)


def pair(text: str) -> tuple[float, float]:
    first, _, second = text.partition(":")
    return float(first), float(second)


if __name__ == "__main__":
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--down", type=pair, default=(0, 0), help="FROM:LONG, seconds")
    parser.add_argument("--busy", type=pair, default=(0, 0), help="EVERY:LONG, seconds")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    try:
        asyncio.run(run(Slots(given.latency, given.slots, given.down, given.busy), given.port))
    except KeyboardInterrupt:
        pass
