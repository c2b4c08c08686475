"""The SFT stage: LLaMA-Factory on the rows of the data stage.

    bash launch/sft.sh recipe=demo hardware=cpu run=NAME learning_rate=2e-3
    bash launch/sft.sh recipe=demo run=NAME base_model=Qwen/Qwen2.5-0.5B-Instruct dry_run=true

Writes runs/NAME/sft/: llama_factory.yaml (what the trainer gets), train.log, model/ (a Hugging Face folder with its
checkpoints and trainer_log.jsonl). Called again it continues from the newest checkpoint.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.records import write_text
from launch.cli.arguments import REPOSITORY, SFT, Command, in_earnest
from launch.cli.arithmetic import ADAPTERS
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.frameworks import llama_factory
from launch.models import adapter, tiny
from launch.models.find import check_model
from launch.models.local import load_tokenizer
from launch.preflight import checks, costs, gpu, memory, tracking
from launch.preflight.batch_plan import plan_sft
from launch.running import checkpoints
from launch.running.folder import finished_manifest, open_stage, read_manifest
from launch.running.trainer import run_trainer


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput before anything is written, StageFailed when the trainer fails."""
    folder, output = Path("runs") / config.run / "sft", Path(config.output_dir)
    model = folder / "model" if config.finetuning_type in ADAPTERS else output  # which comes whole in either case
    base = f"runs/{config.run}/base" if config.model_name_or_path == tiny.RANDOM else config.model_name_or_path
    file = folder / "llama_factory.yaml"
    toolkit = {} if config.get("use_cpu") else gpu.toolkit()
    argv, env = trainer_command(config, file), {"PYTHONPATH": str(Path.cwd()), **toolkit, **config.psyforge.env}
    data = Path(config.dataset_dir) / f"{config.dataset}.jsonl"
    if config.dry_run:
        rows, tokens, assumed = expected(config, data)
        plan = plan_sft(config, rows)
        notes = plan.notes() + assumed
        notes += memory.for_sft(config, base, plan.steps, config.cutoff_len, check=False)
        notes += costs.for_sft(config, memory.shape(base), plan, tokens)
        show_plan(as_dict(config), argv, env, notes)
        return

    if config.nodes > 1 and (rank := node_rank()) > 0:
        return join(argv, env, file, rank)
    rows = read_rows(config, command, data)
    notes = check_plan_and_machine(config, base, len(rows))
    inputs = {"data": data, "dataset_info": data.parent / "dataset_info.json"}
    if config.model_name_or_path != tiny.RANDOM:
        inputs["base_model"] = Path(base)
    opened = open_stage(SFT, config, inputs, command)
    if opened.done:
        console.print(f"sft: {folder} is done already; nothing left to do")
        return
    if config.model_name_or_path == tiny.RANDOM and not (opened.begun and Path(base).exists()):
        shutil.rmtree(base, ignore_errors=True)  # of a start that was refused
        texts = [m["content"] for _, row in rows for m in row["messages"]] + _grpo_prompts(data.parent)
        tiny.make(Path(base), texts, config.seed, as_dict(config.psyforge.random_model))
    lengths = checks.token_lengths(load_tokenizer(base), [row["messages"] for _, row in rows])
    notes += checks.cut_rows(lengths, config.cutoff_len, [where for where, _ in rows], "cutoff_len")
    notes += template_notes(config, command)
    for note in notes + checkpoints.prepare_sft(output, Path(base)):
        console.print(f"  {note}")
    write_settings(file, config, base)
    held = (opened.lock.fileno(),)
    with checkpoints.recording_sft(output):
        run_trainer(argv, env, folder / "train.log", lambda: llama_factory.progress(output), "SFT", held)

    counts = summarise(llama_factory.log_history(output), lengths, config.cutoff_len)
    if config.finetuning_type in ADAPTERS:
        counts |= fold(base, output, model, [row["messages"] for _, row in rows[: adapter.PROBES]])
        console.print(f"  {model}: {output} folded in, equal to {counts['fold_logprob_diff']:.1e} nats")
    outputs = {p.name: p for p in sorted(model.iterdir()) if p.is_file() and not p.name.startswith("train")}
    opened.finish(outputs, counts, base_model=base, model=str(model))
    first, last = counts["loss_first"], counts["loss_last"]
    loss = "no loss logged (logging_steps is larger)" if first is None else f"loss {first} -> {last}"
    console.print(f"sft: {counts['steps']} steps, {loss}; model in {model}")


def fold(base: str, trained: Path, model: Path, conversations: list[list[dict]]) -> dict:
    """Folds the trained adapter into its base, since the next stages take whole models; raises StageFailed."""
    try:
        return adapter.fold(base, trained, model, conversations)
    except (BadInput, ValueError) as error:
        raise StageFailed(
            f"{error}; the adapter is whole: python -m launch.models.adapter {trained} NEW_FOLDER"
        ) from None


def expected(config: DictConfig, data: Path) -> tuple[int | None, float, list[str]]:
    """Returns (rows, tokens of a row, notes) that a dry run counts with: of the data, else the recipe's assumption."""
    if data.is_file():
        rows = sum(1 for _ in data.open("rb"))
        tokens = min(config.cutoff_len, data.stat().st_size / costs.BYTES_PER_TOKEN / max(1, rows))
        return rows, tokens, [f"tokens of a row: {tokens:.0f} in the mean, {costs.BYTES_PER_TOKEN} bytes each (ours)"]
    ours = config.psyforge
    if ours.expected_rows is None:
        return None, ours.expected_tokens, ["rows unknown: the data stage has not run"]
    told = f"{ours.expected_rows} rows of {ours.expected_tokens} tokens are assumed (psyforge.expected_rows)"
    return ours.expected_rows, ours.expected_tokens, [f"rows unknown: the data stage has not run; {told}"]


