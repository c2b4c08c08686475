"""GRPO on a tiny model that has what the paper's model has: an untied head, and packed sequences. Slow."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import launch
from tests.launch import tiny_model
from tests.launch.test_training import GRPO, metrics, prepare

pytestmark = pytest.mark.slow


def test_grpo_with_an_untied_head_and_packed_sequences_computes_what_the_rollout_computed(run_name, tmp_path):
    prepare(run_name)
    model = tiny_model.make_as_large(tmp_path)
    packed = "actor_rollout_ref.model.use_remove_padding=true"
    done = launch("grpo", *GRPO, f"run={run_name}", f"base_model={model}", packed)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = metrics(run_name)
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert max(step["training/rollout_probs_diff_max"] for step in steps) < 1e-5
    assert any(step["actor/grad_norm"] > 0 for step in steps)
    shutil.rmtree(Path("runs", run_name))
