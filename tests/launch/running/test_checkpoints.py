"""A checkpoint that was cut off is set aside with its reason, and the newest whole one is continued from."""

import json

import pytest
import torch
from safetensors.torch import save_file

from launch.running import checkpoints


@pytest.fixture
def sft(tmp_path):
    """Checkpoints 2, 4 and 6, as transformers writes them."""
    for step in (2, 4, 6):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.ones(64, 64)}, folder / "model.safetensors", {"format": "pt"})
        torch.save({"m": torch.ones(64)}, folder / "optimizer.pt")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return tmp_path


def left(folder, pattern):
    return sorted(p.name for p in folder.glob(pattern))


def test_whole_checkpoints_are_left_alone(sft):
    assert checkpoints.prepare_sft(sft) == []
    assert left(sft, "*") == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert checkpoints.prepare_sft(sft / "absent") == []


@pytest.mark.parametrize(
    ("name", "keep", "reason"),
    [
        ("model.safetensors", 500, "model.safetensors is cut off"),
        ("model.safetensors", 4, "model.safetensors is cut off"),
        ("model.safetensors", 0, "model.safetensors is cut off"),
        ("optimizer.pt", 100, "optimizer.pt is cut off"),
        ("trainer_state.json", 5, "trainer_state.json is missing or cut off"),
        ("trainer_state.json", None, "trainer_state.json is missing or cut off"),
    ],
)
def test_a_cut_file_sets_its_checkpoint_aside(sft, name, keep, reason):
    path = sft / "checkpoint-6" / name
    path.unlink() if keep is None else path.write_bytes(path.read_bytes()[:keep])
    (line,) = checkpoints.prepare_sft(sft)
    assert "step 6 is not whole" in line and reason in line and "checkpoint-6.broken" in line
    assert left(sft, "*") == ["checkpoint-2", "checkpoint-4", "checkpoint-6.broken"]


def test_every_cut_one_is_set_aside_up_to_a_whole_one(sft):
    for step in (4, 6):
        (sft / f"checkpoint-{step}" / "trainer_state.json").unlink()
    (sft / "checkpoint-6.broken").mkdir()  # from an earlier time
    assert len(checkpoints.prepare_sft(sft)) == 2
    assert left(sft, "*") == ["checkpoint-2", "checkpoint-4.broken", "checkpoint-6.broken", "checkpoint-6.broken2"]


def test_verls_tracker_goes_back_to_the_newest_whole_step(tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"global_step_{step}/actor").mkdir(parents=True)
        torch.save({"w": torch.ones(64)}, tmp_path / f"global_step_{step}/actor/model_world_size_1_rank_0.pt")
    (tmp_path / checkpoints.TRACKER).write_text("2")  # step 3 was being written
    assert checkpoints.prepare_grpo(tmp_path) == []
    shard = tmp_path / "global_step_2/actor/model_world_size_1_rank_0.pt"
    shard.write_bytes(shard.read_bytes()[:200])
    (line,) = checkpoints.prepare_grpo(tmp_path)
    assert "step 2 is not whole: actor/model_world_size_1_rank_0.pt" in line
    assert checkpoints.last_step(tmp_path) == 1
    (tmp_path / "global_step_1/actor/model_world_size_1_rank_0.pt").write_bytes(b"")
    assert len(checkpoints.prepare_grpo(tmp_path)) == 1
    assert checkpoints.last_step(tmp_path) == 0 and not (tmp_path / checkpoints.TRACKER).exists()
