"""Several servers behind one line, concurrency that is found by trying, and what is refused before anything is paid."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server, balancer, server_from
from data_pipeline.llm.limiter import Limit
from tests.benchmarks.many_servers import serving, stats
from tests.data_pipeline.llm.conftest import KEY, requests, rows
from tests.model_server import Answer, ModelServer, Plan


def run(urls: list[str], ledger: Path, count: int = 100, **settings: Any) -> list:
    return llm.run_all(Server(urls, "tiny", **settings), requests(*rows(count)), ledger, "the test")


class Always(Plan):
    """One answer to whatever is asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def get(self, text: str, usual: list[Answer]) -> list[Answer]:
        return self.answers


def test_requests_are_spread_and_a_key_holds_no_address(sqlite_ledger):
    with ModelServer(latency=0.02) as one, ModelServer(latency=0.02) as two:
        replies = run([one.url, two.url], sqlite_ledger)
        assert [reply.text for reply in replies] == [f"reply to {row}" for row in rows(100)]
        assert min(len(one.calls), len(two.calls)) >= 30 and len(one.calls) + len(two.calls) == 100
        assert run([two.url], sqlite_ledger) == replies and len(one.calls) + len(two.calls) == 100
    with llm_ledger(sqlite_ledger) as ledger:
        assert {address: calls for address, calls, *_ in ledger.servers()} == {
            one.url: len(one.calls),
            two.url: len(two.calls),
        }


def llm_ledger(path: Path):
    from data_pipeline.llm.ledger import Ledger

    return Ledger(path)


def test_a_given_concurrency_is_the_most_of_all_servers_together(sqlite_ledger):
    with ModelServer(latency=0.05) as one, ModelServer(latency=0.05) as two:
        run([one.url, two.url], sqlite_ledger, concurrency=6)
        assert one.most_in_flight <= 4 and one.most_in_flight + two.most_in_flight <= 7


@pytest.mark.parametrize(
    "answer", [Answer(b"boom", status=500), Answer(b"busy", status=503), Answer(b"", drop=True), Answer(b"")]
)
def test_a_server_that_fails_is_left_out_and_nothing_is_lost(sqlite_ledger, answer):
    with ModelServer(latency=0.02, plan=Always(answer)) as bad, ModelServer(latency=0.02) as good:
        replies = run([bad.url, good.url], sqlite_ledger, 200)
    assert all(reply.finish == "stop" for reply in replies)
    assert 3 <= len(bad.calls) < 40, "the first ones, and one each time that it is tried again"


def test_a_server_that_was_left_out_comes_back(sqlite_ledger):
    faults = [Answer(b"boom", status=500)] * 12
    with ModelServer(latency=0.02, plan=Always(*faults, Answer())) as back, ModelServer(latency=0.05) as good:
        assert all(reply.finish == "stop" for reply in run([back.url, good.url], sqlite_ledger, 400))
        assert len(back.calls) > 50


def test_a_server_that_goes_down_amid_a_run_costs_no_row(sqlite_ledger):
    with serving((0.05, ""), (0.05, "--down 0.5:60")) as urls:
        assert all(reply.finish == "stop" for reply in run(urls, sqlite_ledger, 600))
        assert stats(urls[0])["answered"] > 400


def test_another_server_is_asked_while_one_says_to_wait(sqlite_ledger):
    wait = Answer(b"slow down", status=429, headers={"Retry-After": "30"})
    with ModelServer(plan=Always(wait)) as busy, ModelServer(latency=0.01) as free:
        begun = time.monotonic()
        assert all(reply.finish == "stop" for reply in run([busy.url, free.url], sqlite_ledger, 50))
        assert time.monotonic() - begun < 20 and len(busy.calls) <= 8


# --- refused before anything is paid ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ([], "the list is empty"),
        (["http://h:1/v1", "http://h:1/v1/"], "http://h:1/v1/ stands twice"),
        (["http://localhost:1/v1", "http://127.0.0.1:1/v1"], "stands twice"),
        (["http://h:1/v1", "h:2"], "'h:2' is not an address"),
        (["http://h:1/v1", f"http://u:{KEY}@h:2/v1"], "credentials"),
        (["http://h:1/v1", 2], "valid string"),
    ],
)
def test_a_list_that_cannot_be_is_refused(urls, expected):
    with pytest.raises(BadInput, match=expected) as told:
        server_from({"base_url": urls, "model": "tiny"}, "llm")
    assert KEY not in str(told.value)


