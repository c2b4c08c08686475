"""Twelve SIGKILLs at random moments while a share of all requests fails: the files of an undisturbed run. Slow."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.data_pipeline import counsellor
from tests.data_pipeline.synthesis.test_run import write_posts
from tests.launch.test_faulty_server import CORPUS, Faulty, posts
from tests.trust.test_disk import content

KILLS = 12


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.24, 0.6])
def test_kills_and_faults_leave_no_trace(share, tmp_path, run_name):
    chance = random.Random(f"kills {share}")
    given = write_posts(tmp_path / "posts.jsonl", posts(60))
    words = ["recipe=psyche_r1", f"passages={CORPUS}", f"posts={given}", "split.heldout=8", "llm=openai", "llm.model=m",
             "llm.api_key_env=null", "llm.attempts=3", "llm.concurrency=8", "llm.timeout_s=300",
             "selectors={one: {model: one}, two: {model: two}}"]  # fmt: skip
    whole, folder = Path("runs", f"{run_name}-whole"), Path("runs", run_name)
    faulty = Faulty()
    try:
        with counsellor.server(faulty) as server:
            faulty.server = server
            words.append(f"llm.base_url={server.url}")
            done = launch("data", *words, f"run={whole.name}", timeout=900)
            assert done.returncode == 0, done.stderr
            undisturbed = faulty.asked.total()
            faulty.asked.clear()
            faulty.answered.clear()
            faulty.last.clear()
            faulty.share, server.latency = share, 0.05
            killed = 0
            while killed < KILLS:
                run = subprocess.Popen([sys.executable, "-m", "launch.data", *words, f"run={run_name}"], cwd=REPOSITORY,
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
            done = launch("data", *words, f"run={run_name}", timeout=900)
            assert done.returncode == 0, done.stderr
            assert content(folder / "data") == content(whole / "data")
            db = sqlite3.connect(folder / "data" / "ledger.sqlite")
            twice = db.execute("SELECT COUNT(*) FROM (SELECT key FROM calls WHERE finish != 'failed' GROUP BY key "
                               "HAVING COUNT(*) > 1)").fetchone()[0]  # fmt: skip
            finished = db.execute("SELECT COUNT(*) FROM calls WHERE finish != 'failed'").fetchone()[0]
            db.close()
            repeated = faulty.answered.total() - finished
            print(f"{share:.0%} faults, {killed} kills: {faulty.asked.total()} requests ({undisturbed} without), "
                  f"{finished} finished, {repeated} answers were in flight when a kill came")  # fmt: skip
            assert twice == 0 and repeated <= killed * 8
    finally:
        shutil.rmtree(whole, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
