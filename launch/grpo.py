"""The GRPO stage: verl on the prompts of the data stage, from the SFT model or `base_model=`.

    python -m launch.grpo recipe=demo hardware=cpu run=NAME
    python -m launch.grpo recipe=demo run=NAME trainer.n_gpus_per_node=2 trainer.total_epochs=8
    python -m launch.grpo recipe=demo run=NAME dry_run=true

Writes runs/NAME/grpo/: verl.yaml (what verl gets), train.log, metrics.jsonl (one object per step), checkpoints/,
rollouts/ (every sampled response with its reward). Called again it continues from the newest checkpoint.
With RAY_ADDRESS set it uses the Ray cluster that runs there, also inside `ray job submit`.
"""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import api_key, server_from
from launch.cli import moved
from launch.cli.arguments import GRPO, REPOSITORY, Command
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.frameworks import verl
from launch.models.find import check_model
from launch.models.local import load_tokenizer
from launch.preflight import checks, memory
from launch.preflight.batch_plan import GrpoPlan, plan_grpo
from launch.running import checkpoints
from launch.running.folder import finished_manifest, open_stage
from launch.running.trainer import run_trainer
from reward import psyche


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput before anything is written, StageFailed when verl fails."""
    folder = Path("runs") / config.run / "grpo"
    train, model = Path(config.data.train_files), config.actor_rollout_ref.model.path
    argv, env = verl.command(folder), {"PYTHONPATH": str(REPOSITORY), **config.psyforge.env}
    if config.dry_run:
        rows = len(checks.read_grpo_rows(train)) if train.is_file() else None
        plan = plan_grpo(config, rows)
        notes = plan.notes() + ["rows unknown: the data stage has not run"] * (rows is None)
        notes += memory.for_grpo(config, model, plan.steps, longest(config), check=False)
        settings = as_dict(config)
        show_plan({**verl.our_part(settings), **verl.changed_keys(settings)}, argv, env, notes)
        return

    need_stages_before(config, command, train, model)
    rows = checks.read_grpo_rows(train)
    plan = plan_grpo(config, len(rows))
    check_model(model, "base_model")
    check_reward(config.reward.custom_reward_function)
    address = check_machine(config, model)
    notes = memory.for_grpo(config, model, plan.steps, longest(config), check=True)
    opened = open_stage(GRPO, config, inputs_of(config, train, model), command)
    if opened.done:
        console.print(f"grpo: {folder} is done already; nothing left to do")
        return
    checkpoint_folder = Path(config.trainer.default_local_dir)
    lengths, told = prompt_lengths(rows, model, config.data.max_prompt_length)
    for note in plan.notes() + notes + told + checkpoints.prepare_grpo(checkpoint_folder):
        console.print(f"  {note}")
    plan = plan_of_kept(plan, config, lengths)
    metrics = folder / f"metrics.{len(list(folder.glob('metrics.*.jsonl'))) + 1}.jsonl"  # verl would overwrite one file
    env["VERL_FILE_LOGGER_PATH"] = str(metrics.resolve())
    settings = as_dict(verl.for_verl(as_dict(config)))
    if address:
        settings = verl.on_cluster(settings, address, env)
    OmegaConf.save(OmegaConf.create({"hydra": verl.HYDRA, **settings}), folder / "verl.yaml")
    before = checkpoints.last_step(checkpoint_folder)
    run_trainer(
        argv, env, folder / "train.log", lambda: verl.progress(metrics, plan.steps), "GRPO", (opened.lock.fileno(),)
    )
    steps = verl.collect_metrics(folder)
    if not steps or steps[-1]["step"] < plan.steps:
        raise StageFailed(
            f"verl ended without an error at step {steps[-1]['step'] if steps else 0} of {plan.steps} (it had "
            f"started from step {before}); see {folder / 'train.log'}"
        )
    checkpoint = checkpoint_folder / f"global_step_{steps[-1]['step']}"
    counts = summarise(steps, plan, config)
    opened.finish({"metrics": folder / "metrics.jsonl"}, counts, model=model, checkpoint=str(checkpoint))
    console.print(
        f"grpo: {counts['steps']} steps, mean reward {counts['reward_first5']:.2f} -> {counts['reward_last5']:.2f} "
        f"(first and last five); checkpoint {checkpoint}"
    )


def need_stages_before(config: DictConfig, command: Command, train: Path, model: str) -> None:
    """Raises BadInput unless the stages of this run whose files are used have finished."""
    words = f"recipe={command.words['recipe']} run={config.run}"
    if train.parent == Path("runs") / config.run / "data":
        finished_manifest(config.run, "data", f"python -m launch.data {words}")
    if Path(model) == Path("runs") / config.run / "sft" / "model":
        finished_manifest(config.run, "sft", f"bash launch/sft.sh {words}")


def check_machine(config: DictConfig, model: str) -> str | None:
    """Returns the address of the Ray cluster to join, None to start one here; raises BadInput for a machine unfit."""
    checks.check_working_dir(REPOSITORY)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        checks.check_ray(address, "RAY_ADDRESS")
    elif config.trainer.device == "cuda":
        checks.check_gpus(config.trainer.n_gpus_per_node, "trainer.n_gpus_per_node")
    else:
        checks.check_memory_on_cpu(model, "base_model")
    return address


def inputs_of(config: DictConfig, train: Path, model: str) -> dict[str, Path]:
    """Returns what the stage's result depends on, by name."""
    reward = Path(config.reward.custom_reward_function.path)
    return {
        "prompts": train,
        "validation": Path(config.data.val_files),
        "model": Path(model),
        "reward": reward.parent if reward.parent == Path("reward") else reward,  # psyche.py reads with answer.py
    }


