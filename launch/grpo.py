"""The GRPO stage: verl on the prompts of the data stage, from the SFT model or `base_model=`.

    python -m launch.grpo recipe=demo hardware=cpu run=NAME
    python -m launch.grpo recipe=demo run=NAME cards=2 trainer.total_epochs=8
    python -m launch.grpo recipe=demo run=NAME dry_run=true

Writes runs/NAME/grpo/: verl.yaml (what verl gets), train.log, metrics.jsonl (one object per step), checkpoints/,
rollouts/ (every sampled response with its reward). Called again it continues from the newest checkpoint. Prompts that
only a judge can reward (dialogues, open questions) need reward/judge.py and a server: docs/training.md.
With RAY_ADDRESS set it uses the Ray cluster that runs there, also inside `ray job submit`.
"""

import os
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.llm.ledger import Ledger
from data_pipeline.llm.server import api_key, server_from
from data_pipeline.records import write_text
from launch.cli import arguments, moved
from launch.cli.arguments import GRPO, RECIPES, REPOSITORY, SFT, Command
from launch.cli.configuration import as_dict, compose_stage
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.frameworks import verl, vllm
from launch.models.find import check_model
from launch.models.local import load_tokenizer
from launch.preflight import checks, costs, gpu, memory, reward_call, tracking
from launch.preflight.batch_plan import GrpoPlan, plan_grpo, scale_grpo
from launch.running import checkpoints
from launch.running.folder import finished_manifest, open_stage, read_manifest
from launch.running.trainer import run_trainer
from reward import judge, psyche

