"""A checkpoint that was cut off is set aside with its reason, and the newest whole one is continued from."""

import json

import pytest
import torch
from safetensors.torch import save_file

from launch.frameworks import verl
from launch.running import checkpoints, hashes


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


def test_a_checkpoint_without_the_random_state_of_one_of_its_ranks_is_set_aside(sft):
    """A kill between the last file of rank 0 and that of rank 1: the rows would come in another order, unsaid."""
    folder = sft / "checkpoint-6"
    (folder / "global_step6").mkdir()
    for rank in range(2):
        torch.save({}, folder / f"global_step6/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        torch.save({}, folder / f"rng_state_{rank}.pth")
    assert checkpoints.prepare_sft(sft) == []
    (folder / "rng_state_1.pth").unlink()
    (line,) = checkpoints.prepare_sft(sft)
    assert "step 6 is not whole" in line and "rng_state_1.pth is missing" in line


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


def test_a_kill_between_checkpoint_and_log_leaves_no_gap(tmp_path):
    """verl goes on from step 3; what stands before its checkpoints has step 2."""
    lines = {
        "metrics.1.jsonl": [(1, {"reward": 0.1, "validation": 0.5})],
        "before_checkpoint.1.jsonl": [(1, {"reward": 0.1}), (2, {"reward": 0.2})],
        "metrics.2.jsonl": [(3, {"reward": 0.3})],
        "before_checkpoint.2.jsonl": [(3, {"reward": 0.3})],
    }
    for name, steps in lines.items():
        text = "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps)
        (tmp_path / name).write_text(text + '{"step": 4, "da')  # of a kill amid a line
    steps = verl.collect_metrics(tmp_path)
    assert steps == [
        {"step": 1, "reward": 0.1, "validation": 0.5},
        {"step": 2, "reward": 0.2},
        {"step": 3, "reward": 0.3},
    ]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3


def test_bytes_that_changed_since_they_were_written_set_a_checkpoint_aside(sft):
    hashes.record(sft.parent, [sft / f"checkpoint-{step}" for step in (2, 4, 6)])
    assert checkpoints.prepare_sft(sft) == []
    weights = sft / "checkpoint-6" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-200:] = bytes(200)
    weights.write_bytes(content)
    (line,) = checkpoints.prepare_sft(sft)
    assert "model.safetensors is not as it was written" in line and "goes on from step 4" in line
    (sft / "checkpoint-4" / "optimizer.pt").unlink()
    (line,) = checkpoints.prepare_sft(sft)
    assert "optimizer.pt is missing" in line and "goes on from step 2" in line
    hashes.record(sft.parent, [sft / "checkpoint-2"])
    assert list(hashes.recorded(sft.parent)) == ["checkpoint-2"]


def test_a_checkpoint_of_another_model_is_set_aside(sft, tmp_path):
    base = tmp_path / "base"
    for folder, size in ((base, 64), (sft / "checkpoint-6", 128), (sft / "checkpoint-4", 64)):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": size}))
    (line,) = checkpoints.prepare_sft(sft, base)
    assert "it is of another model (hidden_size 128, here 64)" in line and "goes on from step 4" in line


def test_verls_weights_that_were_deleted_are_no_checkpoint(tmp_path):
    """max_actor_ckpt_to_keep: 1 leaves data.pt of earlier steps; the newest one cut, the training starts anew."""
    for step in (2, 4, 6):
        (tmp_path / f"global_step_{step}").mkdir()
        torch.save({"position": step}, tmp_path / f"global_step_{step}/data.pt")
    actor = tmp_path / "global_step_6/actor"
    actor.mkdir()
    for kind in ("model", "optim", "extra_state"):
        torch.save({"w": torch.ones(64)}, actor / f"{kind}_world_size_1_rank_0.pt")
    (tmp_path / checkpoints.TRACKER).write_text("6")
    contents = ("model", "optimizer", "extra")
    assert checkpoints.prepare_grpo(tmp_path, contents=contents) == []
    (actor / "optim_world_size_1_rank_0.pt").unlink()
    (line,) = checkpoints.prepare_grpo(tmp_path, contents=contents)
    assert "optim_world_size_1_rank_0.pt is missing" in line and "starts from its beginning" in line
    assert not (tmp_path / checkpoints.TRACKER).exists() and checkpoints.last_step(tmp_path) == 0
