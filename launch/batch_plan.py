"""Batch arithmetic of both frameworks as pure functions: printed before every launch, impossible numbers refused.

verl counts `data.train_batch_size` and `ppo_mini_batch_size` in prompts, multiplies them by `rollout.n` and divides by
the data-parallel size; every micro batch is per GPU and has to divide what reaches one GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from data_pipeline.records import BadInput


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

    def lines(self) -> list[str]:
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

    def lines(self) -> list[str]:
        micro = f"micro batches of {self.micro_batch}" if self.micro_batch else "dynamic micro batches"
        updates = None if self.steps is None else self.steps * self.updates_per_step
        return [
            f"batch plan: {self.train_batch} prompts x {self.rollout_n} rollouts = {self.responses} responses a step",
            f"{self.updates_per_step} updates a step; a mini batch of {self.mini_batch} prompts is {self.mini_per_gpu} "
            f"responses on each of {self.data_parallel} GPUs, in {micro}",
            f"{_number(self.rows)} prompts, {self.epochs} epochs, {_number(self.steps)} steps, "
            f"{_number(updates)} optimizer updates",
        ]


def accumulation(total: int | None, per_device: int, processes: int) -> int:
    """Returns the accumulation steps that make `total` rows per optimizer step, 1 without a total.

    Raises BadInput for a total that one pass over the devices does not divide, with the nearest that fit.
    """
    if total is None:
        return 1
    for name, value in (("per_device_train_batch_size", per_device), ("psyforge.processes", processes)):
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise BadInput(f"{name}={value}: must be a positive whole number")
    one_pass = per_device * processes
    if not isinstance(total, int) or total <= 0 or total % one_pass:
        totals = _nearest(max(1, int(total)), lambda t: t % one_pass == 0)
        devices = _nearest(per_device, lambda p: total % (p * processes) == 0) if total > 0 else "none"
        raise BadInput(
            f"psyforge.total_train_batch_size={total} (nearest: {totals}) is not a multiple of {per_device} per device "
            f"x {processes} devices (nearest per_device_train_batch_size: {devices})"
        )
    return total // one_pass


def check_sft(plan: SftPlan) -> SftPlan:
    """Returns the plan; raises BadInput for numbers that are not positive, or no rows."""
    for name, value in (
        ("per_device_train_batch_size", plan.per_device_batch),
        ("gradient_accumulation_steps", plan.accumulation),
        ("psyforge.processes", plan.world_size),
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
        minis = _nearest(plan.mini_batch, lambda m: plan.train_batch % m == 0 and m * plan.rollout_n % world == 0)
        batches = _nearest(plan.train_batch, lambda b: b % plan.mini_batch == 0)
        wrong.append(
            f"data.train_batch_size={plan.train_batch} (nearest: {batches}) is not a multiple of "
            f"{actor}.ppo_mini_batch_size={plan.mini_batch} (nearest: {minis})"
        )
    if plan.mini_batch * plan.rollout_n % world:
        values = _nearest(plan.rollout_n, lambda n: plan.mini_batch * n % world == 0)
        wrong.append(
            f"a mini batch of {plan.mini_batch} prompts x {plan.rollout_n} rollouts does not divide by {world} GPUs "
            f"(nearest actor_rollout_ref.rollout.n: {values})"
        )
    elif plan.micro_batch and plan.mini_per_gpu % plan.micro_batch:
        values = _nearest(plan.micro_batch, lambda m: plan.mini_per_gpu % m == 0)
        rollouts = _nearest(plan.rollout_n, lambda n: plan.mini_batch * n % (world * plan.micro_batch) == 0)
        wrong.append(
            f"{actor}.ppo_micro_batch_size_per_gpu={plan.micro_batch} does not divide the {plan.mini_per_gpu} "
            f"responses of a mini batch on one GPU (nearest: {values}; or actor_rollout_ref.rollout.n: {rollouts})"
        )
    per_gpu, rest = divmod(plan.responses, world)
    for name, micro in plan.log_prob_micro_batches.items():
        if not rest and per_gpu % micro:
            wrong.append(
                f"actor_rollout_ref.{name}.log_prob_micro_batch_size_per_gpu={micro} does not divide the {per_gpu} "
                f"responses of a step on one GPU (nearest: {_nearest(micro, lambda m: per_gpu % m == 0)})"
            )
    if plan.rows is not None and plan.rows < plan.train_batch:
        wrong.append(
            f"data.train_batch_size={plan.train_batch} is more than the {plan.rows} prompts there are, so there would "
            f"be no step (at most {plan.rows})"
        )
    if wrong:
        raise BadInput("batch sizes: " + "; ".join(wrong))
    return plan


def _nearest(value: int, fits: Callable[[int], bool]) -> str:
    """Returns the nearest fitting numbers below and above, as text."""
    below = next((v for v in range(min(value, 100_000), 0, -1) if fits(v)), None)
    above = next((v for v in range(value, 4 * value + 1024) if fits(v)), None)
    return " or ".join(str(v) for v in dict.fromkeys((below, above)) if v is not None) or "none"


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)
