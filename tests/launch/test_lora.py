"""An adapter from end to end: SFT, folded; GRPO, merged and folded; evaluated; and what is no whole model. Slow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.models import adapter
from tests.conftest import REPOSITORY, launch, refused
from tests.launch.test_training import GRPO, SFT, metrics, prepare

pytestmark = pytest.mark.slow

LORA = ("finetuning_type=lora", "lora_rank=4", "lora_alpha=8", "lora_target=all", "learning_rate=1e-2")
ACTOR = ("actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8",
         "actor_rollout_ref.actor.optim.lr=1e-2")  # fmt: skip


def manifest(name: str, stage: str) -> dict:
    return json.loads(Path("runs", name, stage, "manifest.json").read_text())


def test_sft_grpo_merge_and_evaluation_with_adapters(run_name):
    prepare(run_name)
    done = launch("sft", *SFT, *LORA, f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    sft = manifest(run_name, "sft")
    assert sft["model"] == f"runs/{run_name}/sft/model" and sft["counts"]["fold_logprob_diff"] < 1e-4
    assert (Path("runs", run_name, "sft/adapter") / adapter.CONFIG).is_file()
    assert not (Path(sft["model"]) / adapter.CONFIG).exists()

    done = launch("grpo", *GRPO, *ACTOR, f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(step["training/rollout_probs_diff_max"] for step in metrics(run_name)) < 1e-4
    done = launch("merge", f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    merged = manifest(run_name, "merge")
    assert merged["counts"]["fold_logprob_diff"] < 1e-4 and merged["counts"]["max_logprob_diff"] < 1e-5
    assert not (Path(merged["model"]) / "lora_adapter").exists()
    done = launch("eval", "recipe=demo", "hardware=cpu", f"run={run_name}", "max_new_tokens=8",
                  "sets.grpo_prompts.samples=1")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(Path("runs", run_name, "eval/metrics.json").read_text())
    assert set(found["sets"]["heldout"]) == {"base", "sft", "grpo"}


def test_the_merged_model_has_what_the_adapter_learnt(run_name):
    """verl's own merger leaves the base's weights there."""
    from safetensors.torch import load_file

    before, after = (load_file(Path("runs", run_name, stage, "model/model.safetensors")) for stage in ("sft", "merge"))
    moved = {
        name
        for name in after
        if not (after[name].float() - before[name].float().to(after[name].dtype)).abs().max() == 0
    }
    assert moved and all("_proj" in name for name in moved)


def test_a_checkpoint_that_does_not_say_its_alpha_is_asked_for_it(run_name):
    shutil.rmtree(Path("runs", run_name, "merge"))
    (meta,) = Path("runs", run_name).glob("grpo/checkpoints/global_step_3/actor/lora_train_meta.json")
    meta.unlink()
    Path("runs", run_name, "grpo/checkpoints.json").unlink()  # as of a run that recorded no hashes
    refused(launch("merge", f"run={run_name}"), "adapter of rank 4 and no lora_train_meta.json", "lora_alpha=")
    done = launch("merge", f"run={run_name}", "lora_alpha=8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_adapter_where_a_whole_model_is_wanted_is_told_with_a_cure_that_works(run_name, tmp_path):
    trained = f"runs/{run_name}/sft/adapter"
    words = ("recipe=demo", "hardware=cpu", f"run={run_name}", f"base_model={trained}")
    for stage, more in (("sft", ()), ("grpo", ("grpo_prompts=8",))):
        message = refused(launch(stage, *words, *more), f"base_model={trained}: holds a LoRA adapter")
    cure = message.split("`python ")[1].split("`")[0].replace("NEW_FOLDER", str(tmp_path / "whole"))
    done = subprocess.run([sys.executable, *cure.split()], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "a whole model" in done.stdout, done.stderr
    again = subprocess.run([sys.executable, *cure.split()], cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 2 and "is there already" in again.stderr
    assert (tmp_path / "whole/model.safetensors").stat().st_size > 0
