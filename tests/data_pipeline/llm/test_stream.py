"""The streaming mode of the transport, against a real HTTP server; its messages are those of the whole mode."""

import asyncio
import json
import socket
import time
from typing import Any

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.llm import Server, transport
from data_pipeline.llm.completions import Arriving
from data_pipeline.records import Response
from tests.data_pipeline.llm.conftest import KEY
from tests.launch.stream_server import StreamServer, Told


def server(url: str, **settings: Any) -> Server:
    return Server(url, "tiny", **{"attempts": 1, **settings})


def streamed(url: str, *said: str, **settings) -> list[list]:
    """Returns for each message all that the stream gives, over one connection."""

    async def run() -> list[list]:
        async with transport.connect(server(url, **settings)) as connection:
            return [[e async for e in transport.stream(connection, body(text))] for text in said]

    return asyncio.run(run())


def asked(url: str, said: str, **settings) -> Response:
    async def run() -> Response:
        async with transport.connect(server(url, **settings)) as connection:
            return (await transport.ask(connection, body(said))).response

    return asyncio.run(run())


def body(said: str) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": said}]}


def test_pieces_come_as_they_are_sent_and_the_whole_at_last():
    thought = Told([("reasoning_content", "他很"), ("reasoning", "累。"), "听", "起来。"], finish="length")
    with StreamServer({"想": thought}) as serving:
        first, second = streamed(serving.url, "想", "好")
    pieces = [("reasoning", "他很"), ("reasoning", "累。"), ("text", "听"), ("text", "起来。")]
    assert first == [*pieces, Response("听起来。", "length", 0, "他很累。")]
    assert second == [("text", "答：好"), Response("答：好", "stop", 0)]


def test_the_first_piece_is_there_before_the_last_is_sent():
    async def run(url: str) -> tuple[float, float]:
        async with transport.connect(Server(url, "tiny")) as connection:
            begun, times = time.monotonic(), []
            async for _ in transport.stream(connection, body("慢")):
                times.append(time.monotonic() - begun)
            return times[0], times[-1]

    with StreamServer({"慢": Told(["慢"] * 10, wait=0.1)}) as serving:
        first, last = asyncio.run(run(serving.url))
    assert first < last - 0.6


def test_tokens_are_what_the_server_counts():
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    with StreamServer({"*": Told(["好"], raw=f"data: {json.dumps(usage)}\n\n".encode())}) as serving:
        assert streamed(serving.url, "x")[0][-1] == Response("好", "stop", 3, prompt_tokens=7)


def test_an_answer_that_breaks_off_keeps_what_came_and_is_not_asked_again():
    plan = {
        "cut": (Told(["半", "句"], dies=True), "connection lost: "),
        "silent": (Told(["半", "句"], wait=1.5), "no answer within 0.5 s"),
        "no end": (Told(["半", "句"], finish=None), "broken off by the server: no finish_reason"),
        "an error": (Told(["半", "句"], raw=b'data: {"error": {"message": "overloaded"}}\n\n'), "server: overloaded"),
        "no JSON": (Told(["半", "句"], raw=b"data: {broken\n\n"), "a piece that cannot be read: JSONDecodeError"),
        "half a character": (Told(["半", "句"], raw=b'data: {"choices": "\xe5\xa5"}\n\n'), "UnicodeDecodeError"),
        "abort": (Told(["半", "句"], finish="abort"), "broken off by the server: abort"),
    }
    with StreamServer({name: told for name, (told, _) in plan.items()}) as serving:
        for name, (_, error) in plan.items():
            (events,) = streamed(serving.url, name, attempts=3, timeout_s=0.5)
            assert events[0] == ("text", "半") and events[-1].finish == "failed", name
            assert error in events[-1].error, name
        assert len(serving.asked) == len(plan)