KWARGS = "reward.custom_reward_function.reward_kwargs"


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput before anything is written, StageFailed when verl fails."""
    folder = Path("runs") / config.run / "grpo"
    train, model = Path(config.data.train_files), config.actor_rollout_ref.model.path
    argv, env = verl.command(folder), {"PYTHONPATH": str(REPOSITORY), **config.psyforge.env}
    scaled = scale_grpo(config)
    if config.dry_run:
        rows = checks.read_grpo_rows(train) if train.is_file() else None
        plan = plan_grpo(config, config.grpo_prompts or config.psyforge.expected_rows if rows is None else len(rows))
        notes = scaled + plan.notes() + (assumed(config) if rows is None else judging(rows, plan))
        shaped = shaped_as(model, config, command)
        notes += memory.for_grpo(config, shaped, plan.steps, longest(config), check=False)
        notes += costs.for_grpo(config, memory.shape(shaped), plan, prompt_tokens(config, rows))
        settings = as_dict(config)
        show_plan({**verl.our_part(settings), **verl.changed_keys(settings)}, argv, env, notes)
        return

    need_stages_before(config, command, train, model)
    rows = checks.read_grpo_rows(train)
    plan = plan_grpo(config, len(rows))
    check_model(model, "base_model")
    check_sampler(config)
    check_reward(config, rows)
    checks.check_inputs(verl.changed_keys(as_dict(config)))
    address = check_machine(config, model)
    notes = memory.for_grpo(config, model, plan.steps, longest(config), check=True)
    opened = open_stage(GRPO, config, inputs_of(config, train, model), command)
    if opened.done:
        console.print(f"grpo: {folder} is done already; nothing left to do")
        return
    checkpoint_folder = Path(config.trainer.default_local_dir)
    lengths, told = prompt_lengths(rows, model, config.data.max_prompt_length)
    contents = config.actor_rollout_ref.actor.checkpoint.load_contents
    told += checkpoints.prepare_grpo(checkpoint_folder, Path(model), contents)
    for note in scaled + plan.notes() + judging(rows, plan) + notes + told:
        console.print(f"  {note}")
    plan = plan_of_kept(plan, config, lengths)
    metrics = folder / f"metrics.{len(list(folder.glob('metrics.*.jsonl'))) + 1}.jsonl"  # verl would overwrite one file
    env["VERL_FILE_LOGGER_PATH"] = str(metrics.resolve())
    settings = as_dict(verl.for_verl(as_dict(config)))
    if address:
        settings = verl.on_cluster(settings, address, env)
    write_text(folder / "verl.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": verl.HYDRA, **settings})))
    opened.manifest["planned_steps"] = plan.steps
    opened.save()
    before = checkpoints.last_step(checkpoint_folder)
    held = (opened.lock.fileno(),)
    with checkpoints.recording_grpo(checkpoint_folder):
        run_trainer(argv, env, folder / "train.log", lambda: verl.progress(metrics, plan.steps), "GRPO", held)
    steps = verl.collect_metrics(folder)
    if not steps or steps[-1]["step"] < plan.steps:
        raise StageFailed(
            f"verl ended without an error at step {steps[-1]['step'] if steps else 0} of {plan.steps} (it had "
            f"started from step {before}); see {folder / 'train.log'}"
        )
    checkpoint = checkpoint_folder / f"global_step_{steps[-1]['step']}"
    counts = summarise(steps, plan, config)
    opened.finish({"metrics": folder / "metrics.jsonl"}, counts, model=model, checkpoint=str(checkpoint))
    if asked := counts["judgements"]:
        missing = counts["judgements_missing"]
        console.print(f"  {asked} judgements, {missing} of them missing, each of which earned nothing")
    console.print(
        f"grpo: {counts['steps']} steps, mean reward {counts['reward_first5']:.2f} -> {counts['reward_last5']:.2f} "
        f"(first and last five); checkpoint {checkpoint}"
    )


def assumed(config: DictConfig) -> list[str]:
    """Returns a line on what a dry run counts with while there is no data."""
    told, ours = "rows unknown: the data stage has not run", config.psyforge.expected_rows
    if config.grpo_prompts:
        return [f"{told}; grpo_prompts={config.grpo_prompts} is counted with"]
    return [told if ours is None else f"{told}; {ours} prompts are assumed (psyforge.expected_rows)"]


def prompt_tokens(config: DictConfig, rows: list[dict] | None) -> float:
    """Returns the tokens of a prompt in the mean, counted in bytes, or as the recipe assumes them without rows."""
    if not rows:
        return config.psyforge.expected_tokens
    texts = (message["content"] for row in rows for message in row["prompt"])
    return sum(len(text.encode()) for text in texts) / costs.BYTES_PER_TOKEN / len(rows)


def shaped_as(model: str, config: DictConfig, command: Command) -> str:
    """Returns the model, or, while SFT has not made it, the one of the same shape from which SFT starts."""
    recipe = command.words["recipe"]
    if model != f"runs/{config.run}/sft/model" or Path(model).exists() or not (RECIPES / recipe / "sft.yaml").is_file():
        return model
    words = [f"recipe={recipe}", "hardware=cpu", f"run={config.run}"]
    return compose_stage(SFT, arguments.parse(SFT, words)).model_name_or_path


def need_stages_before(config: DictConfig, command: Command, train: Path, model: str) -> None:
    """Raises BadInput unless the stages of this run whose files are used have finished."""
    words = f"recipe={command.words['recipe']} run={config.run}"
    if train.parent == Path("runs") / config.run / "data":
        finished_manifest(config.run, "data", f"python -m launch.data {words}")
    if Path(model) == Path("runs") / config.run / "sft" / "model":
        finished_manifest(config.run, "sft", f"bash launch/sft.sh {words}")


def check_sampler(config: DictConfig) -> None:
    """Raises BadInput for filter_groups, which verl silently leaves out beside a sampler that is not its own."""
    sampler = config.trainer.v1.sampler.custom_sampler.path
    if config.algorithm.filter_groups.enable and sampler:
        raise BadInput(
            f"algorithm.filter_groups.enable=true: verl leaves it out beside {sampler}; say "
            "algorithm.filter_groups.enable=false, or trainer.v1.sampler.custom_sampler.path=null"
        )


def check_machine(config: DictConfig, model: str) -> str | None:
    """Returns the address of the Ray cluster to join, None to start one here; raises BadInput for a machine unfit."""
    checks.check_working_dir(REPOSITORY)
    if (shape := memory.shape(model)) is not None:
        actor = config.actor_rollout_ref.actor
        checks.check_fused_kernels(config.actor_rollout_ref.model, actor.strategy, shape.tie_word_embeddings)
    tracking.check_tracking(list(config.trainer.logger), config.psyforge.env, "trainer.logger")
    address = os.environ.get("RAY_ADDRESS")
    if address:
        checks.check_ray(address, "RAY_ADDRESS")
    elif config.trainer.nnodes > 1:
        raise BadInput(
            f"nodes={config.trainer.nnodes}: start Ray on all of them and name it, RAY_ADDRESS=HOST:PORT "
            "(launch/cluster/grpo.slurm does both)"
        )
    else:
        if config.trainer.device == "cuda":
            gpu.check_gpus(config.trainer.n_gpus_per_node, "cards")
        checks.check_ray_cpus(config)
    if config.trainer.device != "cuda":
        checks.check_memory_on_cpu(model, "base_model")
        check_vllm(config, model)
        return address
    gpu.check_build()
    check_vllm(config, model)
    part = config.actor_rollout_ref.model
    gpu.check_attention(
        part.override_config.get("attn_implementation", "flash_attention_2"),
        "actor_rollout_ref.model.override_config.attn_implementation",
        "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    )
    return address


def check_vllm(config: DictConfig, model: str) -> None:
    """Raises BadInput for a rollout by vLLM where there is none, or none for this hardware, or for this model."""
    if config.actor_rollout_ref.rollout.name == "vllm":
        vllm.check_installed("actor_rollout_ref.rollout.name=vllm", cpu=config.trainer.device == "cpu")
        if config.trainer.device == "cpu":
            vllm.check_heads(model, "base_model")


def inputs_of(config: DictConfig, train: Path, model: str) -> dict[str, Path]:
    """Returns what the stage's result depends on, by name."""
    reward = Path(config.reward.custom_reward_function.path)
    inputs = {
        "prompts": train,
        "validation": Path(config.data.val_files),
        "model": Path(model),
        "reward": reward.parent if reward.parent == Path("reward") else reward,  # psyche.py reads with answer.py
    }
    if reward != Path("reward", "judge.py"):
        return inputs
    prompt = config.reward.custom_reward_function.reward_kwargs.get("prompt")
    return inputs | {file.stem: file for file in judge.prompt_files(prompt)}


