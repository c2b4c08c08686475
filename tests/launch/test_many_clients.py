"""Several servers, several clients and other ledgers through the real commands."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import REPOSITORY, launch, refused
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.conftest import database_server, new_database, query  # noqa: F401  (fixtures)

POSTS = 40


@pytest.fixture
def run(run_name):
    yield run_name
    for folder in Path("runs").glob(f"{run_name}*"):
        shutil.rmtree(folder, ignore_errors=True)


def words_of(run: str, posts: Path, urls: list[str], *more: str) -> list[str]:
    lines = [
        {"id": f"p{n}", "title": f"第{n}件事", "text": f"{n}号的我心里很乱，{n * 7919}。", "replies": []}
        for n in range(POSTS)
    ]
    posts.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    llm = ("llm=vllm", "llm.model=m", f"llm.base_url=[{','.join(urls)}]", "llm.input_price=1", "llm.output_price=1")
    steps = "pipelines.posts=[clean,plan_dialogue,write_dialogue]"
    return ["data", "recipe=psyllm", f"run={run}", f"posts={posts}", *llm, steps, *more]


def places(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return str(tmp_path / "elsewhere.sqlite")
    return request.getfixturevalue("new_database")("clients")


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def test_a_second_client_joins_a_run_and_each_call_is_made_once(run, tmp_path, kind, request):
    place = places(kind, tmp_path, request)
    with counsellor.server() as one, counsellor.server() as two:
        one.latency = two.latency = 0.2
        words = words_of(run, tmp_path / "posts.jsonl", [one.url, two.url], f"ledger={place}", "llm.concurrency=4")
        refused(launch(*words, "join=true"), "elsewhere.sqlite; start the run first") if kind == "sqlite" else None
        command = [sys.executable, "-m", "launch.data", *words[1:]]
        first = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(one.calls) + len(two.calls) < 4:
            time.sleep(0.05)
            assert first.poll() is None, first.communicate()
        status = launch("data", "status", f"run={run}")
        joined = launch(*words, "join=true")
        told = first.communicate(timeout=300)
        assert first.returncode == 0, told
        assert joined.returncode == 0 and f"joined run={run}" in joined.stdout, joined.stdout + joined.stderr
        asked = [json.dumps(call.body, sort_keys=True) for call in (*one.calls, *two.calls)]
        assert len(set(asked)) == len(asked), "a call was made twice"
        assert one.calls and two.calls
    assert status.returncode == 0 and one.url in status.stdout and "calls/s" in status.stdout, status.stdout
    place = place if kind == "postgres" else Path(place)
    assert query(place, "SELECT COUNT(DISTINCT key), COUNT(*) FROM calls") == [(len(asked), len(asked))]
    assert not Path("runs", run, "data", "ledger.sqlite").exists()
    done = launch("data", "status", f"run={run}")
    assert "cost so far" in done.stdout and "slowest step" in done.stdout and "write_dialogue" in done.stdout
    manifest = json.loads(Path("runs", run, "data", "manifest.json").read_text())
    assert sum(calls["calls"] for calls in manifest["calls"]) == len(asked)
    other = words_of(f"{run}-other", tmp_path / "posts.jsonl", [one.url], f"ledger={place}")
    refused(launch(*other), f"it is the ledger of run={run}")
    assert not Path("runs", f"{run}-other").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["ledger=postgresql://me@127.0.0.1:9/db"], "ledger postgresql://me@127.0.0.1:9/db"),
        (["ledger=mysql://h/db"], "takes a file, or postgresql://"),
        (["join=true", "budget=1"], "say budget=null"),
        (["join=true"], "start the run first"),
        (["llm.base_url=[http://127.0.0.1:9/v1,http://localhost:9/v1]"], "stands twice"),
        (["llm.base_url=[http://127.0.0.1:9/v1,http://127.0.0.1:10/v1]"], "no server at http://127.0.0.1:9/v1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_paid(run, tmp_path, more, expected):
    words = [word for word in words_of(run, tmp_path / "posts.jsonl", ["http://127.0.0.1:9/v1"])
             if word.partition("=")[0] not in {one.partition("=")[0] for one in more}]  # fmt: skip
    refused(launch(*words, *more), expected)


@pytest.mark.slow
@pytest.mark.skipif(postgres.programs() is None, reason="Postgres is not installed")
def test_the_password_of_a_database_is_written_and_printed_nowhere(run, tmp_path, new_database):  # noqa: F811
    password = os.environ["PGPASSWORD"]
    with counsellor.server() as server:
        words = words_of(run, tmp_path / "posts.jsonl", [server.url], f"ledger={new_database('secret')}")
        told = [launch(*words), launch("data", "status", f"run={run}"), launch(*words, "dry_run=true")]
    assert [done.returncode for done in told] == [0, 0, 0], told[0].stderr
    with_it = words[:-1] + [words[-1].replace("psyforge@", f"psyforge:{password}@")]
    told.append(launch(*with_it))
    refused(told[-1], "ledger: what could be a key", "PGPASSWORD")
    assert not any(password in done.stdout + done.stderr for done in told)
    for file in Path("runs", run).rglob("*"):
        assert not file.is_file() or password.encode() not in file.read_bytes(), file
