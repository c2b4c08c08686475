"""SIGKILL at several points, and the same command again: as if nothing had happened. Slow."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import launch
from tests.launch.test_training import GRPO, SFT, kill_when, losses, metrics, prepare

pytestmark = pytest.mark.slow


def test_sft_killed_three_times_has_the_losses_of_an_uninterrupted_run(run_name):
    whole = f"{run_name}-whole"
    try:
        for name in (run_name, whole):
            prepare(name)
        for step in (1, 3, 5):
            checkpoint = Path("runs", run_name, f"sft/model/checkpoint-{step}/trainer_state.json")
            kill_when(checkpoint, "sft", *SFT, f"run={run_name}")
        for name in (run_name, whole):
            done = launch("sft", *SFT, f"run={name}")
            assert done.returncode == 0, done.stdout + done.stderr
        assert losses(run_name).keys() == losses(whole).keys() == set(range(1, 7))
        for step, loss in losses(whole).items():
            assert abs(losses(run_name)[step] - loss) < 1e-5
    finally:
        shutil.rmtree(Path("runs", whole), ignore_errors=True)


def test_grpo_killed_three_times_ends_at_the_right_step_also_after_an_epochs_end(run_name):
    """Eight prompts in batches of four: steps 2 and 4 end an epoch."""
    words = [w for w in GRPO if "total_training_steps" not in w] + ["trainer.total_epochs=3", f"run={run_name}"]
    folder = Path("runs", run_name, "grpo")
    for step in (1, 2, 4):
        kill_when(folder / f"checkpoints/global_step_{step}/data.pt", "grpo", *words)
    done = launch("grpo", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert metrics(run_name)[-1]["step"] == 6
    assert json.loads((folder / "manifest.json").read_text())["counts"]["steps"] == 6
    log = (folder / "train.log").read_text()
    resumed = [
        int(line.split("setting global step to ")[1].split()[0])
        for line in log.splitlines()
        if "setting global step to" in line
    ]
    assert resumed == sorted(resumed) and len(resumed) == 3
    rates = {s["step"]: s["actor/lr"] for s in metrics(run_name)}
    assert len(rates) == 6  # the scheduler's position came back with the checkpoint: every step has its rate
