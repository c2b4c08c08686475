"""Evaluation and synthesis through vLLM's own server: the same answers, killed and continued, nothing left. Slow.

Skipped where vLLM is not installed: bash launch/install.sh cpu vllm
"""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch.frameworks import vllm
from tests.conftest import REPOSITORY, TABLE, launch, refused
from tests.launch import tiny_model
from tests.launch.test_vllm import served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not vllm.is_installed(), reason="no vLLM here: bash launch/install.sh cpu vllm"),
]
WORDS = ("recipe=demo", "checkpoint=base", "~sets.grpo_prompts")
SHORT = "max_new_tokens=64"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.make_as_large(tmp_path_factory.mktemp("model"), hidden_size=128)


@pytest.fixture(scope="module")
def data(run_name) -> Path:
    done = launch("data", "recipe=demo", *TABLE, f"run={run_name}", "split.heldout=40")
    assert done.returncode == 0, done.stderr
    return Path("runs", run_name, "data")


@pytest.fixture
def named(run_name, data):
    """Gives names of runs with the same data stage; their folders are deleted afterwards."""
    names = []

    def make(name: str) -> str:
        names.append(f"{run_name}-{name}")
        shutil.copytree(data, Path("runs", names[-1], "data"))
        return names[-1]

    yield make
    for name in names:
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def rows(name: str) -> list[dict]:
    file = Path("runs", name, "eval/responses.base.heldout.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def calls(name: str) -> int:
    ledger = Path("runs", name, "eval/ledger.sqlite")
    if not ledger.is_file():
        return 0
    with sqlite3.connect(ledger) as opened:
        tables = opened.execute("select count(*) from sqlite_master where name = 'calls'").fetchone()[0]
        return opened.execute("select count(*) from calls").fetchone()[0] if tables else 0


def servers(model: Path) -> list[psutil.Process]:
    """Returns the processes of vLLM that serve the model, and the engines that such a server left."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        line = process.info["cmdline"] or [process.info["name"]]
        ended = process.status() == psutil.STATUS_ZOMBIE  # and whoever took it over has not asked yet
        if not ended and (str(model) in line or any("VLLM" in word for word in line)):
            found.append(process)
    return found


def same_answer(here: dict, there: dict) -> bool:
    """Returns whether two greedy answers have the same tokens. vLLM's text of one that is cut in the middle of a
    character lacks the tokens since the last whole one, which the text made in process shows as U+FFFD.
    """
    lacks = here["response"].removeprefix(there["response"])
    whole = here["response"].startswith(there["response"]) and here["finish"] == there["finish"]
    return whole and (lacks == "" or (here["finish"] == "length" and lacks.endswith("\ufffd")))


def test_a_checkpoint_answers_through_vllm_as_it_does_in_process(model, named):
    one, other = named("here"), named("vllm")
    done = launch("eval", *WORDS, SHORT, "hardware=cpu", f"run={one}", f"base_model={model}")
    assert done.returncode == 0 and calls(one) == 0, done.stdout + done.stderr
    words = (SHORT, "hardware=cpu_vllm", f"run={other}", f"base_model={model}")
    done = launch("eval", *WORDS, *words)
    assert done.returncode == 0 and calls(other) == 40, done.stdout + done.stderr
    both = list(zip(rows(one), rows(other), strict=True))
    assert [] == [(here["response"], there["response"]) for here, there in both if not same_answer(here, there)]
    assert len({here["response"] for here, _ in both}) > 10
    assert any(here["response"] == there["response"] for here, there in both)
    assert servers(model) == []
    log = Path("runs", other, "eval/vllm.base.log")
    assert log.is_file() and log.stat().st_mode & 0o777 == 0o600
    assert "done already" in launch("eval", *WORDS, *words).stdout


def test_killed_it_leaves_no_server_and_continued_it_asks_only_the_rest(model, named):
    name = named("killed")
    words = (*WORDS, SHORT, "engine=vllm", f"run={name}", f"base_model={model}", "batch_size=2",
             "sets.heldout.samples=8", "sets.heldout.temperature=1.0")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "launch.eval", *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while calls(name) < 40:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(300):
        if not servers(model):
            break
        time.sleep(0.1)
    assert servers(model) == []
    before = calls(name)
    assert 40 <= before < 320
    done = launch("eval", *WORDS, *words[len(WORDS) :])
    assert done.returncode == 0, done.stdout + done.stderr
    assert calls(name) == 320 and len(rows(name)) == 320
    with sqlite3.connect(Path("runs", name, "eval/ledger.sqlite")) as ledger:
        assert {url for (url,) in ledger.execute("select distinct model from calls")} != {"base"}
        urls = ledger.execute("select base_url, count(*) from calls group by base_url").fetchall()
    assert len(urls) == 2 and dict(urls) and before in dict(urls).values(), "what was answered was not asked again"


def test_what_vllm_refuses_is_told_with_its_log(model, named):
    name = named("refused")
    words = ("engine=vllm", f"run={name}", f"base_model={model}")
    refused(launch("eval", *WORDS, *words, "vllm={max-model-lenght: 5}"), "Did you mean max-model-len?")
    assert not Path("runs", name, "eval").exists()
    done = launch("eval", *WORDS, *words, "vllm={max-model-len: 100000}")
    assert done.returncode == 1 and "vLLM ended: " in done.stderr and "vllm.base.log" in done.stderr, done.stderr
    assert "max_model_len" in done.stderr and servers(model) == []
    refused(launch("eval", *WORDS, *words, "resume=force", "max_new_tokens=5000"), "max_model_len")


def test_a_synthesis_runs_to_its_end(tmp_path, run_name):
    """Random weights write JSON of the right shape, since they must, and no sense: all of it is accounted for."""
    writer = tiny_model.make_as_large(tmp_path, hidden_size=128, max_position_embeddings=16384)
    name = f"{run_name}-synthesis"
    try:
        with served(writer) as address:
            llm = ("llm=vllm", f"llm.base_url={address}", "llm.model=tiny", "llm.concurrency=32")
            done = launch("data", "recipe=demo", *llm, f"run={name}", timeout=1800)
        refused(done, "no question is left of 30 passages; most were rejected by questions/2_generate_questions")
        assert "questions: generate_questions: 30 in, 0 out" in done.stdout
        assert "posts: rewrite_empathy: 28 in, " in done.stdout
    finally:
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)
