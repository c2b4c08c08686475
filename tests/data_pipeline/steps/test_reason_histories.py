"""Every request of reason_reply holds exactly the dialogue so far, read in the requests, also after kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

from data_pipeline.records import Dialogue, Turn, read_records
from data_pipeline.steps.reason_reply import NAME, Settings
from data_pipeline.synthesis import apply
from tests.conftest import REPOSITORY
from tests.data_pipeline import counsellor
from tests.data_pipeline.scripted import model
from tests.data_pipeline.steps.talks import CRISIS, GUIDE
from tests.model_server import ModelServer


def expected(dialogue: Dialogue) -> tuple[list[list[dict]], list[Turn]]:
    """Returns the history of every request about the dialogue, and its turns, told without the step."""
    histories, said, turns = [], [], []
    for turn in dialogue.turns:
        if turn.role == "counselor":
            histories.append(list(said))
            thought, text = counsellor.reasoned(said)
            if CRISIS in said[-1]["content"]:
                text += f"\n\n{GUIDE}"
            turn = Turn("counselor", text, thought)
        turns.append(turn)
        if turn.role != "system":
            said.append({"role": {"client": "user"}.get(turn.role, "assistant"), "content": turn.content})
    return histories, turns


def histories(server: ModelServer) -> Counter:
    assert all(call.body["messages"][0]["role"] == "system" for call in server.calls)
    return Counter(json.dumps(call.body["messages"][1:], ensure_ascii=False) for call in server.calls)


def true_histories(rows: list[Dialogue]) -> Counter:
    return Counter(json.dumps(history, ensure_ascii=False) for row in rows for history in expected(row)[0])


def test_every_request_of_200_dialogues_holds_exactly_the_dialogue_so_far(tmp_path):
    rows = counsellor.dialogues(200)
    taking_time = lambda messages: replace(counsellor.answer(messages), wait=0.05)  # noqa: E731 - as models do
    with model(taking_time, tmp_path, concurrency=32) as ask:
        result = apply.run(NAME, rows, Settings(), ask)
        assert histories(ask.server) == true_histories(rows)
        for call in ask.server.calls:
            roles = [message["role"] for message in call.body["messages"]]
            assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)][: len(roles)] and roles[-1] == "user"
        assert ask.server.most_in_flight > 16
    assert [row.turns for row in result.rows] == [expected(row)[1] for row in rows]
    assert result.report["turns"] == len(true_histories(rows)) > 850
    assert len(result.files["crisis"]) == 5 == sum(GUIDE in t.content for row in result.rows for t in row.turns)


RUN = """
import sys
from pathlib import Path
from data_pipeline import llm
from data_pipeline.records import write_jsonl
from data_pipeline.synthesis import apply
from tests.data_pipeline import counsellor

url, folder = sys.argv[1], Path(sys.argv[2])
ask = llm.asker(llm.Server(url, "tiny", concurrency=16), folder / "ledger.sqlite", "reason_reply")
result = apply.run("reason_reply", counsellor.dialogues(200), None, ask)
write_jsonl(folder / "rows.jsonl", result.rows)
"""


def test_histories_are_true_after_kills_and_nothing_finished_is_asked_again(tmp_path):
    rows = counsellor.dialogues(200)
    true = true_histories(rows)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with counsellor.server(latency=0.02) as server:
        command = [sys.executable, "-c", RUN, server.url, str(tmp_path)]
        for moment in sorted(random.Random(6).sample(range(100, true.total()), 3)):
            with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as process:
                while len(server.calls) < moment and process.poll() is None:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
            time.sleep(0.2)  # for requests that are still on their way
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, check=True)
        asked = histories(server)
    assert set(asked) == set(true)
    assert 0 < asked.total() - true.total() <= 3 * 16
    assert [d.turns for d in read_records(tmp_path / "rows.jsonl", Dialogue)] == [expected(row)[1] for row in rows]
