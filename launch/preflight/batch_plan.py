"""Batch arithmetic of both frameworks as pure functions: printed before every launch, impossible numbers refused.

verl counts `data.train_batch_size` and `ppo_mini_batch_size` in prompts, multiplies them by `rollout.n` and divides by
the data-parallel size; every micro batch is per GPU and has to divide what reaches one GPU.
"""

from dataclasses import dataclass
from math import ceil, gcd

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from launch.cli.arithmetic import nearest


@dataclass(frozen=True)
class SftPlan:
    rows: int | None
    per_device_batch: int
    accumulation: int
    world_size: int
    epochs: float
    max_steps: int = -1

    @property
    def effective_batch(self) -> int:
        return self.per_device_batch * self.accumulation * self.world_size

    @property
    def steps(self) -> int | None:
        """Optimizer steps, counted as transformers' Trainer counts them."""
        if self.max_steps > 0:
            return self.max_steps
        if self.rows is None:
            return None
        batches = ceil(self.rows / (self.per_device_batch * self.world_size))
        return ceil(max(1, ceil(batches / self.accumulation)) * self.epochs)

    def notes(self) -> list[str]:
        return [
            f"batch plan: effective batch {self.effective_batch} = {self.per_device_batch} per device x "
            f"{self.accumulation} accumulation x {self.world_size} devices",
            f"{_number(self.rows)} rows, {self.epochs:g} epochs, {_number(self.steps)} optimizer steps",
        ]


@dataclass(frozen=True)
class GrpoPlan:
    rows: int | None
    train_batch: int  # prompts per step
    rollout_n: int
    mini_batch: int  # prompts
    micro_batch: int | None  # responses per GPU; None with dynamic batch size
    log_prob_micro_batches: dict[str, int]  # {"rollout": 64, "ref": 64}, responses per GPU
    world_size: int
    epochs: int
    sequence_parallel: int = 1
    total_steps: int | None = None

    @property
    def data_parallel(self) -> int:
        return self.world_size // self.sequence_parallel

    @property
    def responses(self) -> int:
        """Responses generated per step."""
        return self.train_batch * self.rollout_n

    @property
    def mini_per_gpu(self) -> int:
        """Responses of one mini batch that reach one GPU."""
        return self.mini_batch * self.rollout_n // self.data_parallel

    @property
    def updates_per_step(self) -> int:
        return self.train_batch // self.mini_batch

    @property
    def steps(self) -> int | None:
        if self.total_steps is not None:
            return self.total_steps
        return None if self.rows is None else self.rows // self.train_batch * self.epochs

    def notes(self) -> list[str]:
        micro = f"micro batches of {self.micro_batch}" if self.micro_batch else "dynamic micro batches"
        updates = None if self.steps is None else self.steps * self.updates_per_step
        return [
            f"batch plan: {self.train_batch} prompts x {self.rollout_n} rollouts = {self.responses} responses a step",
            f"{self.updates_per_step} updates a step; a mini batch of {self.mini_batch} prompts is {self.mini_per_gpu} "
            f"responses on each of {self.data_parallel} GPUs, in {micro}",
            f"{_number(self.rows)} prompts, {self.epochs} epochs, {_number(self.steps)} steps, "
            f"{_number(updates)} optimizer updates",
        ]


