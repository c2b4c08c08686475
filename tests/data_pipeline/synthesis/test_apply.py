"""Row steps over rows: in rounds or each row on its own way, the same rows and calls; none is lost, none waits."""

import asyncio
import copy
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.records import Post, Reject, Response
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, find_step, passes_on
from data_pipeline.synthesis.apply import Bound, by_hand, check, in_rounds, merged, on_its_way
from data_pipeline.synthesis.models import _several
from tests.conftest import REPOSITORY
from tests.data_pipeline import counsellor
from tests.model_server import Answer

STEPS = ("plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")


def bound(name: str) -> Bound:
    step = find_step(name, "the test")
    return Bound(name, step, step.settings(), {})


def step_by_step(rows: list, server: Server, ledger: Path) -> list:
    ask = llm.asker(server, ledger, "the test")
    for name in STEPS:
        rows = merged(in_rounds(bound(name), rows, ask)).rows
    return rows


def ahead(rows: list, servers: dict[str, Server], ledger: Path, at_work: int = 8) -> list[list[Outcome]]:
    """Returns the outcomes of each row in the steps that `servers` name."""

    async def work() -> list[list[Outcome]]:
        async with AsyncExitStack() as stack:
            asks, chain = {}, []
            for name, server in servers.items():
                if repr(server) not in asks:
                    asks[repr(server)] = _several(await stack.enter_async_context(llm.connected(server, ledger)))
                chain.append((bound(name), asks[repr(server)]))
            return [outcomes async for outcomes in on_its_way(chain, rows, at_work)]

    return asyncio.run(work())


def server_of(counselling, **settings) -> Server:
    return Server(counselling.url, "tiny", attempts=1, **settings)


def test_both_ways_give_the_same_rows_with_the_same_calls_and_leave_what_came_in(tmp_path):
    posts = counsellor.posts(30)
    before = copy.deepcopy(posts)
    with counsellor.server() as counselling:
        server = server_of(counselling, concurrency=8)
        expected = step_by_step(posts, server, tmp_path / "alone.sqlite")
        asked = len(counselling.calls)
        outcomes = ahead(posts, dict.fromkeys(STEPS, server), tmp_path / "ledger.sqlite")
        assert len(counselling.calls) == 2 * asked and counselling.most_in_flight <= 8
        assert [row for steps in outcomes if len(steps) == 4 for row in steps[-1].rows] == expected
        assert step_by_step(posts, server, tmp_path / "ledger.sqlite") == expected
        assert len(counselling.calls) == 2 * asked, "what the ledger holds is not asked"
    assert posts == before


def test_no_row_waits_for_another(tmp_path):
    def reply(messages):
        text = messages[0]["content"]
        if counsellor.step_of(messages) == "plan_dialogue" and "第7件事" in text:
            return Answer(counsellor.answer(messages).body, wait=2)
        return counsellor.answer(messages)

    with counsellor.server(reply) as counselling:
        ahead(counsellor.posts(20), dict.fromkeys(STEPS, server_of(counselling)), tmp_path / "ledger.sqlite")
        steps = [counsellor.step_of(call.body["messages"]) for call in counselling.calls]
    last_written = max(place for place, step in enumerate(steps) if step == "write_dialogue")
    assert steps[:last_written].count("validate_dialogue") == 19, "all others were at their end"


def test_only_a_window_of_rows_is_read(tmp_path):
    read, most = [], 0

    def rows():
        for post in counsellor.posts(40):
            read.append(post.id)
            yield post

    async def work(ask):
        nonlocal most
        done = 0
        async for _ in on_its_way([(bound("plan_dialogue"), ask)], rows(), 2):
            done += 1
            most = max(most, len(read) - done)

    with counsellor.server() as counselling:

        async def connected():
            async with llm.connected(server_of(counselling), tmp_path / "ledger.sqlite") as ask:
                await work(_several(ask))

        asyncio.run(connected())
    assert len(read) == 40 and most <= 8


