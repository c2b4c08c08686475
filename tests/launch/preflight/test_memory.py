"""Memory and disk estimates: parameters as the model cards count them, states as AdamW holds them."""

import json
from types import SimpleNamespace

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import Stage, parse
from launch.cli.configuration import compose_stage
from launch.models import tiny
from launch.preflight import memory
from tests.conftest import launch
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
    whole = memory.sft_memory(model, 1, 1, zero=0, lora=False, fused_loss=False).states
    assert round(whole / 1e9) == 122  # "about 112 GB for 7B": 16 bytes each
    assert memory.sft_memory(model, 1, 8, zero=3, lora=False, fused_loss=False).states == whole / 8
    assert 1 / 8 < memory.sft_memory(model, 1, 8, zero=2, lora=False, fused_loss=False).states / whole < 1 / 4
    assert memory.sft_memory(model, 1, 1, zero=0, lora=True, fused_loss=False).states == whole / 8
    one, two = (memory.activations(model, tokens, 4) for tokens in (1000, 2000))
    assert two == 2 * one
    assert memory.activations(model, 1000, 0) < one


def test_a_gpu_that_cannot_hold_the_states_is_refused_and_a_tight_one_is_warned_of():
    def of(rows: int = 4, world: int = 1, lora: bool = False) -> memory.Memory:
        return memory.Memory((6 if lora else 60 / world) * 2**30, 7.5 * rows * 2**30)

    def here(of, ways: memory.Ways, gpus: list[int], check: bool = True) -> list[str]:
        return memory.gpu_notes(of, ways, gpus, check)

    ways = memory.Ways("batch", 4, 1, "lora=64")
    assert here(of, ways, [141 * 2**30]) == [of().note()]
    fit = "what fits: batch=2; or 2 cards (cards= x nodes=); or lora=64 (recipe=psyche_r1_lora)"
    assert here(of, ways, []) == [of().note(), f"WARNING: a GPU of 80 GiB is too small; {fit}"]
    assert here(of, ways, [141 * 2**30, 80 * 2**30])[1] == f"WARNING: the smallest GPU has 80 GiB; {fit}"
    with pytest.raises(BadInput, match="the smallest GPU has 24 GiB; what fits: lora=64 batch=1"):
        here(of, ways, [24 * 2**30])
    with pytest.raises(BadInput, match="the smallest GPU has 8 GiB; a smaller base_model= fits"):
        here(of, ways, [8 * 2**30])
    assert here(of, ways, [8 * 2**30], check=False)[1].startswith("WARNING: the smallest GPU has 8 GiB; a smaller")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path):
    assert "GiB are free" in memory.check_disk(tmp_path / "not" / "yet", 1, "save_total_limit=1", True)
    with pytest.raises(BadInput, match="checkpoints take about 1073741824.0 GiB; keep fewer .save_total_limit=1"):
        memory.check_disk(tmp_path, 2**60, "save_total_limit=1", True)


@pytest.mark.parametrize(
    ("stage", "key", "of"),
    [("sft", "model_name_or_path", memory.for_sft), ("grpo", "actor_rollout_ref.model.path", memory.for_grpo)],
)
def test_paper_recipes_come_with_an_estimate(stage, key, of, monkeypatch):
    command = parse(Stage(stage, base_model_key=key), ["recipe=psyche_r1", "hardware=gpu8"])
    config = compose_stage(Stage(stage, base_model_key=key), command)
    monkeypatch.setattr(memory, "gpu_memory", list)
    line, *more = of(config, "Qwen/Qwen2.5-7B-Instruct", 100, 3072, check=False)
    assert "= 14 weights, gradients and optimizer" in line
    assert len(of_card(more)) == 2 * (stage == "grpo")  # the published micro batch
    assert more[-2].startswith("disk: checkpoints and model take about ") and more[-1].startswith("memory of each mach")
    free = SimpleNamespace(free=10 * 2**30)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(BadInput, match="10.0 GiB are free"):
        of(config, "Qwen/Qwen2.5-7B-Instruct", 100, 3072, check=True)
    assert of(config, "owner/unknown", 100, 3072, check=True) == []