def prompt_lengths(rows: list[dict], model: str, limit: int) -> tuple[list[int], list[str]]:
    """Returns the tokens of each prompt, and lines on those longer than `limit`; raises BadInput when all are."""
    lengths = checks.token_lengths(load_tokenizer(model), [row["prompt"] for row in rows], True)
    names = [str((row.get("extra_info") or {}).get("id", i)) for i, row in enumerate(rows)]
    return lengths, checks.cut_rows(lengths, limit, names, "data.max_prompt_length")


def plan_of_kept(plan: GrpoPlan, config: DictConfig, lengths: list[int]) -> GrpoPlan:
    """Returns the plan of the prompts that verl keeps, since it drops those that are too long."""
    limit = config.data.max_prompt_length
    kept = sum(length <= limit for length in lengths)
    if not config.data.filter_overlong_prompts or kept == len(lengths):
        return plan
    return plan_grpo(config, kept)


def kinds_to_judge(rows: list[dict]) -> Counter:
    """Returns how many prompts there are of each kind that only a judge can reward."""
    kinds = Counter((row.get("extra_info") or {}).get("kind") for row in rows)
    return Counter({kind: kinds[kind] for kind in judge.JUDGED if kinds[kind]})


def judging(rows: list[dict], plan: GrpoPlan) -> list[str]:
    """Returns a line on what a judge is asked at most, none where it is asked nothing."""
    kinds = kinds_to_judge(rows)
    if not kinds:
        return []
    told, epoch = ", ".join(f"{n} {kind}" for kind, n in kinds.items()), kinds.total() * plan.rollout_n
    return [
        f"{kinds.total()} of {len(rows)} prompts are for a judge ({told}): at most {min(epoch, plan.responses)} "
        f"judgements a step, {epoch} an epoch"
    ]


