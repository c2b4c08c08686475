"""SFT with the recipes' own DeepSpeed file on two gloo ranks, killed and continued. Slow."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.launch.test_training import SFT, kill_when, losses, prepare

pytestmark = pytest.mark.slow


def test_zero3_killed_and_continued_has_the_losses_of_an_uninterrupted_run(run_name):
    words = [word for word in SFT if not word.startswith("per_device")]
    words += ["cards=2", "per_device_train_batch_size=8", "gradient_accumulation_steps=2"]
    words += ["deepspeed=recipes/hardware/deepspeed/zero3.json"]
    whole = f"{run_name}-whole"
    try:
        for name in (run_name, whole):
            prepare(name)
        kill_when(Path("runs", run_name, "sft/model/checkpoint-3/trainer_state.json"), "sft", *words, f"run={run_name}")
        for name in (run_name, whole):
            done = launch("sft", *words, f"run={name}", timeout=1800)
            assert done.returncode == 0, done.stdout + done.stderr
            log = Path("runs", name, "sft/train.log").read_text()
            assert "distributed & accumulation) = 32" in log  # on a CPU each rank was a world of its own
            assert ("Resuming training from" in log) == (name == run_name)
        assert losses(run_name).keys() == losses(whole).keys() == set(range(1, 7))
        for step, loss in losses(whole).items():
            assert abs(losses(run_name)[step] - loss) < 1e-5, (losses(run_name), losses(whole))
    finally:
        shutil.rmtree(REPOSITORY / "runs" / whole, ignore_errors=True)
