"""Twelve SIGKILLs at random moments while a share of all requests fails: the files of an undisturbed run. Slow."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.data_pipeline import counsellor
from tests.data_pipeline.llm.conftest import database_server, new_database, query  # noqa: F401  (fixtures)
from tests.data_pipeline.synthesis.test_run import write_posts
from tests.launch.test_faulty_server import CORPUS, Faulty, posts
from tests.trust.test_disk import content

KILLS = 12


@pytest.mark.slow
@pytest.mark.parametrize(("share", "kind"), [(0.24, "sqlite"), (0.6, "sqlite"), (0.24, "postgres")])
def test_kills_and_faults_leave_no_trace(share, kind, tmp_path, run_name, request):
    chance = random.Random(f"kills {share}")
    given = write_posts(tmp_path / "posts.jsonl", posts(60))
    words = ["recipe=psyche_r1", f"passages={CORPUS}", f"posts={given}", "split.heldout=8", "llm=openai", "llm.model=m",
             "llm.api_key_env=null", "llm.attempts=3", "llm.concurrency=8", "llm.timeout_s=300",
             "selectors={one: {model: one}, two: {model: two}}"]  # fmt: skip
    whole, folder = Path("runs", f"{run_name}-whole"), Path("runs", run_name)
    ledgers = {one: one / "data" / "ledger.sqlite" for one in (whole, folder)}
    if kind == "postgres":
        ledgers = {one: request.getfixturevalue("new_database")("kills") for one in ledgers}
    faulty = Faulty()
    try:
        with counsellor.server(faulty) as server:
            faulty.server = server
            words.append(f"llm.base_url={server.url}")
            others = {one: [f"ledger={place}"] if kind == "postgres" else [] for one, place in ledgers.items()}
            done = launch("data", *words, f"run={whole.name}", *others[whole], timeout=900)
            assert done.returncode == 0, done.stderr
            undisturbed = faulty.asked.total()
            faulty.asked.clear()
            faulty.answered.clear()
            faulty.last.clear()
            words += [f"run={run_name}", *others[folder]]
            faulty.share, server.latency = share, 0.05
            killed = 0
            while killed < KILLS:
                run = subprocess.Popen([sys.executable, "-m", "launch.data", *words], cwd=REPOSITORY,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                seen = faulty.asked.total()
                while run.poll() is None and faulty.asked.total() == seen:
                    time.sleep(0.01)  # it has begun to ask
                time.sleep(chance.uniform(0, 3))
                if run.poll() is not None:
                    server.latency *= 2  # it was done: the others shall be caught
                    if run.returncode == 0:
                        break
                    continue
                run.send_signal(signal.SIGKILL)
                run.wait()
                killed += 1
            faulty.share, server.latency = 0, 0.0
            done = launch("data", *words, timeout=900)
            assert done.returncode == 0, done.stderr
            assert content(folder / "data") == content(whole / "data")
            keys = query(ledgers[folder], "SELECT key FROM calls WHERE finish != 'failed'")
            finished, twice = len(keys), len(keys) - len(set(keys))
            repeated = faulty.answered.total() - finished
            print(f"{share:.0%} faults, {killed} kills: {faulty.asked.total()} requests ({undisturbed} without), "
                  f"{finished} finished, {repeated} answers were in flight when a kill came")  # fmt: skip
            assert twice == 0 and repeated <= killed * 8
    finally:
        shutil.rmtree(whole, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
