"""What goes wrong in weeks of paid calls: faulty servers, killed runs, locked and broken ledgers. Nothing is lost."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pydantic import BaseModel

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from data_pipeline.llm import ledger as ledgers
from data_pipeline.llm.ledger import Call, Ledger, Where
from data_pipeline.llm.structured import Failure
from data_pipeline.prompts import render
from data_pipeline.records import Post, Reject, Request, read_jsonl
from data_pipeline.steps import Result, check_balance
from tests.conftest import REPOSITORY
from tests.data_pipeline.llm.conftest import locked
from tests.data_pipeline.scripted import ask_all_json
from tests.model_server import Answer, ModelServer, completion

ROWS = 2000


class Verdict(BaseModel, extra="forbid"):
    keep: bool
    reason: str


def verdict(row: str) -> dict:
    return completion(json.dumps({"keep": True, "reason": f"因为{row}"}, ensure_ascii=False))


# kind: (share of all calls, the server's answer, what the reject says when no attempt fares better)
FAULTS = {
    "429": (0.10, Answer(b"slow down", status=429, headers={"Retry-After": "0.02"}), "HTTP 429: slow down"),
    "500": (0.05, Answer(b"boom", status=500), "HTTP 500: boom"),
    "timeout": (0.03, Answer(wait=4), "no answer within 2 s"),
    "cut JSON": (0.03, Answer(json.dumps(verdict("x")).encode()[:-40]), "broken JSON, "),
    "empty 200": (0.02, Answer(b""), "empty body"),
    "reset": (0.01, Answer(b"", drop=True), "connection lost: "),
}
ATTEMPTS = 3


def fate(row: str) -> list[str]:
    """Returns the fault of each call about a row, "" for none, which ends them; drawn by the shares above."""
    chance, kinds = random.Random(f"seed 5, {row}"), []
    while not kinds or (kinds[-1] and len(kinds) < ATTEMPTS):
        shares = [share for share, *_ in FAULTS.values()]
        kinds += chance.choices([*FAULTS, ""], [*shares, 1 - sum(shares)])
    return kinds


def a_step(rows: list[Post], ask) -> tuple[Result, dict]:
    requests = [Request("judge", row.id, 0, [{"role": "user", "content": row.id}]) for row in rows]
    results, counts = ask_all_json(ask, requests, Verdict)
    pairs = list(zip(rows, results, strict=True))
    rejects = [Reject(row.id, row.id, result.reason) for row, result in pairs if isinstance(result, Failure)]
    kept = [row for row, result in pairs if isinstance(result, Verdict) and result.reason == f"因为{row.id}"]
    return Result(kept, rejects), counts


def test_every_row_ends_in_the_output_or_the_rejects_and_no_finished_call_is_repeated(ledger):
    rows = [Post(f"row {number}", "test", "", "", []) for number in range(ROWS)]
    fates = {row.id: fate(row.id) for row in rows}
    met = Counter(kind for kinds in fates.values() for kind in kinds)
    for kind, (share, *_) in FAULTS.items():
        assert met[kind] / met.total() == pytest.approx(share, rel=0.3)
    lost = {row for row, kinds in fates.items() if kinds[-1]}
    assert 10 < len(lost) < 100
    plan = {row: [*(FAULTS[kind][1] for kind in kinds if kind), Answer(verdict(row))] for row, kinds in fates.items()}
    with ModelServer(latency=0.01, plan=plan) as server:
        settings = Server(server.url, "tiny", concurrency=64, attempts=ATTEMPTS, timeout_s=2)
        ask = llm.asker(settings, ledger, "judge")
        result, counts = a_step(rows, ask)
        check_balance("judge", fates, result)
        assert len(result.rows) + len(result.rejects) == ROWS
        assert {reject.id for reject in result.rejects} == lost
        assert counts == {"asked": ROWS, "invalid": 0, "repaired": 0, "failed": len(lost)}
        for reject in result.rejects:
            assert reject.reason.startswith(f"no reply: {FAULTS[fates[reject.id][-1]][2]}"), reject
        assert server.counts() == {row: len(kinds) for row, kinds in fates.items()}
        (total,) = llm.totals(ledger)
        assert (total["calls"], total["failures"]) == (ROWS - len(lost), len(lost))

        result, _ = a_step(rows, ask)  # the same command again: only what failed is asked
        assert [row.id for row in result.rows] == [row.id for row in rows] and not result.rejects
        assert server.counts() == {row: len(kinds) + (row in lost) for row, kinds in fates.items()}


RUN = """
import sys
from pathlib import Path
from data_pipeline import llm
from data_pipeline.records import Post, write_jsonl
from tests.data_pipeline.llm.test_faults import ROWS, a_step

