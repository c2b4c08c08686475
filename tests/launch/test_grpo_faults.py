"""GRPO runs that fail in eight ways, in one go, and one that only pauses. Slow: about ten minutes, and seven.

The last ten lines name the cause and a cure; a killed process ends the run within two minutes; five minutes without a
step end nothing. `pytest -s` shows the table.
"""

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
from tests.launch.test_training import GRPO, metrics, prepare

pytestmark = pytest.mark.slow

WORDS = [word for word in GRPO if "custom_reward_function.path" not in word]
REWARD = "reward.custom_reward_function"
MEMORY = "psyforge.env.RAY_memory_usage_threshold='0.01'"
# {cause: (reward's fault and its value, or a word; what the last ten lines say; the cure there)}
PLANTED = {
    "missing file": (("file", "/nowhere/x"), r"FileNotFoundError: .*/nowhere/x", "mend the path"),
    "reward raises": (("raises", ""), "ValueError: planted: the reward cannot", r"faulty_reward.py line \d+: mend it"),
    "host memory": (MEMORY, "OutOfMemoryError", "the machine's memory is full"),
    "port in use": (("port", "PORT"), "Address already in use", "another process listens at that port"),
    "missing package": (("package", ""), "No module named 'no_such_package", "bash launch/install.sh"),
    "checkpoint unwritable": ("", "global_step_1", "make its folder writable"),
    "killed rollout worker": ("ray::HFServer", "HFServer", "of Ray's was lost"),
    "killed Ray": ("raylet", "(?i)raylet|node", "of Ray's was lost"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.make_as_large(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(run_name) -> str:
    prepare(run_name)
    return run_name


def start(name: str, model: Path, fault: tuple[str, str] | str, *words: str) -> subprocess.Popen:
    kind, value = fault if isinstance(fault, tuple) else ("", "")
    kwargs = f"{REWARD}.reward_kwargs={{fault: '{kind}', value: '{value}'}}"
    faulty = (f"{REWARD}.path=tests/launch/faulty_reward.py", kwargs)
    command = [sys.executable, "-m", "launch.grpo", *WORDS, *faulty, f"run={name}", f"base_model={model}", *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def plant(cause: str, name: str, model: Path) -> tuple[int, float, str]:
    """Returns exit code, seconds (of a killed one from the kill on) and what the run has told."""
    fault, _, _ = PLANTED[cause]
    if cause == "checkpoint unwritable":  # root may write everywhere, so a file takes the folder's place
        Path("runs", name, "grpo/checkpoints").mkdir(parents=True)
        Path("runs", name, "grpo/checkpoints/global_step_1").touch()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if cause == "port in use":
            fault = ("port", str(listener.getsockname()[1]))
        began = time.monotonic()
        run = start(name, model, fault, *([MEMORY] if fault == MEMORY else []))
        if cause.startswith("killed"):
            kill(str(fault), run, Path("runs", name, "grpo/train.log"))
            began = time.monotonic()
        output, _ = run.communicate(timeout=900)
    return run.returncode, time.monotonic() - began, output


def kill(process: str, run: subprocess.Popen, log: Path) -> None:
    """Kills the child of that name once the first step is under way."""
    while run.poll() is None and not (log.is_file() and "Training Progress" in log.read_text(errors="replace")):
        time.sleep(0.2)
    children = psutil.Process(run.pid).children(recursive=True)
    (victim,) = [p for p in children if any(process in word for word in p.cmdline()[:1])]
    victim.kill()


def test_eight_planted_causes_are_named_with_their_cures(prepared, model):
    table, told = [], {}
    for cause, (_, says, cure) in PLANTED.items():
        name = f"{prepared}-{re.sub('[^a-z]', '', cause)}"
        shutil.copytree(Path("runs", prepared), Path("runs", name))
        try:
            code, seconds, output = plant(cause, name, model)
        finally:
            shutil.rmtree(Path("runs", name))
        told[cause] = last_ten = "\n".join(output.rstrip().splitlines()[-10:])
        named, cured = bool(re.search(says, last_ten)), bool(re.search(cure, last_ten))
        in_time = seconds < 120 or not cause.startswith("killed")
        table.append((cause, code == 1 and named and cured and in_time, code, named, cured, f"{seconds:.0f} s"))
    head = ("cause", "whole", "exit", "named", "cure", "time")
    shown = "\n".join(" | ".join(map(str, row)) for row in [head, *table])
    print(f"\n{shown}")
    failed = [row[0] for row in table if not row[1]]
    assert failed == [], "\n\n".join([shown, *(f"--- {cause}\n{told[cause]}" for cause in failed)])


def test_a_pause_of_five_minutes_in_a_healthy_step_survives(prepared, model, tmp_path):
    began = time.monotonic()
    run = start(prepared, model, ("pause", str(tmp_path / "paused")))
    output, _ = run.communicate(timeout=1800)
    assert run.returncode == 0, output
    assert time.monotonic() - began > 300 and (tmp_path / "paused").exists()
    assert [step["step"] for step in metrics(prepared)] == [1, 2, 3]
