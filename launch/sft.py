"""The SFT stage: LLaMA-Factory on the rows of the data stage.

    bash launch/sft.sh recipe=demo hardware=cpu run=NAME learning_rate=2e-3
    bash launch/sft.sh recipe=demo run=NAME base_model=Qwen/Qwen2.5-0.5B-Instruct dry_run=true

Writes runs/NAME/sft/: llama_factory.yaml (what the trainer gets), train.log, model/ (a Hugging Face folder with its
checkpoints and trainer_log.jsonl). Called again it continues from the newest checkpoint.
"""

import json
import os
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.records import BadInput
from launch import batch_plan, checkpoints, estimate, preflight, random_model, runs, stage
from launch.arguments import Command, Stage
from launch.configuration import llama_factory_keys

STAGE = Stage("sft", base_model_key="model_name_or_path")
RANDOM = "random"


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput before anything is written, StageFailed when the trainer fails."""
    folder = Path("runs") / config.run / "sft"
    base = f"runs/{config.run}/base" if config.model_name_or_path == RANDOM else config.model_name_or_path
    settings = {k: v for k, v in OmegaConf.to_container(config).items() if k in llama_factory_keys()}
    settings["model_name_or_path"] = base
    file = folder / "llama_factory.yaml"
    line, env = trainer_command(config, file), {"PYTHONPATH": str(Path.cwd()), **config.psyforge.env}
    data = Path(config.dataset_dir) / f"{config.dataset}.jsonl"
    if config.dry_run:
        rows = sum(1 for _ in data.open("rb")) if data.is_file() else None
        planned = plan(config, rows)
        notes = planned.lines() + ["rows unknown: the data stage has not run"] * (rows is None)
        notes += estimate.for_sft(config, base, planned.steps, config.cutoff_len, check=False)
        return stage.show_plan(OmegaConf.to_container(config), line, env, notes)

    if config.psyforge.nodes > 1 and (rank := node_rank()) > 0:
        return join(line, env, file, rank)
    if data.parent == Path("runs") / config.run / "data":
        runs.need(config.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={config.run}")
    rows = preflight.read_sft_rows(data.parent, config.dataset)
    if not rows:
        raise BadInput(
            f"{data}: no SFT row, since no question has a rationale. Map a rationale column, or skip SFT: "
            "python -m launch.grpo base_model=AN_INSTRUCT_MODEL"
        )
    planned = plan(config, len(rows))
    notes = planned.lines()
    if config.model_name_or_path != RANDOM:
        preflight.check_model(base, "base_model")
    if not config.get("use_cpu"):
        preflight.check_gpus(config.psyforge.processes, "psyforge.processes")
    elif config.finetuning_type == "full":
        preflight.check_memory_on_cpu(base, "base_model")
    if config.psyforge.nodes > 1:
        preflight.check_port_free(os.environ.get("MASTER_PORT", "29500"), "MASTER_PORT")
    notes += estimate.for_sft(config, base, planned.steps, config.cutoff_len, check=True)
    inputs = {"data": data, "dataset_info": data.parent / "dataset_info.json"}
    if config.model_name_or_path != RANDOM:
        inputs["base_model"] = Path(base)
    opened = runs.begin(STAGE, config, inputs, command)
    if opened.done:
        return stage.console.print(f"sft: {folder} is done already; nothing left to do")
    if config.model_name_or_path == RANDOM and not Path(base).exists():
        texts = [m["content"] for _, row in rows for m in row["messages"]] + _grpo_prompts(data.parent)
        random_model.make(Path(base), texts, config.seed, OmegaConf.to_container(config.psyforge.random_model))
    tokenizer = preflight.load_tokenizer(base)
    lengths = preflight.token_lengths(tokenizer, [row["messages"] for _, row in rows])
    notes += preflight.cut_rows(lengths, config.cutoff_len, [where for where, _ in rows], "cutoff_len")
    for note in notes + checkpoints.prepare_sft(Path(config.output_dir)):
        stage.console.print(f"  {note}")
    partial = file.with_suffix(".partial")
    OmegaConf.save(OmegaConf.create(settings), partial)
    partial.replace(file)  # other nodes start when they see it
    stage.run_trainer(
        line, env, folder / "train.log", lambda: progress(Path(config.output_dir)), "SFT", (opened.lock.fileno(),)
    )

    history = log_history(Path(config.output_dir))
    losses = [entry["loss"] for entry in history if "loss" in entry]
    counts = {
        "rows": len(rows),
        "steps": history[-1]["step"],
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "tokens_mean": round(sum(lengths) / len(lengths), 1),
        "rows_cut": sum(length > config.cutoff_len for length in lengths),
    }
    outputs = {
        p.name: p for p in sorted(Path(config.output_dir).iterdir()) if p.is_file() and not p.name.startswith("train")
    }
    opened.finish(outputs, counts, base_model=base, model=config.output_dir)
    first, last = counts["loss_first"], counts["loss_last"]
    stage.console.print(f"sft: {counts['steps']} steps, loss {first} -> {last}; model in {config.output_dir}")


def plan(config: DictConfig, rows: int | None) -> batch_plan.SftPlan:
    """Returns the checked batch plan."""
    return batch_plan.check_sft(
        batch_plan.SftPlan(
            rows=rows,
            per_device_batch=config.per_device_train_batch_size,
            accumulation=config.gradient_accumulation_steps,
            world_size=config.psyforge.processes * config.psyforge.nodes,
            epochs=config.get("num_train_epochs", 3.0),
            max_steps=config.get("max_steps", -1),
        )
    )


def trainer_command(config: DictConfig, file: Path) -> list[str]:
    """Returns the command that trains: directly for one process, else through torchrun."""
    entry = ["-m", "launch.llama_factory", str(file)]
    processes, nodes = config.psyforge.processes, config.psyforge.nodes
    if processes == nodes == 1:
        return [sys.executable, *entry]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    if nodes == 1:
        return [*torchrun, "--standalone", *entry]
    meeting = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29500')}"
    rendezvous = [f"--rdzv_id={config.run}", "--rdzv_backend=c10d", f"--rdzv_endpoint={meeting}"]
    return [*torchrun, f"--nnodes={nodes}", *rendezvous, *entry]


def node_rank() -> int:
    """Returns this node's number: NODE_RANK, else SLURM's SLURM_NODEID, else 0."""
    rank = os.environ.get("NODE_RANK", os.environ.get("SLURM_NODEID", "0"))
    if not rank.isdigit():
        raise BadInput(f"NODE_RANK={rank}: must be a number from 0")
    return int(rank)


def join(line: list[str], env: dict, file: Path, rank: int) -> None:
    """Trains on a node other than the first, which owns the run folder; waits until that one has written `file`."""
    for _ in range(1200):
        if file.is_file() and (runs.read_manifest(file.parent.parent.name, "sft") or {}).get("status") == "running":
            break
        time.sleep(0.5)
    else:
        raise BadInput(f"{file}: the first node (NODE_RANK=0) has not written it; is runs/ on a shared file system?")
    stage.run_trainer(line, env, file.parent / f"train.{rank}.log", lambda: (0, None, ""), f"SFT, node {rank}")


def progress(output: Path) -> tuple[int, int | None, str]:
    """Returns (steps done, steps in all, latest loss) from the trainer's own log."""
    try:
        last = json.loads((output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return 0, None, ""
    return last["current_steps"], last["total_steps"], f"loss {last['loss']:.3f}" if "loss" in last else ""


def log_history(output: Path) -> list[dict]:
    """Returns the Trainer's history: one entry per logged step, the last one of the whole run."""
    return json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def _grpo_prompts(folder: Path) -> list[str]:
    path = folder / "grpo_train.parquet"
    return [m["content"] for row in preflight.read_grpo_rows(path) for m in row["prompt"]] if path.is_file() else []


if __name__ == "__main__":
    stage.main(STAGE, run)
