"""The GRPO stage: verl on the prompts of the data stage, from the SFT model or `base_model=`.

    python -m launch.grpo recipe=demo hardware=cpu run=NAME
    python -m launch.grpo recipe=demo run=NAME trainer.n_gpus_per_node=2 trainer.total_epochs=8
    python -m launch.grpo recipe=demo run=NAME dry_run=true

Writes runs/NAME/grpo/: verl.yaml (what verl gets), train.log, metrics.jsonl (one object per step), checkpoints/,
rollouts/ (every sampled response with its reward). Called again it continues from the newest checkpoint.
With RAY_ADDRESS set it uses the Ray cluster that runs there, also inside `ray job submit`.
"""

import json
import os
import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.records import BadInput
from data_pipeline.server import api_key, server_from
from launch import batch_plan, checkpoints, estimate, preflight, runs, stage
from launch.arguments import REPOSITORY, Command, Stage
from reward import psyche

STAGE = Stage("grpo", base_model_key="actor_rollout_ref.model.path")
OURS = ("run", "seed", "dry_run", "resume", "psyforge")
# verl's workers start in folders of their own, so these have to be absolute when they get there.
PATHS = (
    "data.train_files",
    "data.val_files",
    "actor_rollout_ref.model.path",
    "reward.custom_reward_function.path",
    "trainer.default_local_dir",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
)
HYDRA = {"run": {"dir": "."}, "output_subdir": None}


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput before anything is written, StageFailed when verl fails."""
    folder = Path("runs") / config.run / "grpo"
    train, model = Path(config.data.train_files), config.actor_rollout_ref.model.path
    line = [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        "--config-path",
        str(folder.resolve()),
        "--config-name",
        "verl",
    ]
    line += ["hydra/job_logging=none", "hydra/hydra_logging=none"]  # else Hydra writes files of its own
    env = {"PYTHONPATH": str(REPOSITORY), **config.psyforge.env}
    if config.dry_run:
        rows = len(preflight.read_grpo_rows(train)) if train.is_file() else None
        planned = plan(config, rows)
        notes = planned.lines() + ["rows unknown: the data stage has not run"] * (rows is None)
        notes += estimate.for_grpo(config, model, planned.steps, longest(config), check=False)
        ours = {k: v for k, v in OmegaConf.to_container(config).items() if k in OURS}
        return stage.show_plan({**ours, **_changed_keys(config)}, line, env, notes)

    own_model = Path("runs") / config.run / "sft" / "model"
    if train.parent == Path("runs") / config.run / "data":
        runs.need(config.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={config.run}")
    if Path(model) == own_model:
        runs.need(config.run, "sft", f"bash launch/sft.sh recipe={command.words['recipe']} run={config.run}")
    rows = preflight.read_grpo_rows(train)
    planned = plan(config, len(rows))
    preflight.check_model(model, "base_model")
    check_reward(config.reward.custom_reward_function)
    preflight.check_working_dir(REPOSITORY)
    if address := os.environ.get("RAY_ADDRESS"):
        preflight.check_ray(address, "RAY_ADDRESS")
    elif config.trainer.device == "cuda":
        preflight.check_gpus(config.trainer.n_gpus_per_node, "trainer.n_gpus_per_node")
    else:
        preflight.check_memory_on_cpu(model, "base_model")
    notes = estimate.for_grpo(config, model, planned.steps, longest(config), check=True)
    inputs = {"prompts": train, "validation": Path(config.data.val_files), "model": Path(model)}
    reward = Path(config.reward.custom_reward_function.path)
    inputs["reward"] = reward.parent if reward.parent == Path("reward") else reward  # psyche.py reads with answer.py
    opened = runs.begin(STAGE, config, inputs, command)
    if opened.done:
        return stage.console.print(f"grpo: {folder} is done already; nothing left to do")
    lengths = preflight.token_lengths(preflight.load_tokenizer(model), [r["prompt"] for r in rows], True)
    names = [str((r.get("extra_info") or {}).get("id", i)) for i, r in enumerate(rows)]
    limit = config.data.max_prompt_length
    notes += preflight.cut_rows(lengths, limit, names, "data.max_prompt_length")
    for note in planned.lines() + notes + checkpoints.prepare_grpo(Path(config.trainer.default_local_dir)):
        stage.console.print(f"  {note}")
    kept = sum(length <= limit for length in lengths)
    if config.data.filter_overlong_prompts and kept < len(rows):
        if not kept:
            raise BadInput(f"data.max_prompt_length={limit}: every prompt is longer (the shortest has {min(lengths)})")
        planned = plan(config, kept)  # verl drops the longer ones: the plan must hold for what is left
    metrics = folder / f"metrics.{len(list(folder.glob('metrics.*.jsonl'))) + 1}.jsonl"  # verl would overwrite one file
    env["VERL_FILE_LOGGER_PATH"] = str(metrics.resolve())
    settings = on_cluster(for_verl(config), address, env) if address else for_verl(config)
    OmegaConf.save(OmegaConf.create({"hydra": HYDRA, **settings}), folder / "verl.yaml")
    before = checkpoints.last_step(Path(config.trainer.default_local_dir))
    stage.run_trainer(
        line, env, folder / "train.log", lambda: progress(metrics, planned.steps), "GRPO", (opened.lock.fileno(),)
    )
    steps = collect_metrics(folder)
    if not steps or steps[-1]["step"] < planned.steps:
        raise stage.StageFailed(
            f"verl ended without an error at step {steps[-1]['step'] if steps else 0} of {planned.steps} (it had "
            f"started from step {before}); see {folder / 'train.log'}"
        )
    checkpoint = Path(config.trainer.default_local_dir) / f"global_step_{steps[-1]['step']}"
    counts = summarise(steps, planned, config)
    opened.finish({"metrics": folder / "metrics.jsonl"}, counts, model=model, checkpoint=str(checkpoint))
    stage.console.print(
        f"grpo: {counts['steps']} steps, mean reward {counts['reward_first5']:.2f} -> {counts['reward_last5']:.2f} "
        f"(first and last five); checkpoint {checkpoint}"
    )


def plan(config: DictConfig, rows: int | None) -> batch_plan.GrpoPlan:
    """Returns the checked batch plan; raises BadInput for numbers that do not divide."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    micro = {"rollout": rollout.log_prob_micro_batch_size_per_gpu}
    if actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        micro["ref"] = config.actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu
    return batch_plan.check_grpo(
        batch_plan.GrpoPlan(
            rows=rows,
            train_batch=config.data.train_batch_size,
            rollout_n=rollout.n,
            mini_batch=actor.ppo_mini_batch_size,
            micro_batch=None if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu,
            log_prob_micro_batches={} if actor.use_dynamic_bsz else micro,
            world_size=config.trainer.n_gpus_per_node * config.trainer.nnodes,
            epochs=config.trainer.total_epochs,
            sequence_parallel=actor.ulysses_sequence_parallel_size,
            total_steps=config.trainer.total_training_steps,
        )
    )


