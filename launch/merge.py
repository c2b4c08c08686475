"""The merge stage: a verl checkpoint -> a Hugging Face folder with a model card, proven by log-probabilities.

    python -m launch.merge run=NAME
    python -m launch.merge run=NAME step=16

Writes runs/NAME/merge/model/. verl's own merger writes bf16; the parity check puts the checkpoint's shards together on
its own, rounds them to the merged precision, and compares log-probabilities on a few prompts. The adapter of a LoRA
checkpoint, which verl's merger leaves beside its base, is folded in.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from launch.cli.arguments import MERGE, Command
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.models import adapter, local, parity
from launch.models.find import check_model
from launch.preflight import checks
from launch.running import checkpoints, hashes, shards
from launch.running.folder import finished_manifest, open_stage, read_manifest


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput for a missing or truncated checkpoint, StageFailed when parity does not hold."""
    argv = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    if config.dry_run:
        manifest, model = read_manifest(config.run, "grpo"), Path("runs") / config.run / "merge" / "model"
        known, notes = "global_step_N/actor", ["the checkpoint is not known before GRPO has finished"]
        if manifest and manifest["status"] == "finished":
            known, notes = find_checkpoint(manifest, config.step), []
        show_plan(as_dict(config), [*argv, "--local_dir", str(known), "--target_dir", str(model)], {}, notes)
        return
    grpo = finished_manifest(config.run, "grpo", f"python -m launch.grpo run={config.run}")
    actor = find_checkpoint(grpo, config.step)
    opened = open_stage(MERGE, config, {"checkpoint": actor}, command)
    model = opened.path / "model"
    if opened.done:
        console.print(f"merge: {model} is done already; nothing left to do")
        return
    shutil.rmtree(model, ignore_errors=True)
    log = opened.path / "merge.log"
    with log.open("wb") as file:
        argv += ["--local_dir", str(actor), "--target_dir", str(model)]
        merged = subprocess.run(argv, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if merged.returncode:
        raise StageFailed(f"verl's merger ended with {merged.returncode}; see {log}")
    alpha = 0.0
    if (model / "lora_adapter").is_dir():  # verl's merger leaves it beside its base
        full = shards.load_actor(actor)
        alpha = adapter.alpha_of(actor, adapter.of_checkpoint(full), config.lora_alpha)
        write_folded(model, adapter.folded(full, alpha))
    if not (model / "chat_template.jinja").exists() and (Path(grpo["model"]) / "chat_template.jinja").exists():
        shutil.copy(Path(grpo["model"]) / "chat_template.jinja", model)
    check_model(str(model), "merged model")

    prompts = checks.read_grpo_rows(Path(grpo["inputs"]["prompts"]["path"]))[: config.probes]
    found = compare(model, actor, [row["prompt"] for row in prompts], alpha)
    worst = max(found["max_logprob_diff"], found.get("fold_logprob_diff", 0.0))
    if not worst <= config.tolerance:
        raise StageFailed(
            f"the merged model differs from the checkpoint: log-probability by {worst:.2g} "
            f"(tolerance {config.tolerance:g}); {model} is not to be used"
        )
    (model / "README.md").write_text(model_card(config.run, grpo, found), encoding="utf-8")
    outputs = {p.name: p for p in sorted(model.iterdir()) if p.is_file()}
    opened.finish(outputs, found, model=str(model))
    lora = f"; the adapter folded in, equal to {found['fold_logprob_diff']:.1e}" if alpha else ""
    console.print(
        f"merge: {model}; log-probabilities equal the checkpoint's to {found['max_logprob_diff']:.1e} "
        f"({found['rounding_logprob_diff']:.1e} before rounding to {found['dtype']}){lora}"
    )


def find_checkpoint(grpo: dict, step: str | int) -> Path:
    """Returns the actor folder of the step; raises BadInput when it is missing, cut off, altered since it was written,
    or holds what would run code in verl's merger.
    """
    latest = Path(grpo["checkpoint"])
    folder = latest if step == "latest" else latest.with_name(f"global_step_{step}")
    actor = folder / "actor"
    if not (actor / "fsdp_config.json").is_file():
        there = sorted(p.name.removeprefix("global_step_") for p in latest.parent.glob("global_step_*"))
        raise BadInput(f"step={step}: no checkpoint in {folder}; saved steps: {', '.join(there) or 'none'}")
    why = checkpoints.missing(folder, ("model",)) or hashes.changed(latest.parent.parent, folder)
    if why or (why := checkpoints.fault(folder)):
        raise BadInput(f"{folder}: {why}; choose an earlier step=")
    return actor


def write_folded(model: Path, state: dict) -> None:
    """Puts the folded weights in the place of the base's, and takes away the adapter that stood beside them."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto", trust_remote_code=False)
    network.load_state_dict(state, strict=False)  # names are compared by `compare`
    network.save_pretrained(model)
    shutil.rmtree(model / "lora_adapter")


def compare(model: Path, actor: Path, prompts: list[list[dict]], alpha: float = 0.0) -> dict:
    """Returns the largest differences of the log-probabilities of the prompts' own tokens.

    `actor` is the checkpoint's folder, `alpha` that of its adapter. `max_logprob_diff` is against the checkpoint at
    the merged precision, `rounding_logprob_diff` against its full one; `fold_logprob_diff` is between the folded
    adapter and the one that peft runs beside its base, both in full precision.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = local.load_tokenizer(str(model))
    merged = AutoModelForCausalLM.from_pretrained(model, dtype="auto", trust_remote_code=False)
    dtype, full = merged.dtype, shards.load_actor(actor)
    whole = adapter.folded(full, alpha)
    ours = parity.log_probs(merged, tokenizer, prompts)
    if absent := sorted(set(whole) - set(merged.state_dict())):
        raise StageFailed(f"the merged model lacks {len(absent)} tensors of the checkpoint, such as {absent[0]}")

    def of(state: dict) -> parity.Probabilities:
        merged.load_state_dict(state, strict=False)
        return parity.log_probs(merged, tokenizer, prompts)

    rounded, exact = of({k: v.to(dtype).float() for k, v in whole.items()}), of(whole)
    found = {
        "max_logprob_diff": parity.difference(ours, rounded),
        "rounding_logprob_diff": parity.difference(ours, exact),
        "dtype": str(dtype).removeprefix("torch."),
        "probes": len(prompts),
        "tensors": len(full),
    }
    if alpha:
        beside = parity.log_probs(adapter.with_adapters(merged, full, alpha), tokenizer, prompts)
        found["fold_logprob_diff"] = parity.difference(exact, beside)
    return found


def model_card(run: str, grpo: dict, found: dict) -> str:
    """Returns the README.md of the merged model."""
    counts, packages = grpo["counts"], grpo["packages"]
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [psychology, grpo, psyforge]
---

# {run}

Trained with PsyForge: SFT with LLaMA-Factory {packages.get("llamafactory")}, GRPO with verl {packages.get("verl")}.

| | |
|---|---|
| started from | {grpo["model"]} |
| GRPO prompts, steps | {counts["prompts"]}, {counts["steps"]} |
| mean reward, first and last five steps | {counts["reward_first5"]:.3f}, {counts["reward_last5"]:.3f} |
| seed | {grpo["seed"]} |
| code | {grpo["code"]["commit"]}{" with local changes" if grpo["code"]["changed"] else ""} |
| merged precision | {found["dtype"]} |
| largest difference of log-probabilities to the checkpoint | {found["max_logprob_diff"]:.1e} |

A research artefact: not a medical device, not for diagnosis or treatment, not for people in crisis.
"""


if __name__ == "__main__":
    run_stage(MERGE, run)