def prompt_lengths(rows: list[dict], model: str, limit: int) -> tuple[list[int], list[str]]:
    """Returns the tokens of each prompt, and lines on those that are longer than `limit`."""
    lengths = checks.token_lengths(load_tokenizer(model), [row["prompt"] for row in rows], True)
    names = [str((row.get("extra_info") or {}).get("id", i)) for i, row in enumerate(rows)]
    return lengths, checks.cut_rows(lengths, limit, names, "data.max_prompt_length")


def plan_of_kept(plan: GrpoPlan, config: DictConfig, lengths: list[int]) -> GrpoPlan:
    """Returns the plan of the prompts that verl keeps, since it drops those that are too long; BadInput without any."""
    limit = config.data.max_prompt_length
    kept = sum(length <= limit for length in lengths)
    if not config.data.filter_overlong_prompts or kept == len(lengths):
        return plan
    if not kept:
        raise BadInput(f"data.max_prompt_length={limit}: every prompt is longer (the shortest has {min(lengths)})")
    return plan_grpo(config, kept)


def check_reward(function: DictConfig) -> None:
    """Raises BadInput for a file or function that is not there, a module that was moved, reward_kwargs that our reward
    does not take, and a judge without settings or key.
    """
    moved.check_imports(Path(function.path), "reward.custom_reward_function.path")
    checks.check_defines(Path(function.path), function.name, "reward.custom_reward_function")
    if Path(function.path).parent != Path("reward"):
        return  # somebody's own function
    kwargs = as_dict(function.get("reward_kwargs") or OmegaConf.create({}))
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


def summarise(steps: list[dict], plan: GrpoPlan, config: DictConfig) -> dict:
    """Returns the figures of the manifest: rewards, gradients, and whether rollout and trainer agree."""
    trained = [s for s in steps if "actor/grad_norm" in s]
    rewards = [s["critic/score/mean"] for s in trained]
    varied = [s for s in trained if s.get("critic/advantages/max", 0) > 0]
    return {
        "prompts": plan.rows,
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
    run_stage(GRPO, run)
