"""Sessions with simulated clients as a user evaluates them: two models and an agent in one report, kills, bad input."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.running.folder import LAYOUT, StageFolder
from tests.conftest import REPOSITORY, launch
from tests.model_server import Answer, ModelServer, completion

PERSONAS = (
    "sets.crisis={benchmark: crisis, path: eval/benchmarks/crisis/personas.zh.yaml, system: 好好听。, "
    "options: {turns: 3, most: 3}}"
)
PROFILES = (
    "sets.clients={benchmark: client_sessions, path: eval/benchmarks/client_sessions/profiles.en.yaml, "
    "options: {turns: 2, sessions: 3, most: 1}}"
)


class World:
    """Counsellors "kind" and "cold", a client that says what it knows last, and two judges of which one is severe."""

    def __init__(self, latency: float = 0.0) -> None:
        self.server = ModelServer(latency, plan=self)

    def get(self, text: str, _: list[Answer], /) -> list[Answer]:
        body = self.server.calls[-1].body
        if '"asked"' in text:
            value: dict = {"asked": [], "anything": True, "closes": False}
        elif '"evidence"' in text:
            kind = "你安全吗" in text or "Are you safe" in text
            top = max(map(int, re.findall(r"^(\d)(?:：|: )", text, re.M)))
            value = {"evidence": "你安全吗" if "你安全吗" in text else "", "score": top if kind else 0}
            if "scale 1" in text or top == 5:
                value["score"] = max(value["score"], 1)
            value["score"] -= body["model"] == "severe" and kind
        elif "扮演" in text or "You play a client" in text:
            return [Answer(completion(re.findall(r"^- (.+)$", text, re.M)[-1]))]
        else:
            said = {"kind": "你安全吗？Are you safe?", "cold": "嗯。Hm."}[body["model"]]
            return [Answer(completion(f"{said}{len(body['messages'])}"))]
        return [Answer(completion(json.dumps(value, ensure_ascii=False)))]


@pytest.fixture
def run() -> Iterator[str]:
    yield (name := "test-sessions")
    shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def words(run: str, url: str, *more: str) -> list[str]:
    servers = {"client": "player", "judges.mild": "mild", "judges.severe": "severe", "endpoints.a": "kind",
               "endpoints.b": "cold"}  # fmt: skip
    given = [f"{who}.{k}" for who, model in servers.items() for k in (f"base_url={url}", f"model={model}")]
    return ["recipe=counselling", "hardware=cpu", f"run={run}", *given, *more]


def evaluated(run: str) -> dict[str, bytes]:
    """Evaluates, and returns the files that it leaves."""
    folder = Path("runs", run, "eval")
    with World().server as server:
        done = launch("eval", *words(run, server.url, PERSONAS, PROFILES))
        assert done.returncode == 0, done.stdout + done.stderr
        asked = [c.body["messages"] for c in server.calls if c.body["model"] in ("kind", "cold")]
        systems = [messages[0]["content"] for messages in asked if messages[0]["role"] == "system"]
        assert len(systems) == len(asked) and systems.count("好好听。") == 2 * 3 * 3
    return {file.name: file.read_bytes() for kind in ("report.*", "*.jsonl") for file in folder.glob(kind)}


def test_two_models_talk_with_the_same_clients_in_one_report(run):
    folder, whole = Path("runs", run, "eval"), evaluated(run)
    report, page = whole["report.md"].decode(), whole["report.html"].decode()
    for told in (
        "| a: kind (20", "| b: cold (20", "reviewed by no clinician", "12356", "client: player, which answered as tiny",
        "judge severe", "in place of the benchmark's own: 好好听。", "sessions ended by: limit 3",
        "systems by each rater",
    ):  # fmt: skip
        assert told in report, told
    assert "endpoint" not in report
    assert "the same, side by side" in page and "你安全吗？" in page and "“你安全吗”" in page
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["sets"]
    crisis = {name: result["means"] for name, result in metrics["crisis"].items()}
    assert crisis["a"]["detects"]["value"] == 0.5 and crisis["b"]["detects"]["value"] == 0
    assert metrics["clients"]["a"]["ended"] == {"limit": 3}
    for file in folder.glob("*.jsonl"):
        assert file.stat().st_mode & 0o777 == 0o600
    done = launch("eval", "rank", f"{run}/a", f"{run}/b", "set=clients")  # its judges are gone
    assert done.returncode == 2 and "no server at" in done.stderr, done.stderr
    sheet = (folder / "ranking.clients/pairs.csv").read_text(encoding="utf-8-sig")
    assert "-- session 3 --" in sheet and "kind (20" not in sheet and '{"language"' not in sheet


@pytest.mark.slow
def test_sessions_that_were_killed_leave_the_report_of_those_that_were_not(run):
    folder, whole = Path("runs", run, "eval"), evaluated(run)
    shutil.rmtree(folder.parent)
    with World(latency=0.02).server as server:
        command = [sys.executable, "-m", "launch.eval", *words(run, server.url, PERSONAS, PROFILES)]
        for calls in (8, 40, 90):
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            while len(server.calls) < calls and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it ended before the kill"
        done = launch("eval", *words(run, server.url, PERSONAS, PROFILES))
    assert done.returncode == 0, done.stdout + done.stderr
    for name, content in whole.items():
        assert (folder / name).read_bytes() == content, name


def test_an_agent_behind_an_address_is_evaluated_like_a_model(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with World().server as server:
        environment = {**os.environ, "AGENT_BASE_URL": server.url, "AGENT_MODEL": "kind"}
        command = [sys.executable, "-m", "uvicorn", "--app-dir", "docs", "agent:app", "--port", str(port)]
        agent = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                with socket.socket() as there:
                    if there.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert agent.poll() is None
                time.sleep(0.1)
            given = words(run, server.url, PROFILES, f"endpoints.agent.base_url=http://127.0.0.1:{port}/v1",
                          "endpoints.agent.model=my-agent")  # fmt: skip
            done = launch("eval", *given)
            assert done.returncode == 0, done.stdout + done.stderr
        finally:
            agent.terminate()
            agent.wait(20)
        plans = [call for call in server.calls if "督导" in call.body["messages"][0]["content"]]
    rows = [json.loads(line) for line in Path("runs", run, "eval/responses.agent.clients.jsonl").open(encoding="utf-8")]
    transcript = json.loads(rows[0]["response"])
    assert len(plans) == 12 and [len(session) for session in transcript["sessions"]] == [4, 4, 4]
    assert "agent: my-agent (20" in Path("runs", run, "eval/report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_checkpoint_of_another_run_talks_in_this_process_beside_a_server(run, tiny):
    other = StageFolder(Path("runs", f"{run}-other", "sft"), {"layout": LAYOUT, "status": "finished"}, sys.stdout)
    other.path.mkdir(parents=True)
    try:
        other.manifest["model"] = str(tiny)
        other.save()
        with World().server as server:
            given = words(run, server.url, PROFILES, "engine=transformers", "max_new_tokens=8")
            done = launch("eval", *given, f"checkpoints=[{run}-other/sft]")
            assert done.returncode == 0, done.stdout + done.stderr
        name = f"{run}-other-sft"
        rows = [json.loads(line) for line in Path("runs", run, f"eval/responses.{name}.clients.jsonl").open("rb")]
        assert len(rows) == 1 and rows[0]["tokens"] > 0 and not rows[0]["failed"]
        report = Path("runs", run, "eval/report.md").read_text(encoding="utf-8")
        assert f"| {name} (20" in report and "| a: kind (20" in report
    finally:
        shutil.rmtree(other.path.parent)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["client.base_url=null"], "client: base_url missing"),
        (["endpoints={x: {base_url: URL, model: m}, x: {base_url: URL, model: n}}"], "endpoints: x stands twice"),
        (["endpoints.c.base_url=URL", "endpoints.c.model=kind"], "endpoints.c: a is of model 'kind' too"),
        (["endpoints.sft.base_url=URL", "endpoints.sft.model=m"], "endpoints.sft: a name has letters"),
        (["checkpoints=[nowhere/sft]"], "run nowhere has no checkpoint=sft"),
        (["checkpoints=[nowhere]"], "checkpoints: nowhere: takes RUN/CHECKPOINT"),
        (["judges.mild.replies=nowhere"], "judges.mild: base_url is not for recorded replies"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(run, given, told):
    url = "http://127.0.0.1:9/v1"
    given = [word.replace("URL", url) for word in given]
    keys = {word.split("=")[0] for word in given}
    kept = [word for word in words(run, url, PROFILES) if word.split("=")[0] not in keys]
    if "endpoints" in keys:
        kept = [word for word in kept if not word.startswith("endpoints.")]
    done = launch("eval", *kept, *given)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not Path("runs", run).exists()


def test_a_dry_run_counts_what_sessions_take_at_most(run):
    done = launch("eval", *words(run, "http://127.0.0.1:9/v1", PERSONAS, PROFILES, "dry_run=true"))
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert (
        "crisis: 3 sessions with 3 clients: at most 9 requests to each model, and for each 12 to the client's" in told
    )
    assert (
        "clients: 3 sessions with 1 clients: at most 6 requests to each model, and for each 6 to the client's" in told
    )
    assert not Path("runs", run).exists()