def check_sft(plan: SftPlan) -> SftPlan:
    """Returns the plan; raises BadInput for numbers that are not positive, or no rows."""
    for name, value in (
        ("per_device_train_batch_size", plan.per_device_batch),
        ("gradient_accumulation_steps", plan.accumulation),
        ("cards x nodes", plan.world_size),
        ("num_train_epochs", plan.epochs),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise BadInput(f"{name}={value}: must be a positive number")
    return plan


def check_grpo(plan: GrpoPlan) -> GrpoPlan:
    """Returns the plan; raises BadInput that names every number that does not divide, with the nearest that do."""
    actor = "actor_rollout_ref.actor"
    positive = {
        "data.train_batch_size": plan.train_batch,
        "actor_rollout_ref.rollout.n": plan.rollout_n,
        f"{actor}.ppo_mini_batch_size": plan.mini_batch,
        "trainer.n_gpus_per_node x nnodes": plan.world_size,
        "trainer.total_epochs": plan.epochs,
        **{
            f"actor_rollout_ref.{k}.log_prob_micro_batch_size_per_gpu": v
            for k, v in plan.log_prob_micro_batches.items()
        },
    }
    if plan.micro_batch is not None:
        positive[f"{actor}.ppo_micro_batch_size_per_gpu"] = plan.micro_batch
    for name, value in positive.items():
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise BadInput(f"{name}={value}: must be a positive whole number")

    wrong = []
    if plan.world_size % plan.sequence_parallel:
        wrong.append(f"{plan.world_size} GPUs do not divide by ulysses_sequence_parallel_size={plan.sequence_parallel}")
    world = max(1, plan.data_parallel)
    if plan.mini_batch > plan.train_batch or plan.train_batch % plan.mini_batch:
        minis = nearest(plan.mini_batch, lambda m: plan.train_batch % m == 0 and m * plan.rollout_n % world == 0)
        batches = nearest(plan.train_batch, lambda b: b % plan.mini_batch == 0)
        wrong.append(
            f"data.train_batch_size={plan.train_batch} (nearest: {batches}) is not a multiple of "
            f"{actor}.ppo_mini_batch_size={plan.mini_batch} (nearest: {minis})"
        )
    if plan.mini_batch * plan.rollout_n % world:
        values = nearest(plan.rollout_n, lambda n: plan.mini_batch * n % world == 0)
        wrong.append(
            f"a mini batch of {plan.mini_batch} prompts x {plan.rollout_n} rollouts does not divide by {world} GPUs "
            f"(nearest actor_rollout_ref.rollout.n: {values})"
        )
    elif (on_gpu := plan.micro_batch) and plan.mini_per_gpu % on_gpu:
        values = nearest(on_gpu, lambda m: plan.mini_per_gpu % m == 0)
        rollouts = nearest(plan.rollout_n, lambda n: plan.mini_batch * n % (world * on_gpu) == 0)
        wrong.append(
            f"{actor}.ppo_micro_batch_size_per_gpu={on_gpu} does not divide the {plan.mini_per_gpu} "
            f"responses of a mini batch on one GPU (nearest: {values}; or actor_rollout_ref.rollout.n: {rollouts})"
        )
    per_gpu, rest = divmod(plan.responses, world)
    for name, micro in plan.log_prob_micro_batches.items():
        if not rest and per_gpu % micro:
            wrong.append(
                f"actor_rollout_ref.{name}.log_prob_micro_batch_size_per_gpu={micro} does not divide the {per_gpu} "
                f"responses of a step on one GPU (nearest: {nearest(micro, lambda m: per_gpu % m == 0)})"
            )
    if plan.rows is not None and plan.rows < plan.train_batch:
        wrong.append(
            f"data.train_batch_size={plan.train_batch} is more than the {plan.rows} prompts there are, so there would "
            f"be no step (at most {plan.rows})"
        )
    if wrong:
        prompts = f"grpo_prompts={plan.rows or 'N'} (prompts of the set) takes the nearest batches that divide"
        raise BadInput(f"batch sizes: {'; '.join(wrong)}; {prompts}")
    return plan


def scale_grpo(config: DictConfig) -> list[str]:
    """Scales the recipe's batch numbers in `config` to a set of `grpo_prompts`, and returns a line on what they became.

    The batch is to `grpo_prompts` as the recipe's is to its psyforge.expected_rows, so that an epoch keeps its steps,
    as near as divides; without expected_rows it is only cut to the set. Raises BadInput for a set that no batch fits.
    """
    prompts, data, part = config.grpo_prompts, config.data, config.actor_rollout_ref
    if prompts is None:
        return []
    actor, n = part.actor, part.rollout.n
    world = max(1, config.trainer.n_gpus_per_node * config.trainer.nnodes // actor.ulysses_sequence_parallel_size)
    if not isinstance(prompts, int) or isinstance(prompts, bool) or prompts <= 0:
        raise BadInput(f"grpo_prompts={prompts}: must be a positive whole number")
    most, updates = min(data.train_batch_size, prompts), max(1, data.train_batch_size // actor.ppo_mini_batch_size)
    usual = config.psyforge.expected_rows
    target = most if usual is None else data.train_batch_size * prompts / max(prompts, usual)
    fitting = {}  # {prompts of a batch: those of a mini batch}
    for minis in range(updates, 0, -1):
        for mini in range(1, most // minis + 1):
            if mini * n % world == 0:
                fitting.setdefault(mini * minis, mini)
    if not fitting:
        raise BadInput(
            f"grpo_prompts={prompts}: no batch of so few prompts x {n} rollouts divides by {world} GPUs; "
            f"{world // gcd(n, world)} prompts are the least, or say cards="
        )
    batch = min(sorted(fitting, reverse=True), key=lambda size: abs(size - target))
    before = (data.train_batch_size, actor.ppo_mini_batch_size, actor.ppo_micro_batch_size_per_gpu)
    data.train_batch_size, actor.ppo_mini_batch_size = batch, fitting[batch]
    for place, key, rows in (
        (actor, "ppo_micro_batch_size_per_gpu", fitting[batch] * n // world),
        (part.rollout, "log_prob_micro_batch_size_per_gpu", batch * n // world),
        (part.ref, "log_prob_micro_batch_size_per_gpu", batch * n // world),
    ):
        if place[key]:
            place[key] = max(size for size in range(1, min(rows, place[key]) + 1) if rows % size == 0)
    after = (data.train_batch_size, actor.ppo_mini_batch_size, actor.ppo_micro_batch_size_per_gpu)
    names = ("batch", "mini batch", "micro batch")
    told = ", ".join(f"{name} {a} -> {b}" for name, a, b in zip(names, before, after, strict=True))
    return [f"grpo_prompts={prompts}: {told}"]


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def plan_sft(config: DictConfig, rows: int | None) -> SftPlan:
    """Returns the checked batch plan."""
    return check_sft(
        SftPlan(
            rows=rows,
            per_device_batch=config.per_device_train_batch_size,
            accumulation=config.gradient_accumulation_steps,
            world_size=config.cards * config.nodes,
            epochs=config.get("num_train_epochs", 3.0),
            max_steps=config.get("max_steps", -1),
        )
    )


def plan_grpo(config: DictConfig, rows: int | None) -> GrpoPlan:
    """Returns the checked batch plan; raises BadInput for numbers that do not divide."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    micro = {"rollout": rollout.log_prob_micro_batch_size_per_gpu}
    if actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        micro["ref"] = config.actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu
    return check_grpo(
        GrpoPlan(
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
