"""Requests that try to make a model's server spend what it has: each by itself, over a bare socket where need be.

python -m tests.trust.attacks http://127.0.0.1:PORT/v1 NAME     prints what each took, and how honest clients fared
"""

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai

TEMPLATE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x"


@dataclass
class Target:
    address: str  # .../v1
    name: str
    key: str = "none"
    slowest: float = 0.0  # seconds of /health so far
    unheard: int = 0  # times that it did not answer
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.address)
        return parts.hostname or "", parts.port or 0

    def post(self, body: bytes, path: str = "/v1/chat/completions", timeout: float = 60) -> tuple[int, bytes]:
        """Returns (status, content), 0 for a connection that was closed while the body was sent."""
        connection = http.client.HTTPConnection(*self.place, timeout=timeout)
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            connection.request("POST", path, body, head)
        except OSError:
            pass  # refused by its length alone: the answer may stand there all the same
        try:
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def ask(self, text: str = "什么是记忆？", **words: Any) -> tuple[int, bytes]:
        body = {"model": self.name, "max_tokens": 4, "messages": [{"role": "user", "content": text}], **words}
        return self.post(json.dumps(body).encode())

    def honest(self) -> float:
        """Returns the seconds of an honest answer."""
        begun = time.monotonic()
        with openai.OpenAI(base_url=self.address, api_key=self.key, max_retries=2, timeout=60) as client:
            message: Any = [{"role": "user", "content": "你好"}]
            assert client.chat.completions.create(model=self.name, messages=message, max_tokens=4).choices
        return time.monotonic() - begun

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Asks /health ten times a second while the block lasts."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                begun = time.monotonic()
                connection = http.client.HTTPConnection(*self.place, timeout=20)
                try:
                    connection.request("GET", "/health")
                    self.unheard += connection.getresponse().status != 200
                except (OSError, http.client.HTTPException):
                    self.unheard += 1
                finally:
                    connection.close()
                self.slowest = max(self.slowest, time.monotonic() - begun)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def large_body(target: Target) -> object:
    return target.post(b'{"model": "' + b"a" * (400 << 20) + b'"}')[0]


def large_body_in_chunks(target: Target) -> object:
    """400 MB without a length, as fast as they are taken; returns what the server said before it closed."""
    with socket.create_connection(target.place, timeout=60) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b"a" * (1 << 20) + b"\r\n"
        try:
            for _ in range(400):
                connection.sendall(piece)
        except OSError:
            pass
        try:
            return connection.recv(100).split(b"\r\n")[0].decode()
        except OSError:
            return "closed"


def long_prompt(target: Target) -> object:
    return target.ask("长" * (10 << 20))[0], target.ask("a" * (1 << 20))[0]


def template(target: Target) -> object:
    kwargs = {"chat_template": TEMPLATE}
    return target.ask(chat_template_kwargs=kwargs)[0], target.ask(chat_template_kwargs={"a": {"b": 1}})[0]


def deep(target: Target) -> object:
    return target.post(b"[" * 200_000)[0], target.post(b'{"messages":' * 100_000)[0]


def half_characters(target: Target) -> object:
    return target.post(b'{"model": "x", "messages": [{"role": "user", "content": "\\ud800"}]}')[0]


def half_sent(target: Target, count: int = 300) -> object:
    """Half a head each; returns how many the server has cut by itself in the end."""
    sockets = [socket.create_connection(target.place, timeout=40) for _ in range(count)]
    for number, connection in enumerate(sockets):
        body = b"Content-Length: 100\r\nContent-Type: application/json\r\n\r\n{" if number % 3 == 0 else b"X: "
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n"
        connection.sendall(head.encode() + body)
    target.told["an honest answer while 300 half-sent requests wait"] = round(target.honest(), 2)
    cut = 0
    for connection in sockets:
        try:
            connection.settimeout(45)
            while connection.recv(1000):
                pass
            cut += 1
        except OSError as error:
            cut += isinstance(error, ConnectionResetError)
        connection.close()
    return cut


def hanging_up(target: Target, count: int = 64) -> object:
    """So many clients ask for long answers, half of them as streams, and go."""
    asked = {"model": target.name, "max_tokens": 900, "messages": [{"role": "user", "content": "说"}]}
    sockets = []
    for number in range(count):
        body = json.dumps({**asked, "stream": number % 2 == 0}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n"
        connection = socket.create_connection(target.place, timeout=20)
        connection.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        sockets.append(connection)
    time.sleep(1)
    for connection in sockets:
        connection.close()
    return count


ATTACKS: dict[str, Callable[[Target], object]] = {
    "400 MB": large_body,
    "400 MB in chunks": large_body_in_chunks,
    "10 MB of prompt": long_prompt,
    "a template": template,
    "nested JSON": deep,
    "half characters": half_characters,
    "300 half-sent requests": half_sent,
    "64 clients that hang up": hanging_up,
}


def all_of_them(target: Target) -> dict[str, tuple[object, float, float]]:
    """Returns {attack: (what came back, its seconds, seconds of the honest answer after it)}."""
    found = {}
    with target.watched():
        for name, attack in ATTACKS.items():
            begun = time.monotonic()
            came = attack(target)
            took = time.monotonic() - begun
            found[name] = came, took, target.honest()
    return found


if __name__ == "__main__":
    target = Target(sys.argv[1], sys.argv[2])
    for name, (came, took, after) in all_of_them(target).items():
        print(f"{name}: {came} in {took:.1f} s; the next honest answer in {after:.2f} s")
    print(f"/health: {target.slowest:.3f} s at most, {target.unheard} times silent; {target.told}")