url, folder, ledger = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
ledger = ledger if "://" in ledger else Path(ledger)
ask = llm.asker(llm.Server(url, "tiny", concurrency=16), ledger, "judge")
result, counts = a_step([Post(f"row {number}", "test", "", "", []) for number in range(ROWS)], ask)
write_jsonl(folder / "judge.jsonl", result.rows)
write_jsonl(folder / "judge.rejects.jsonl", result.rejects)
write_jsonl(folder / "judge.counts.jsonl", [counts])
"""
OUTPUTS = ("judge.jsonl", "judge.rejects.jsonl", "judge.counts.jsonl")


def start(url: str, folder: Path, ledger: Where) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, url, str(folder), str(ledger)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(url: str, folder: Path, ledger: Where) -> None:
    with start(url, folder, ledger) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def kill_at(server: ModelServer, calls: int, folder: Path, ledger: Where) -> int:
    """Kills a run when the server has so many calls; returns how many of its calls are not in the ledger."""
    before = len(server.calls) - finished(ledger)
    with start(server.url, folder, ledger) as process:
        assert process.stderr
        while len(server.calls) < calls:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.kill()
        process.communicate()
    time.sleep(0.2)  # for requests that are still on their way
    return len(server.calls) - finished(ledger) - before


def finished(ledger: Where) -> int:
    return sum(total["calls"] for total in llm.totals(ledger))


def plan_of_a_run() -> dict[str, list[Answer]]:
    """Of ten rows one is repaired, one cannot be, and one of them loses its connection first."""
    plan = {f"row {number}": [Answer(verdict(f"row {number}"))] for number in range(ROWS)}
    for number in range(0, ROWS, 10):
        plan[f"row {number}"] = [Answer(completion("我不知道"))]
        plan[f"row {number + 1}"] = [Answer(completion(json.dumps({"keep": True, "reason": number})))]
    error = "wrong shape: reason: Input should be a valid string"
    plan[render("repair_json.en", error=error)] = [Answer(completion('{"keep": true, "reason": ""}'))]
    return plan


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_as_an_uninterrupted_one(tmp_path, new_ledger):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ledger = new_ledger("killed")
    whole.mkdir()
    killed.mkdir()
    with ModelServer(latency=0.02, plan=plan_of_a_run()) as server:
        finish(server.url, whole, new_ledger("whole"))
        once = len(server.calls)
        assert once == ROWS + 2 * (ROWS // 10)
    with ModelServer(latency=0.02, plan=plan_of_a_run()) as server:
        moments = sorted(random.Random(5).sample(range(30, once), 10))
        in_flight = [kill_at(server, moment, killed, ledger) for moment in moments]
        finish(server.url, killed, ledger)
        assert all(0 <= calls <= 16 for calls in in_flight) and sum(in_flight) > 0
        assert len(server.calls) == once + sum(in_flight)  # paid twice: those in flight at a kill, nothing else
        for name in OUTPUTS:
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name

        broken = killed / "judge.jsonl"  # as a full disk leaves it
        broken.write_bytes(broken.read_bytes()[:-20])
        with pytest.raises(BadInput, match=rf"judge.jsonl line {ROWS - 2 * (ROWS // 10)}: not a JSON object"):
            list(read_jsonl(broken))
        finish(server.url, killed, ledger)
        assert broken.read_bytes() == (whole / "judge.jsonl").read_bytes()
        assert len(server.calls) == once + sum(in_flight)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_ledger_whose_last_commits_are_broken_loses_only_those(tmp_path, damage):
    """A power cut amid a write: sqlite's log ends in half a commit, which its checksums tell."""
    ledger = tmp_path / "ledger.sqlite"
    with ModelServer(latency=0.02, plan=plan_of_a_run()) as server:
        with start(server.url, tmp_path, ledger) as process:
            while len(server.calls) < 300:
                time.sleep(0.002)
            process.kill()
            process.communicate()
        log = tmp_path / "ledger.sqlite-wal"
        content = log.read_bytes()
        log.write_bytes(content[:-3000] if damage == "cut" else content[:-3000] + b"\xff" * 3000)
        time.sleep(0.2)
        before, kept = len(server.calls), finished(ledger)
        assert 200 < kept < before
        finish(server.url, tmp_path, ledger)
        assert len(server.calls) == before - kept + ROWS + 2 * (ROWS // 10)
    assert len(list(read_jsonl(tmp_path / "judge.jsonl"))) == ROWS - ROWS // 10 * 2


def ask_rows(url: str, ledger: Where, count: int, **settings) -> list:
    requests = [Request("step", f"row {n}", 0, [{"role": "user", "content": f"row {n}"}]) for n in range(count)]
    return llm.run_all(Server(url, "tiny", **settings), requests, ledger, "the test")


def test_a_truncated_ledger_is_refused_with_the_cure_that_saves_the_rest(tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    with ModelServer() as server:
        replies = ask_rows(server.url, ledger, 100)
        size = ledger.stat().st_size - 2 * 4096
        os.truncate(ledger, size)
        with pytest.raises(BadInput, match="malformed; save what can be read of it: python -m data_pip.* recover '.*"):
            ask_rows(server.url, ledger, 100)
        assert len(server.calls) == 100 and ledger.stat().st_size == size
        command = [sys.executable, "-m", "data_pipeline.llm.ledger", "recover", str(ledger)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = re.search(r": (\d+) calls saved", done.stdout)
        assert told, done.stdout
        saved = int(told[1])
        assert 50 < saved < 100 and (tmp_path / "ledger.sqlite.broken").stat().st_size == size
        assert ask_rows(server.url, ledger, 100) == replies
        assert len(server.calls) == 200 - saved
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith("error: ") and ".broken exists" in again.stderr


def test_a_whole_ledger_with_failures_is_recovered_whole(tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    with ModelServer(plan={"row 3": [Answer(b"", status=400)]}) as server:
        ask_rows(server.url, ledger, 20)
    before = llm.totals(ledger)
    assert ledgers.recover(ledger) == 20 and llm.totals(ledger) == before
    with pytest.raises(BadInput, match="absent.sqlite: no such file"):
        ledgers.recover(tmp_path / "absent.sqlite")


HOLD = """
import sys, time
from pathlib import Path
from tests.data_pipeline.llm.conftest import locked
with locked(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def hold():
    """Lets another process keep the write lock of a ledger for so many seconds."""
    processes = []

    def begin(ledger: Where, seconds: float) -> None:
        command = [sys.executable, "-c", HOLD, str(ledger), str(seconds)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY))
        assert processes[-1].stdout.readline() == "held\n"

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_locked_ledger_is_waited_for(ledger, hold):
    with ModelServer(latency=0.05) as server:
        ask_rows(server.url, ledger, 1)
        hold(ledger, 2)
        started = time.monotonic()
        assert len(ask_rows(server.url, ledger, 50)) == 50
        assert time.monotonic() - started > 1
        assert set(server.counts().values()) == {1}


def test_a_ledger_that_stays_locked_is_an_error_before_anything_is_asked(ledger, hold, monkeypatch):
    monkeypatch.setattr(ledgers, "_PATIENCE", 0.2)
    with ModelServer() as server:
        ask_rows(server.url, ledger, 1)
        hold(ledger, 60)
        with pytest.raises(BadInput, match="the test: ledger .* locked; another process has kept it for 0.2 s; run ag"):
            ask_rows(server.url, ledger, 50)
        assert len(server.calls) == 1


def test_a_paid_reply_that_met_a_locked_ledger_is_written_at_the_end(ledger, monkeypatch):
    monkeypatch.setattr(ledgers, "_PATIENCE", 0.2)
    call = Call("key", "step", "row", 0, "tiny", "http://h/v1", "stop", "text", "", "", 1, 1, 0.5, 0.1, 1, "now")
    with Ledger(ledger) as opened:
        with locked(ledger), pytest.raises(BadInput, match="locked"):
            asyncio.run(opened.record(call))
    assert llm.totals(ledger)[0]["calls"] == 1
