"""A model behind an OpenAI-compatible server (vLLM, `python -m launch.serve`, an API), for who talks to it in turns."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from data_pipeline.errors import BadInput
from data_pipeline.llm import transport
from data_pipeline.llm.completions import request_body
from data_pipeline.llm.server import Server
from data_pipeline.records import Request
from launch.models.reasoning import Pieces, Sampling, Stream, thought_and_reply


@dataclass
class Remote:
    """A server that answers; `models`: what it says it serves, [] when it does not say. For one thread."""

    connection: transport.Connection
    models: list[str]
    loop: asyncio.Runner  # runs while something is awaited of the server, and ends that on Ctrl-C

    @property
    def server(self) -> Server:
        return self.connection.server


@contextlib.contextmanager
def connect(server: Server) -> Iterator[Remote]:
    """Gives the connection to a server that answers; raises BadInput when none does, or when it refuses the key."""
    with asyncio.Runner() as loop:
        opened = transport.connect(server)
        connection = loop.run(opened.__aenter__())
        try:
            yield Remote(connection, loop.run(transport.models(connection)), loop)
        finally:
            loop.run(opened.__aexit__(None, None, None))


def ask(remote: Remote, messages: list[dict], sampling: Sampling, prefilled: bool = False) -> Pieces:
    """Yields thought and reply of a server; raises as `thought_and_reply`, BadInput as `transport.stream`."""
    body = request_body(remote.server, Request("chat", "", 0, messages, sampling.params()))
    with contextlib.closing(_in_turns(remote, body)) as events:
        yield from thought_and_reply(events, prefilled, sampling.max_new_tokens)


def served_by(remote: Remote, key: str) -> str:
    """Returns the one model that a server lists, where the user names none; raises BadInput for none or several."""
    if len(remote.models) != 1:
        listed = ", ".join(remote.models[:10]) or "none"
        raise BadInput(f"{key}.model is not given, and {remote.server.base_url} lists {listed}; say {key}.model=NAME")
    return remote.models[0]


def change(remote: Remote, **settings) -> None:
    """Changes settings of the server, such as its model, from the next request on."""
    remote.connection.server = replace(remote.server, **settings)


def _in_turns(remote: Remote, body: dict) -> Stream:
    events = transport.stream(remote.connection, body)

    async def following():
        await asyncio.sleep(0)  # the loop stood still: it learns first of connections that the server has closed
        return await anext(events, None)

    try:
        while (event := remote.loop.run(following())) is not None:
            yield event
    finally:
        remote.loop.run(events.aclose())