def test_the_bytes_of_verls_loss_are_those_that_torch_takes():
    """The peak of verl's own log-probabilities, forward and backward, per logit of the vocabulary."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from verl.utils import torch_functional

    if torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE:
        pytest.skip("flash-attn's kernel, which needs a GPU, would be taken")
    tokens, vocabulary = 256, 4000
    hidden = torch.randn(tokens, 8).to(torch.bfloat16).requires_grad_()
    head, labels = torch.randn(8, vocabulary).to(torch.bfloat16), torch.randint(0, vocabulary, (tokens,))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        logits = hidden @ head
        torch_functional.logprobs_from_logits(logits, labels).sum().backward()
    now = peak = 0
    for event in measured.profiler.kineto_results.events():  # pyright: ignore[reportOptionalMemberAccess]
        if event.name() == "[memory]":
            now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            peak = max(peak, now)
    assert abs(peak / (tokens * vocabulary) - memory.grpo_logit_bytes(fused_kernels=False)) < 0.1


def of_card(notes: list[str]) -> list[str]:
    return [note for note in notes if not note.startswith(("disk", "memory of each machine"))]


def grpo(*words: str):
    stage = Stage("grpo", base_model_key="actor_rollout_ref.model.path")
    return compose_stage(stage, parse(stage, ["recipe=psyche_r1", *words]))


def test_a_micro_batch_that_cannot_stand_is_said_with_what_does(monkeypatch):
    model = "Qwen/Qwen2.5-7B-Instruct"

    def of(*given, check):
        return of_card(memory.for_grpo(*given, check=check))

    monkeypatch.setattr(memory, "gpu_memory", list)
    _, fits, line = of(grpo("hardware=gpu8"), model, None, 3072, check=False)
    assert fits.endswith("what fits: actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=10")
    assert "ppo_micro_batch_size_per_gpu=20: on 80 GiB it stands only while its rows have at most 2572 tokens" in line
    rows = grpo("hardware=gpu8", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=10")
    assert len(of(rows, model, None, 3072, check=False)) == 1
    assert len(of(grpo("hardware=gpu8"), model, None, 2000, check=False)) == 1
    assert (
        len(of(grpo("hardware=gpu8", "actor_rollout_ref.actor.use_dynamic_bsz=true"), model, None, 9999, check=False))
        == 1
    )
    monkeypatch.setattr(memory, "gpu_memory", lambda: [141 * 2**30] * 8)
    monkeypatch.setattr(memory, "check_disk", lambda *_: "disk")
    assert len(of(grpo("hardware=gpu8"), model, None, 3072, check=True)) == 1
    monkeypatch.setattr(memory, "gpu_memory", lambda: [48 * 2**30] * 8)
    notes = of(grpo("hardware=gpu8"), model, None, 3072, check=True)
    assert notes == of(grpo("hardware=gpu8"), model, None, 3072, check=False)  # a dry run counts with these cards too
    assert "WARNING: the smallest GPU has 48 GiB" in notes[1] and "on 48 GiB it stands only while" in notes[2]


def test_a_dense_mask_and_the_loss_of_flash_attention_are_counted(monkeypatch):
    model, tokens = shape("Qwen/Qwen2.5-7B-Instruct"), 61_440
    with_mask, without = (memory.grpo_memory(model, tokens, 8, False, 6, mask) for mask in (True, False))
    assert with_mask.activations - without.activations == tokens**2
    assert memory.grpo_logit_bytes(fused_kernels=True) == 0
    monkeypatch.setattr(memory.gpu, "installed", lambda package: package == "flash-attn")
    assert memory.grpo_logit_bytes(fused_kernels=False) == 4


def test_a_dry_run_of_grpo_estimates_before_there_is_a_model(run_name):
    done = launch("grpo", "recipe=psyche_r1", "hardware=gpu8", f"run={run_name}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "# memory per GPU, estimated: 93 GiB = 14 weights" in done.stdout
    assert "ppo_micro_batch_size_per_gpu=20: on 80 GiB it stands only" in done.stdout


def test_the_audit_shows_where_the_published_micro_batch_cannot_stand():
    done = launch("audit", "recipe=psyche_r1", "hardware=gpu8")
    assert done.returncode == 0, done.stdout
    assert "as published" in done.stdout and "on 80 GiB it stands only" in done.stdout