def check_reward(config: DictConfig, rows: list[dict]) -> None:
    """Raises BadInput for a file or function that is not there, a module that was moved, reward_kwargs that our reward
    does not take, prompts that it cannot reward, and a judge without settings or key, or who does not answer. A
    function of somebody's own is called once, and refused as `reward_call.check` says.
    """
    function = config.reward.custom_reward_function
    path, kinds, asks, judges = Path(function.path), kinds_to_judge(rows), {}, []
    ledger = judge.LEDGER
    moved.check_imports(path, "reward.custom_reward_function.path")
    checks.check_defines(path, function.name, "reward.custom_reward_function")
    kwargs = as_dict(function.get("reward_kwargs") or OmegaConf.create({}))
    manifest = read_manifest(config.run, "grpo")
    done = manifest is not None and manifest["status"] == "finished"
    if path.parent != Path("reward"):  # somebody's own function
        asked = {"path": str(path), "name": function.name, "kwargs": kwargs}
        env = {"PYTHONPATH": str(REPOSITORY), **config.psyforge.env}
        for note in [] if done else reward_call.check(asked, rows[0], env, "reward.custom_reward_function"):
            console.print(f"  {note}")
        return
    if path.name == "judge.py":
        asks = {name: kwargs.pop(name) for name in ("judge", "judge_weight", "prompt") if name in kwargs}
        ledger = kwargs.pop("ledger", ledger)
        given = asks.get("judge") or {}
        if missing := [name for name in ("base_url", "model") if not given.get(name)]:
            cure = " ".join(f"{KWARGS}.judge.{name}=..." for name in missing)
            raise BadInput(f"{KWARGS}.judge has no {' and no '.join(missing)}: who judges? Say {cure}")
        api_key(server_from(given, f"{KWARGS}.judge"))
    elif kinds:
        told = ", ".join(f"{n} are of kind {kind}" for kind, n in kinds.items())
        raise BadInput(
            f"{config.data.train_files}: of {len(rows)} prompts {told}, which {path} cannot reward; say "
            f"reward.custom_reward_function.path=reward/judge.py {KWARGS}.judge.base_url=http://127.0.0.1:8000/v1 "
            f"{KWARGS}.judge.model=NAME, or make the data anew with split.grpo_dialogues=0 open_questions=false"
        )
    try:
        psyche.compute_score("", "", "A", **kwargs)
        judges += [judge.prepare(kind, **asks) for kind in kinds]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{KWARGS}: {error}") from None
    if not done:
        if judges:
            with Ledger(judge.ledger_at(ledger)):
                pass  # it can be kept there; in training a fault of it would be a missing judgement
        check_judges(judges, config.trainer.v1.sampler.custom_sampler.path)


def check_judges(judges: list[tuple], sampler: str | None) -> None:
    """Raises BadInput unless each of these judges gives a judgement; tells when their failures would not be counted."""
    for settings, server, template in judges:
        try:
            judge.probe(settings, server, template)
        except (BadInput, ValueError) as error:
            raise BadInput(
                f"{KWARGS}.judge: {server.model} at {server.address} gives no judgement ({error}); start the server "
                f"(`vllm serve {server.model} --port 8000`), or name another base_url and model"
            ) from None
    if judges and not str(sampler).endswith("launch.frameworks.replay_buffer"):
        console.print(
            "  WARNING: judgements that do not come will be told in train.log alone; for the metrics say "
            "trainer.v1.sampler.custom_sampler.path=pkg://launch.frameworks.replay_buffer "
            "trainer.v1.sampler.custom_sampler.name=RewardMetrics"
        )


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
        "judgements": round(sum(s.get("reward/judgements/sum", 0) for s in trained)),
        "judgements_missing": round(sum(s.get("reward/judge_failed/sum", 0) for s in trained)),
        "workers": config.trainer.n_gpus_per_node * config.trainer.nnodes,
    }


if __name__ == "__main__":
    run_stage(GRPO, run)