def read_rows(config: DictConfig, command: Command, data: Path) -> list[tuple[str, dict]]:
    """Returns (file and line, row) of the SFT rows; raises BadInput when their stage has not run, or there are none."""
    if data.parent == Path("runs") / config.run / "data":
        first = f"python -m launch.data recipe={command.words['recipe']} run={config.run}"
        finished_manifest(config.run, "data", first)
    rows = checks.read_sft_rows(data.parent, config.dataset)
    if not rows:
        raise BadInput(
            f"{data}: no SFT row, since no question has a rationale. Map a rationale column, or skip SFT: "
            "python -m launch.grpo base_model=AN_INSTRUCT_MODEL"
        )
    return rows


def check_plan_and_machine(config: DictConfig, base: str, rows: int) -> list[str]:
    """Returns lines on batches, memory and disk; raises BadInput for what this model and machine cannot do."""
    plan = plan_sft(config, rows)
    if config.finetuning_type in ADAPTERS and Path(config.output_dir).name == "model":
        raise BadInput(f"output_dir={config.output_dir}: is where the whole model goes; name another for the adapter")
    if config.model_name_or_path != tiny.RANDOM:
        check_model(base, "base_model")
    checks.check_inputs(as_dict(config))
    checks.check_working_dir(REPOSITORY)
    if not config.get("use_cpu"):
        gpu.check_gpus(config.cards, "cards")
        gpu.check_build()
        gpu.check_attention(config.get("flash_attn"), "flash_attn", "flash_attn=sdpa")
    elif config.finetuning_type == "full":
        checks.check_memory_on_cpu(base, "base_model")
    trackers = as_dict(config).get("report_to") or []
    trackers = [trackers] if isinstance(trackers, str) else list(trackers)
    tracking.check_tracking(trackers, config.psyforge.env, "report_to")
    if config.get("use_swanlab") and config.get("swanlab_mode") != "local":
        tracking.check_tracking(["swanlab"], config.psyforge.env, "use_swanlab", "swanlab_mode=local")
    if config.nodes > 1:
        checks.check_port_free(os.environ.get("MASTER_PORT", "29500"), "MASTER_PORT")
    return plan.notes() + memory.for_sft(config, base, plan.steps, config.cutoff_len, check=True)


def template_notes(config: DictConfig, command: Command) -> list[str]:
    """Returns a warning where the recipe's template trains otherwise than a model that takes its model's place is asked
    later, by its own chat template. LLaMA-Factory itself is looked at, in some ten seconds.
    """
    given = {word.partition("=")[0] for word in command.typed}
    if "base_model" not in given or "template" in given:
        return []
    run = [] if "run" in given else [f"run={config.run}"]
    line = ["-m", "launch.template_check", *in_earnest(SFT, command)[3:], *run]
    said = subprocess.run([sys.executable, *line, "rows=5"], capture_output=True, text=True).stdout
    if not re.search(r"parting from the chat template: [1-9]", said):
        return []
    shown = "\n".join(f"    {row}" for row in said.strip().splitlines()[2:])
    return [
        f"WARNING: template={config.template} is the recipe's, and renders otherwise than this model's chat template:\n"
        f"{shown}\n    say template=NAME (launch/conf/llama_factory_keys.txt has them); all of it: "
        f"python {shlex.join(line)}"
    ]


def write_settings(file: Path, config: DictConfig, base: str) -> None:
    """Writes what LLaMA-Factory gets, in one move: other nodes start when they see the file."""
    settings = {k: v for k, v in as_dict(config).items() if k in llama_factory.keys()}
    write_text(file, OmegaConf.to_yaml(OmegaConf.create({**settings, llama_factory.BASE_MODEL: base})))


def summarise(history: list[dict], lengths: list[int], limit: int) -> dict:
    """Returns the figures of the manifest."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return {
        "rows": len(lengths),
        "steps": history[-1]["step"],
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "tokens_mean": round(sum(lengths) / len(lengths), 1),
        "rows_cut": sum(length > limit for length in lengths),
    }


def trainer_command(config: DictConfig, file: Path) -> list[str]:
    """Returns the command that trains: directly for one process, else through torchrun."""
    entry = ["-m", "launch.frameworks.llama_factory", str(file)]
    processes, nodes = config.cards, config.nodes
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


def join(argv: list[str], env: dict, file: Path, rank: int) -> None:
    """Trains on a node other than the first, which owns the run folder; waits until that one has written `file`."""
    for _ in range(1200):
        if file.is_file() and (read_manifest(file.parent.parent.name, "sft") or {}).get("status") == "running":
            break
        time.sleep(0.5)
    else:
        raise BadInput(f"{file}: the first node (NODE_RANK=0) has not written it; is runs/ on a shared file system?")
    run_trainer(argv, env, file.parent / f"train.{rank}.log", lambda: (0, None, ""), f"SFT, node {rank}")


def _grpo_prompts(folder: Path) -> list[str]:
    path = folder / "grpo_train.parquet"
    return [m["content"] for row in checks.read_grpo_rows(path) for m in row["prompt"]] if path.is_file() else []


if __name__ == "__main__":
    run_stage(SFT, run)
