"""A synthesis as people start it on a cluster: `ray job submit`, the SLURM file, a node lost while a model is asked."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.data_pipeline import counsellor
from tests.data_pipeline.synthesis.test_run import contents, write_posts
from tests.launch.executors.cluster import ENVIRONMENT, cluster, free_port, kill, kill_tree, submit

pytestmark = pytest.mark.slow


@pytest.fixture
def names(run_name):
    """Returns the names of two runs; their folders are deleted afterwards."""
    yield f"{run_name}-one", f"{run_name}-ray"
    for name in (f"{run_name}-one", f"{run_name}-ray"):
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def data(name: str) -> Path:
    return REPOSITORY / "runs" / name / "data"


def words(name: str, posts: Path, url: str) -> list[str]:
    llm = [f"llm.base_url={url}", "llm.model=tiny", "llm.concurrency=4"]
    return ["recipe=psyllm", f"run={name}", f"posts={posts}", "llm=vllm", *llm, "split.grpo_dialogues=0"]


def test_a_node_lost_while_a_model_is_asked_changes_nothing(names, tmp_path):
    posts = write_posts(tmp_path / "posts.jsonl", counsellor.posts(24))
    with counsellor.server(latency=0.1) as server, cluster(tmp_path / "ray") as two:
        alone = launch("data", *words(names[0], posts, server.url))
        assert alone.returncode == 0, alone.stdout + alone.stderr
        calls = len(server.calls)

        def lose() -> None:
            while len(server.calls) < calls + 20:
                time.sleep(0.01)
            kill(two.nodes[0])

        loser = threading.Thread(target=lose, daemon=True)
        loser.start()
        env = {**os.environ, **ENVIRONMENT, "RAY_ADDRESS": two.address}
        done = launch("data", *words(names[1], posts, server.url), "executor=ray", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        loser.join(60)
        assert two.nodes[0].poll() is not None
        assert len(server.calls) == 2 * calls, "each call once"
    assert contents(data(names[0])) == contents(data(names[1]))


def test_a_synthesis_runs_as_a_ray_job(names, tmp_path):
    posts, dashboard = write_posts(tmp_path / "posts.jsonl", counsellor.posts(6)), free_port()
    with counsellor.server() as server, cluster(tmp_path / "ray", dashboard=dashboard):
        assert launch("data", *words(names[0], posts, server.url)).returncode == 0
        given = " ".join(f"'{word}'" for word in [*words(names[1], posts, server.url), "executor=ray"])
        job = f"cd '{REPOSITORY}' && '{sys.executable}' -m launch.data {given}"
        done = submit(f"http://127.0.0.1:{dashboard}", job, {**os.environ, **ENVIRONMENT})
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert contents(data(names[0])) == contents(data(names[1]))


SLURM = {  # srun runs its command here, whatever the node: `ray start` twice are two nodes
    "srun": """while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
        case $1 in hostname) echo 127.0.0.1; exit 0 ;; esac
        [[ $1 == *ray ]] && echo $$ >> "$PIDS"
        exec "$@" """,
    "scontrol": "printf 'node1\nnode2\n'",
}


def test_the_slurm_file_starts_ray_on_two_nodes_and_the_stage_on_the_first(names, tmp_path):
    posts = write_posts(tmp_path / "posts.jsonl", counsellor.posts(6))
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    file = tmp_path / "data.slurm"
    text = (REPOSITORY / "launch/cluster/data.slurm").read_text(encoding="utf-8")
    block = {
        "recipe=psyche_r1": "recipe=psyllm",
        "run=psyche_r1": f"run={names[1]}",
        "port=6379": f"port={free_port()}",
    }
    for given, ours in block.items():
        assert f"\n{given}\n" in text
        text = text.replace(f"\n{given}\n", f"\n{ours}\n")
    file.write_text(text, encoding="utf-8")
    env = {**os.environ, **ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]",
           "SLURM_CPUS_PER_TASK": "1", "PIDS": str(tmp_path / "pids")}  # fmt: skip
    env.pop("RAY_ADDRESS", None)
    with counsellor.server() as server:
        assert launch("data", *words(names[0], posts, server.url)).returncode == 0
        line = ["bash", str(file), *words(names[1], posts, server.url)[2:]]
        with (tmp_path / "log").open("wb") as log:
            job = subprocess.Popen(line, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
            try:
                code = job.wait(300)
            finally:
                for pid in (tmp_path / "pids").read_text().split():  # SLURM ends what a job leaves behind
                    kill_tree(int(pid))
        assert code == 0, (tmp_path / "log").read_text(errors="replace")[-3000:]
    assert contents(data(names[0])) == contents(data(names[1]))
