"""SFT with the recipes' own DeepSpeed files on two gloo ranks, killed and continued. Slow."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.launch.test_training import SFT, kill_when, losses, prepare

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", [3, 2])
def test_sft_with_deepspeed_killed_and_continued_has_the_losses_of_an_uninterrupted_run(run_name, stage):
    two = [word for word in SFT if not word.startswith("per_device")]
    two += ["cards=2", "per_device_train_batch_size=8", "gradient_accumulation_steps=2"]
    words = [*two, f"deepspeed=recipes/deepspeed/zero{stage}.json"]
    names = [f"{run_name}-{stage}-{kind}" for kind in ("killed", "whole", "plain")]
    prepare(run_name)
    try:
        for name in names:
            shutil.copytree(REPOSITORY / "runs" / run_name, REPOSITORY / "runs" / name)
        killed, whole, plain = names
        kill_when(Path("runs", killed, "sft/model/checkpoint-3/trainer_state.json"), "sft", *words, f"run={killed}")
        for name in (killed, whole):
            done = launch("sft", *words, f"run={name}")
            assert done.returncode == 0, done.stdout + done.stderr
        done = launch("sft", *two, f"run={plain}")  # without DeepSpeed: the same batches, so the same losses
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Resuming training from" in Path("runs", killed, "sft/train.log").read_text()
        assert losses(killed).keys() == losses(whole).keys() == set(range(1, 7))
        for step, loss in losses(whole).items():
            assert abs(losses(killed)[step] - loss) < 1e-5
            assert abs(losses(plain)[step] - loss) < 1e-3
    finally:
        for name in (run_name, *names):
            shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)