def check_reward(function: DictConfig) -> None:
    """Raises BadInput for reward_kwargs that our reward does not take, and for a judge without settings or key."""
    if Path(function.path).parent != Path("reward"):
        return  # somebody's own function
    kwargs = OmegaConf.to_container(function.get("reward_kwargs") or OmegaConf.create({}))
    if Path(function.path).name == "judge.py":
        server = server_from(kwargs.pop("judge", None) or {}, "reward_kwargs.judge")
        api_key(server)
        for name in ("judge_weight", "prompt", "ledger"):
            kwargs.pop(name, None)
    try:
        psyche.compute_score("", "", "A", **kwargs)
    except (TypeError, ValueError) as error:
        raise BadInput(f"reward.custom_reward_function.reward_kwargs: {error}") from None


def longest(config: DictConfig) -> int:
    """Returns the longest sequence in tokens: a prompt and its response."""
    return config.data.max_prompt_length + config.data.max_response_length


def for_verl(config: DictConfig) -> dict:
    """Returns verl's part of the configuration, with absolute paths."""
    settings = OmegaConf.create({k: v for k, v in OmegaConf.to_container(config).items() if k not in OURS})
    for key in PATHS:
        value = OmegaConf.select(settings, key)
        if value and (key != "actor_rollout_ref.model.path" or Path(value).is_dir()):
            OmegaConf.update(settings, key, str(Path(value).resolve()))
    # Without this Ray joins any cluster that somebody started on this machine.
    OmegaConf.update(settings, "ray_kwargs.ray_init.address", "local", force_add=True)
    if shlex.quote(sys.executable) != sys.executable:  # Ray starts its workers through a shell and does not quote
        OmegaConf.update(
            settings, "ray_kwargs.ray_init.runtime_env.py_executable", shlex.quote(sys.executable), force_add=True
        )
    return OmegaConf.to_container(settings)