class Listing(ModelServer):
    """Says which models it has."""

    def __init__(self, *entries: dict) -> None:
        super().__init__()
        self.entries = entries

    async def listen(self) -> None:
        from aiohttp import web

        async def models(_: web.Request) -> web.Response:
            return web.json_response({"data": list(self.entries)})

        self.routes = [web.get("/v1/models", models)]
        await super().listen()


def test_a_dead_server_and_one_with_another_model_end_the_run_before_it_pays(sqlite_ledger):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    same, other = {"id": "tiny", "root": "/a/models/tiny-1"}, {"id": "other"}
    with Listing(same) as one, Listing(other) as two, Listing({**same, "root": "/b/tiny-2"}) as three:
        with Listing({**same, "root": "/elsewhere/tiny-1"}) as four:
            with pytest.raises(BadInput, match=f"the test: no server at {dead}.*or take it out of the list"):
                run([one.url, dead], sqlite_ledger)
            with pytest.raises(BadInput, match=f"not every server has model 'tiny': .*has other; take {two.url}"):
                run([one.url, two.url], sqlite_ledger)
            with pytest.raises(BadInput, match="behind the name 'tiny' are different models: .*tiny-1, .*tiny-2"):
                run([one.url, three.url], sqlite_ledger)
            assert not any(server.calls for server in (one, two, three))
            assert len(run([one.url, four.url], sqlite_ledger)) == 100
    assert all(reply.finish == "stop" for reply in run([four.url, one.url], sqlite_ledger)), "of the ledger"


def test_a_server_that_dies_between_two_batches_is_left_out(sqlite_ledger):
    with ModelServer(latency=0.01) as one:
        with ModelServer(latency=0.01) as two:
            run([one.url, two.url], sqlite_ledger, 20)
        assert all(reply.finish == "stop" for reply in run([one.url, two.url], sqlite_ledger, 120))


# --- the limit --------------------------------------------------------------------------------------------------------


def found(slots: int, latency: float, seconds: float, reject: bool = False) -> tuple[float, list[float]]:
    """Returns (share of what the slots can give, sizes on the way) of a limit in a world without a clock of its own."""
    limit, sizes = Limit(1000), []
    done, now, flying, free_at = 0, 0.0, [], [0.0] * slots

    def clock() -> float:
        return now

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_pipeline.llm.limiter.time.monotonic", clock)
        while now < seconds:
            while limit.free:
                limit.in_flight += 1
                slot = min(range(slots), key=lambda n: free_at[n])
                refused = reject and free_at[slot] > now
                ends = now + 0.001 if refused else max(now, free_at[slot]) + latency
                if not refused:
                    free_at[slot] = ends
                flying.append((ends, now, limit.in_flight, refused))
            flying.sort(reverse=True)
            now, sent, among, refused = flying.pop()
            if refused:
                limit.refused(sent)
            else:
                done += 1
                limit.answered(sent, among, True)
            limit.in_flight -= 1
            sizes.append(limit.size)
    return done / (seconds * slots / latency), sizes


@pytest.mark.parametrize(("slots", "latency"), [(1, 1), (8, 0.02), (8, 0.4), (64, 5), (256, 20)])
def test_as_many_are_asked_as_a_server_answers_together(slots, latency):
    share, sizes = found(slots, latency, 200 * latency)
    assert share > 0.85 and max(sizes[len(sizes) // 2 :]) <= max(4 * slots, 16)


@pytest.mark.parametrize(("slots", "latency"), [(8, 0.1), (64, 5)])
def test_a_server_that_refuses_what_is_too_much_is_kept_busy(slots, latency):
    share, sizes = found(slots, latency, 200 * latency, reject=True)
    assert share > 0.85 and max(sizes[len(sizes) // 2 :]) <= 1.3 * slots


def test_a_waiting_request_that_is_cancelled_gives_its_slot_back():
    async def go() -> None:
        server = Server("http://127.0.0.1:9/v1", "tiny", concurrency=1)
        async with balancer.connect(server) as pool:
            first = await pool.slot()
            waits = [asyncio.ensure_future(pool.slot()) for _ in range(2)]
            await asyncio.sleep(0)
            waits[0].cancel()
            pool.release(first)
            assert (await waits[1]) is first and pool.in_flight == 1

    asyncio.run(go())
