"""Several nodes, on this machine: torchrun's rendezvous for SFT, a separately started Ray cluster for GRPO. Slow."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.launch.executors.cluster import free_port, submit
from tests.launch.test_training import GRPO, SFT, prepare

pytestmark = pytest.mark.slow


def losses(name: str) -> list[float]:
    history = json.loads(Path("runs", name, "sft/model/trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_two_nodes_train_as_two_processes_on_one(run_name):
    one, two = f"{run_name}-one", f"{run_name}-two"
    words = [w for w in SFT if "per_device" not in w] + ["per_device_train_batch_size=16"]
    try:
        for name in (one, two):
            prepare(name)
        done = launch("sft", *words, f"run={one}", "cards=2")
        assert done.returncode == 0, done.stdout + done.stderr
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        command = [sys.executable, "-m", "launch.sft", *words, f"run={two}", "nodes=2"]
        nodes = [
            subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **meeting, "NODE_RANK": str(rank)})
            for rank in (0, 1)
        ]
        assert [node.wait(600) for node in nodes] == [0, 0]
        assert len(losses(one)) == len(losses(two)) == 6
        for a, b in zip(losses(one), losses(two), strict=True):
            assert abs(a - b) < 1e-4
    finally:
        for name in (one, two):
            shutil.rmtree(Path("runs", name), ignore_errors=True)


@pytest.fixture
def cluster(tmp_path):
    """A Ray cluster of one node on loopback, in one process; yields (address, dashboard address, environment)."""
    port, dashboard = free_port(), free_port()
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray = str(Path(sys.executable).with_name("ray"))
    command = [sys.executable, ray, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=14",
               "--num-gpus=1", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--block"]  # fmt: skip
    with open(tmp_path / "ray.log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=REPOSITORY)
    try:
        for _ in range(120):
            try:
                socket.create_connection(("127.0.0.1", dashboard), 1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", env
    finally:
        process.terminate()
        process.wait(60)


def test_grpo_runs_as_a_job_on_a_ray_cluster_that_runs_already(cluster, run_name):
    address, dashboard, env = cluster
    prepare(run_name)
    done = launch("sft", *SFT, f"run={run_name}")
    assert done.returncode == 0, done.stderr
    words = " ".join(f"'{w}'" for w in (*GRPO, f"run={run_name}"))
    job = f"cd '{REPOSITORY}' && '{sys.executable}' -m launch.grpo {words}"
    submitted = submit(dashboard, job, env)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    manifest = json.loads(Path("runs", run_name, "grpo/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["counts"]["steps"] == 3
    port = address.split(":")[1]  # Ray puts the node's own address before it
    assert re.search(rf"^ *address: \S+:{port}$", Path("runs", run_name, "grpo/verl.yaml").read_text(), re.MULTILINE)