def on_cluster(settings: dict, address: str, env: dict) -> dict:
    """Returns verl's settings for a Ray cluster that runs already: its address, and the environment for its workers."""
    settings["ray_kwargs"]["ray_init"] = {
        "address": address,
        "num_cpus": None,
        "runtime_env": {"env_vars": {name: str(value) for name, value in env.items()}},
    }
    return settings


def _changed_keys(config: DictConfig) -> dict:
    """Returns verl's part without what is verl's own default: the part a person wants to read."""
    import importlib.util

    import yaml

    package = Path(importlib.util.find_spec("verl").origin).parent
    with open(package / "trainer" / "config" / "_generated_ppo_trainer.yaml", encoding="utf-8") as file:
        defaults = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def differing(ours, theirs):
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            return ours
        found = {}
        for key, value in ours.items():
            if key in theirs and (value == theirs[key] or str(theirs[key]).startswith("${")):
                continue
            inner = differing(value, theirs.get(key))
            if inner != {} or key not in theirs:
                found[key] = inner
        return found

    return differing({k: v for k, v in OmegaConf.to_container(config).items() if k not in OURS}, defaults)


def _read_metrics(path: Path) -> list[dict]:
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run
        steps.append({"step": entry["step"], **entry["data"]})
    return steps


def progress(metrics: Path, total: int) -> tuple[int, int | None, str]:
    """Returns (step, steps in all, latest mean reward) from verl's own metrics file."""
    steps = _read_metrics(metrics) if metrics.is_file() else []
    rewards = [s["critic/score/mean"] for s in steps if "critic/score/mean" in s]
    return (steps[-1]["step"] if steps else 0), total, f"reward {rewards[-1]:.2f}" if rewards else ""


def collect_metrics(folder: Path) -> list[dict]:
    """Returns the metrics of every step, of its latest attempt, and writes them to metrics.jsonl."""
    by_step = {}
    for path in sorted(folder.glob("metrics.*.jsonl"), key=lambda p: int(p.name.split(".")[1])):
        for entry in _read_metrics(path):
            by_step[entry["step"]] = {**by_step.get(entry["step"], {}), **entry}
    steps = [by_step[number] for number in sorted(by_step)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps), encoding="utf-8")
    return steps


def summarise(steps: list[dict], planned: batch_plan.GrpoPlan, config: DictConfig) -> dict:
    """Returns the figures of the manifest: rewards, gradients, and whether rollout and trainer agree."""
    trained = [s for s in steps if "actor/grad_norm" in s]
    rewards = [s["critic/score/mean"] for s in trained]
    varied = [s for s in trained if s.get("critic/advantages/max", 0) > 0]
    return {
        "prompts": planned.rows,
        "steps": trained[-1]["step"],
        "reward_first5": sum(rewards[:5]) / len(rewards[:5]),
        "reward_last5": sum(rewards[-5:]) / len(rewards[-5:]),
        "grad_norm_min": min((s["actor/grad_norm"] for s in varied), default=None),
        "grad_norm_max": max((s["actor/grad_norm"] for s in varied), default=None),
        "steps_with_signal": len(varied),
        "rollout_probs_diff_max": max((s.get("training/rollout_probs_diff_max", 0.0) for s in trained), default=None),
        "kl_first": trained[0].get("actor/kl_loss"),
        "kl_last": trained[-1].get("actor/kl_loss"),
        "workers": config.trainer.n_gpus_per_node * config.trainer.nnodes,
    }


if __name__ == "__main__":
    stage.main(STAGE, run)
