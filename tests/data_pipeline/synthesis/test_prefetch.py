"""Rows sent ahead through several steps: the same rows and calls as step by step, and no row waits for another."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.steps import plan_dialogue, reason_reply, validate_dialogue, write_dialogue
from data_pipeline.synthesis.prefetch import Step, ask_ahead
from tests.conftest import REPOSITORY
from tests.data_pipeline import counsellor
from tests.model_server import Answer

STEPS = (plan_dialogue, write_dialogue, reason_reply, validate_dialogue)


def bound(server: Server, steps=STEPS) -> list[Step]:
    return [Step(lambda rows, ask, step=step: step.run(rows, step.Settings(), ask), server) for step in steps]


def step_by_step(rows: list, server: Server, ledger: Path) -> list:
    ask = llm.asker(server, ledger, "the test")
    for step in STEPS:
        rows = step.run(rows, step.Settings(), ask).rows
    return rows


def server_of(counselling, **settings) -> Server:
    return Server(counselling.url, "tiny", attempts=1, **settings)


def test_the_steps_find_every_reply_and_give_the_same_rows(tmp_path):
    posts = counsellor.posts(30)
    with counsellor.server() as counselling:
        server = server_of(counselling, concurrency=8)
        expected = step_by_step(posts, server, tmp_path / "alone.sqlite")
        asked = len(counselling.calls)
        ask_ahead(posts, bound(server), tmp_path / "ledger.sqlite", "the test")
        assert len(counselling.calls) == 2 * asked and counselling.most_in_flight <= 8
        assert step_by_step(posts, server, tmp_path / "ledger.sqlite") == expected
        ask_ahead(posts, bound(server), tmp_path / "ledger.sqlite", "the test")
        assert len(counselling.calls) == 2 * asked, "what the ledger holds is not asked"


def test_no_row_waits_for_another(tmp_path):
    posts = counsellor.posts(20)

    def reply(messages):
        text = messages[0]["content"]
        if counsellor.step_of(messages) == "plan_dialogue" and "第7件事" in text:
            return Answer(counsellor.answer(messages).body, wait=2)
        return counsellor.answer(messages)

    with counsellor.server(reply) as counselling:
        ask_ahead(posts, bound(server_of(counselling)), tmp_path / "ledger.sqlite", "the test")
        steps = [counsellor.step_of(call.body["messages"]) for call in counselling.calls]
    last_written = max(place for place, step in enumerate(steps) if step == "write_dialogue")
    assert steps[:last_written].count("validate_dialogue") == 19, "all others were at their end"


def test_what_fails_is_asked_once_more_by_the_steps(tmp_path):
    posts, met = counsellor.posts(10), Counter()

    def reply(messages):
        key = counsellor.digest(messages)
        met[key] += 1
        failing = counsellor.step_of(messages) == "plan_dialogue" and key % 3 == 0 and met[key] == 1
        return Answer(status=500) if failing else counsellor.answer(messages)

    with counsellor.server(reply) as counselling:
        server = server_of(counselling)
        ask_ahead(posts, bound(server), tmp_path / "ledger.sqlite", "the test")
        assert 0 < sum(total["failures"] for total in llm.totals(tmp_path / "ledger.sqlite"))
        assert len(step_by_step(posts, server, tmp_path / "ledger.sqlite")) == 10
    assert set(met.values()) == {1, 2}


def test_steps_may_ask_different_models(tmp_path):
    with counsellor.server() as counselling:
        steps = bound(server_of(counselling))
        steps[2] = Step(steps[2].run, Server(counselling.url, "thinker", concurrency=2))
        ask_ahead(counsellor.posts(3), steps, tmp_path / "ledger.sqlite", "the test")
        models = {(counsellor.step_of(call.body["messages"]), call.body["model"]) for call in counselling.calls}
    assert models == {(step.STEP, "thinker" if step is reason_reply else "tiny") for step in STEPS}


def test_a_server_that_refuses_the_key_ends_it_with_one_message(tmp_path):
    with counsellor.server(lambda messages: Answer(b"no", status=401)) as counselling:
        with pytest.raises(BadInput, match="^the test: .* refuses model 'tiny' with no key"):
            ask_ahead(counsellor.posts(50), bound(server_of(counselling)), tmp_path / "ledger.sqlite", "the test")


def test_rows_that_a_step_cannot_take_end_it(tmp_path):
    with counsellor.server() as counselling:
        steps = bound(server_of(counselling), STEPS[1:])
        with pytest.raises(
            BadInput, match='^the test: write_dialogue: p0: no meta\\["plan"\\]; run plan_dialogue before'
        ):
            ask_ahead(counsellor.posts(1), steps, tmp_path / "ledger.sqlite", "the test")


CHILD = """
import sys
from pathlib import Path
from data_pipeline.synthesis.prefetch import ask_ahead
from tests.data_pipeline import counsellor
from tests.data_pipeline.synthesis import test_prefetch
from data_pipeline.llm import Server
steps = test_prefetch.bound(Server(sys.argv[1], "tiny", concurrency=8))
ask_ahead(counsellor.posts(60), steps, Path(sys.argv[2]), "test")
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
