"""Memory and disk estimates: parameters as the model cards count them, states as AdamW holds them."""

import json
from types import SimpleNamespace

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import Stage, parse
from launch.cli.configuration import compose_stage
from launch.models import tiny
from launch.preflight import memory
from tests.launch.frameworks.test_frameworks import SHAPE


def shape(model: str) -> memory.Shape:
    found = memory.shape(model)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "parameters"),  # as safetensors on the hub count them
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
    ],
)
def test_parameters_agree_with_the_published_counts(model, parameters):
    assert abs(shape(model).parameters / parameters - 1) < 1e-3


def test_a_local_models_own_configuration_is_read(tmp_path):
    tiny.make(tmp_path / "m", ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    from safetensors import safe_open

    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        counted = sum(file.get_tensor(name).numel() for name in file.keys())
    assert abs(shape(str(tmp_path / "m")).parameters / counted - 1) < 0.01
    (tmp_path / "m" / "config.json").write_text(json.dumps({"d_model": 3}))
    assert memory.shape(str(tmp_path / "m")) is None
    assert memory.shape("owner/name") is None


def test_states_are_sharded_and_frozen_weights_are_not_trained():
    model = shape("Qwen/Qwen2.5-7B-Instruct")
    whole = memory.sft_memory(model, 1, 1, sharded=False, lora=False, fused_loss=False).states
    assert round(whole / 1e9) == 122  # "about 112 GB for 7B": 16 bytes each
    assert memory.sft_memory(model, 1, 8, sharded=True, lora=False, fused_loss=False).states == whole / 8
    assert memory.sft_memory(model, 1, 1, sharded=False, lora=True, fused_loss=False).states == whole / 8
    one, two = (memory.activations(model, tokens, 4) for tokens in (1000, 2000))
    assert two == 2 * one
    assert memory.activations(model, 1000, 0) < one


def test_a_gpu_that_cannot_hold_the_states_is_refused_and_a_tight_one_is_warned_of():
    tight = memory.Memory(states=60 * 2**30, activations=30 * 2**30)
    assert memory.check_gpu_memory(tight, [], "x") == [tight.note()]
    assert len(memory.check_gpu_memory(tight, [141 * 2**30], "x")) == 1
    assert "WARNING: the smallest GPU has 80 GiB; use less" in memory.check_gpu_memory(
        tight, [141 * 2**30, 80 * 2**30], "use less"
    )
    with pytest.raises(BadInput, match="the smallest GPU has 24 GiB; use less"):
        memory.check_gpu_memory(tight, [24 * 2**30], "use less")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path):
    assert "GiB are free" in memory.check_disk(tmp_path / "not" / "yet", 1, "save_total_limit=1")
    with pytest.raises(BadInput, match="checkpoints take about 1073741824 GiB; keep fewer .save_total_limit=1"):
        memory.check_disk(tmp_path, 2**60, "save_total_limit=1")


@pytest.mark.parametrize(
    ("stage", "key", "of"),
    [("sft", "model_name_or_path", memory.for_sft), ("grpo", "actor_rollout_ref.model.path", memory.for_grpo)],
)
def test_paper_recipes_come_with_an_estimate(stage, key, of, monkeypatch):
    command = parse(Stage(stage, base_model_key=key), ["recipe=psyche_r1", "hardware=gpu8"])
    config = compose_stage(Stage(stage, base_model_key=key), command)
    (line,) = of(config, "Qwen/Qwen2.5-7B-Instruct", 100, 3072, check=False)
    assert "= 14 weights, gradients and optimizer" in line
    free = SimpleNamespace(free=10 * 2**30)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(BadInput, match="10 GiB are free"):
        of(config, "Qwen/Qwen2.5-7B-Instruct", 100, 3072, check=True)
    assert of(config, "owner/unknown", 100, 3072, check=True) == []
