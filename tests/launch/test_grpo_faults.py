"""GRPO runs that fail in eight ways: the last ten lines name the cause, and no killed worker hangs the run. Slow."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.launch import tiny_model
from tests.launch.test_training import GRPO, prepare

pytestmark = pytest.mark.slow

WORDS = [word for word in GRPO if "custom_reward_function.path" not in word]
REWARD = "reward.custom_reward_function"
FAULTY = f"{REWARD}.path=tests/launch/faulty_reward.py"
# {case: (words, what the last ten lines say)}
FAULTS = {
    "missing file": (["actor_rollout_ref.rollout.agent.agent_loop_config_path=/nowhere/l.yaml"], "/nowhere/l.yaml"),
    "reward raises": ([f"{REWARD}.reward_kwargs={{fault: raises}}"], "ValueError: planted: the reward cannot read"),
    "host memory": (["psyforge.env.RAY_memory_usage_threshold='0.01'"], "OutOfMemoryError"),
    "port in use": ([f"{REWARD}.reward_kwargs={{fault: port, port: PORT}}"], "Address already in use"),
    "missing package": ([f"{REWARD}.reward_kwargs={{fault: package}}"], "No module named 'no_such_package_of_anybody'"),
    "checkpoint unwritable": ([], "global_step_1"),
}  # fmt: skip
KILLED = {"rollout worker": ("ray::HFServer", "HFServer"), "Ray": ("raylet", "raylet|Raylet|Ray")}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.make_as_large(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(run_name) -> str:
    prepare(run_name)
    return run_name


@pytest.fixture
def name(prepared, request):
    """A run of its own with the prepared data."""
    name = f"{prepared}-{re.sub('[^a-z]', '', request.node.name)[:40]}"
    shutil.copytree(Path("runs", prepared), Path("runs", name))
    yield name
    shutil.rmtree(Path("runs", name))


def start(name: str, model: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.grpo", *WORDS, FAULTY, f"run={name}", f"base_model={model}", *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def last_ten(output: str) -> str:
    return "\n".join(output.rstrip().splitlines()[-10:])


@pytest.mark.parametrize("fault", FAULTS)
def test_the_last_ten_lines_name_the_cause(fault, name, model):
    words, says = FAULTS[fault]
    if fault == "checkpoint unwritable":  # root may write everywhere, so a file takes the folder's place
        Path("runs", name, "grpo/checkpoints").mkdir(parents=True)
        Path("runs", name, "grpo/checkpoints/global_step_1").touch()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        words = [word.replace("PORT", str(listener.getsockname()[1])) for word in words]
        output, _ = (run := start(name, model, *words)).communicate(timeout=900)
    _keep(fault, name, output)
    assert run.returncode == 1, output
    assert says in last_ten(output), output


@pytest.mark.parametrize("killed", KILLED)
def test_a_killed_worker_ends_the_run_within_two_minutes(killed, name, model):
    process, says = KILLED[killed]
    run = start(name, model)
    log = Path("runs", name, "grpo/train.log")
    while run.poll() is None and not (log.is_file() and "Training Progress" in log.read_text(errors="replace")):
        time.sleep(0.2)
    children = psutil.Process(run.pid).children(recursive=True)
    (victim,) = [p for p in children if any(process in word for word in p.cmdline()[:1])]
    victim.kill()
    killed_at = time.monotonic()
    output, _ = run.communicate(timeout=300)
    _keep(killed, name, output)
    assert time.monotonic() - killed_at < 120
    assert run.returncode == 1, output
    assert re.search(says, last_ten(output)), output


def _keep(fault: str, name: str, output: str) -> None:
    """Copies what a run told to $PSYFORGE_KEEP, for who wants to look at it."""
    if folder := os.environ.get("PSYFORGE_KEEP"):
        Path(folder).mkdir(exist_ok=True)
        shutil.copy(Path("runs", name, "grpo/train.log"), Path(folder, f"{fault}.log"))
        Path(folder, f"{fault}.out").write_text(output)