def test_a_row_that_fails_in_one_step_goes_no_further(tmp_path):
    def reply(messages):
        failing = counsellor.step_of(messages) == "write_dialogue" and "第3件事" in messages[0]["content"]
        return Answer(status=500) if failing else counsellor.answer(messages)

    with counsellor.server(reply) as counselling:
        outcomes = ahead(counsellor.posts(6), dict.fromkeys(STEPS, server_of(counselling)), tmp_path / "ledger.sqlite")
    lost = [steps for steps in outcomes if len(steps) < 4]
    assert [reject.code for steps in lost for reject in steps[-1].rejects] == ["not written"] * len(lost) != []


def test_a_server_that_refuses_the_key_ends_it_at_once(tmp_path):
    with counsellor.server(lambda messages: Answer(b"no", status=401)) as counselling:
        with pytest.raises(BadInput, match="refuses model 'tiny' with no key"):
            ahead(counsellor.posts(50), dict.fromkeys(STEPS, server_of(counselling)), tmp_path / "ledger.sqlite")
        assert len(counselling.calls) < 50


def test_rows_that_a_step_cannot_take_end_it(tmp_path):
    with counsellor.server() as counselling:
        with pytest.raises(BadInput, match='write_dialogue: p0: no meta\\["plan"\\]; run plan_dialogue before'):
            ahead(counsellor.posts(1), {"write_dialogue": server_of(counselling)}, tmp_path / "ledger.sqlite")


class Nothing(StepSettings):
    pass


def plan(settings: Nothing, size: Size, selectors: int) -> Calls:
    return passes_on(size)


async def pair(post: Post, settings: Nothing, ask) -> Outcome:
    first = await ask([llm.Request("a", post.id, 0, []), llm.Request("a", post.id, 1, [])])
    second = await ask([llm.Request("b", post.id, 0, [])]) if post.text else []
    return Outcome([post], counts=Counter(replies=len(first) + len(second)))


def test_in_rounds_what_all_rows_wait_for_is_asked_together_and_in_order():
    calls = []

    def ask_all(requests):
        calls.append([(request.step, request.row, request.sample) for request in requests])
        return [Response("", "stop", 0)] * len(requests)

    step = Step((Post,), Nothing, pair, asks="model", calls=plan, report=lambda *_: {})
    posts = [Post(str(n), "test", "", "x" * (n != 1), []) for n in range(3)]
    outcomes = in_rounds(Bound("pair", step, Nothing(), {}), posts, ask_all)
    assert calls == [[("a", str(n), k) for n in range(3) for k in range(2)], [("b", "0", 0), ("b", "2", 0)]]
    assert [outcome.counts["replies"] for outcome in outcomes] == [3, 2, 3]


def test_nothing_is_asked_for_no_request():
    async def empty(post, settings, ask):
        await ask([])
        return Outcome([post])

    step = Step((Post,), Nothing, empty, asks="model", calls=plan, report=lambda *_: {})
    assert by_hand(lambda requests: pytest.fail("asked")) is not None
    in_rounds(Bound("empty", step, Nothing(), {}), counsellor.posts(2), lambda requests: pytest.fail("asked"))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(Outcome(), "was lost"), (Outcome(["row"], [Reject("p0", "here", "no")]), "goes on and is rejected too")],
)
def test_a_row_that_is_lost_or_counts_twice_is_an_error(outcome, told):
    with pytest.raises(AssertionError, match=told):
        check(bound("plan_dialogue"), counsellor.posts(1)[0], outcome)


CHILD = """
import sys
from pathlib import Path
from tests.data_pipeline import counsellor
from tests.data_pipeline.synthesis import test_apply
from data_pipeline.llm import Server
server = Server(sys.argv[1], "tiny", concurrency=8)
test_apply.ahead(counsellor.posts(60), dict.fromkeys(test_apply.STEPS, server), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_stopped_and_run_again_it_asks_what_is_missing(tmp_path, how):
    ledger = tmp_path / "ledger.sqlite"
    with counsellor.server(latency=0.05) as counselling:
        line = [sys.executable, "-c", CHILD, counselling.url, str(ledger)]
        process = subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while len(counselling.calls) < 60 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(how)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == -how, told
        stopped = len(counselling.calls)
        assert 60 <= stopped < 240
        assert subprocess.run(line, cwd=REPOSITORY, capture_output=True).returncode == 0
        times = Counter(counsellor.digest(call.body["messages"]) for call in counselling.calls)
    assert max(times.values()) <= 2 and sum(times.values()) - len(times) <= 8, "asked twice: those in flight at most"