@pytest.mark.parametrize("told", [Told(status=500), Told([], dies=True), Told([]), Told([], finish=None)])
def test_a_fault_before_the_first_piece_is_asked_again(told):
    with StreamServer({"*": told}) as serving:
        (events,) = streamed(serving.url, "x", attempts=2)
        assert len(serving.asked) == 2
    assert [event.finish for event in events] == ["failed"] and events[0].error


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_what_a_server_refuses_is_told_as_in_the_whole_mode(status, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    messages = []
    with StreamServer({"*": Told(status=status)}) as serving:
        for ask in (asked, lambda *given, **settings: streamed(*given, **settings)[0][-1]):
            try:
                messages.append(ask(serving.url, "x", api_key_env="TEST_KEY").error)
            except BadInput as error:
                messages.append(str(error))
    assert messages[0] == messages[1] and f"HTTP {status}" in messages[0]
    assert ("refuses model 'tiny' with the key in TEST_KEY" in messages[0]) == (status in (401, 403, 404))


def test_an_address_without_a_server_is_told_as_in_the_whole_mode():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    for ask in (asked, streamed):
        with pytest.raises(BadInput, match=f"no server at {url}: .*; correct base_url or start the server"):
            ask(url, "x")


def test_closing_a_stream_hangs_up_and_the_connection_is_of_use():
    async def run(url: str) -> Response:
        async with transport.connect(Server(url, "tiny")) as connection:
            endless = transport.stream(connection, body("慢"))
            assert await anext(endless) == ("text", "慢")
            begun = time.monotonic()
            await endless.aclose()
            assert time.monotonic() - begun < 1
            whole = [event async for event in transport.stream(connection, body("好"))][-1]
            assert isinstance(whole, Response)
            return whole

    with StreamServer({"慢": Told(["慢"] * 200, wait=0.05)}) as serving:
        assert asyncio.run(run(serving.url)).text == "答：好"


def pieces(key: str, *texts: str) -> list[str]:
    answer = Arriving(key)
    given = [delta for text in texts for delta in answer.take({"choices": [{"delta": {"content": text}}]})]
    return [text for _, text in (*given, *answer.rest())]


def test_half_a_character_waits_for_its_other_half():
    assert pieces("", "好\ud83d", "\ude00。") == ["好", "😀。"]
    assert pieces("", "好\ud83d", "。", "\ude00", "\ud83d") == ["好", "\ufffd。", "\ufffd", "\ufffd"]


def test_a_key_in_pieces_is_hidden():
    assert "".join(pieces(KEY, "your key is sk-te", KEY[5:], ", and s")) == "your key is ***, and s"
    assert pieces("short", "a short", " one") == ["a short", " one"]


def test_bytes_of_one_character_in_two_packets_are_one_character():
    data = 'data: {"choices": [{"delta": {"content": "睡"}, "finish_reason": null}]}\n\n'.encode()
    cut = data.index("睡".encode()) + 1

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + data[:cut])
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(data[cut:] + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
        await writer.drain()
        writer.close()

    async def run() -> list:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as serving:
            url = f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}/v1"
            async with transport.connect(Server(url, "tiny", attempts=1)) as connection:
                return [event async for event in transport.stream(connection, body("x"))]

    assert asyncio.run(run()) == [("text", "睡"), Response("睡", "stop", 0)]


def test_models_are_listed_and_a_server_without_a_list_has_none():
    async def listed(url: str, **settings) -> list[str]:
        async with transport.connect(Server(url, "?", attempts=1, **settings)) as connection:
            return await transport.models(connection)

    with StreamServer(models=("a", "b")) as serving:
        assert asyncio.run(listed(serving.url)) == ["a", "b"]
        serving.listing = Told(status=404)
        assert asyncio.run(listed(serving.url)) == []
        serving.listing = Told(status=401)
        with pytest.raises(BadInput, match=r"refuses no key \(api_key_env\); correct it: HTTP 401"):
            asyncio.run(listed(serving.url))
        serving.listing = Told(raw=b"<html>")
        with pytest.raises(BadInput, match="no OpenAI-compatible server"):
            asyncio.run(listed(serving.url))
