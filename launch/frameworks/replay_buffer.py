"""verl's replay buffer, which besides tells what the rewards were made of: trainer.v1.sampler.custom_sampler.

verl 0.9.1 logs a training step's reward and none of its parts. Every key that the reward function returns becomes
`reward/KEY/mean` of the step, over the samples where it is not None, in all of verl's loggers. Of a judge's reward
(reward/judge.py) `reward/judge_failed/sum` are the judgements that are missing, of `reward/judgements/sum` asked.

A sampler of one's own takes the place of verl's algorithm.filter_groups and of trainer_mode async. For verl 0.9.1.
"""

from collections.abc import Iterable
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class RewardMetrics(ReplayBuffer):
    """`sampler_kwargs.poll_interval` is how many seconds it waits between two looks for finished rollouts (verl: 2)."""

    def __init__(self, *args, sampler_kwargs, **kwargs):
        super().__init__(*args, sampler_kwargs=sampler_kwargs, **{**kwargs, **dict(sampler_kwargs)})

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """Returns verl's batch and metrics, with the parts of the rewards among these while training.

        Raises RuntimeError when judgements were asked and none came: the step would teach nothing that was wanted.
        """
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "val" or not batch.keys:
            return batch, metrics
        data: Any = tq.kv_batch_get(keys=batch.keys, partition_id=partition_id, select_fields=["extra_fields"])
        fields: list[Any] = [getattr(value, "data", value) for value in data["extra_fields"]]
        parts = reward_parts(field.get("reward_extra_info", {}) for field in fields)
        asked, failed = parts.get("reward/judgements/sum", 0), parts.get("reward/judge_failed/sum", 0)
        if asked and failed == asked:
            raise RuntimeError(
                f'step {global_steps}: none of {asked:.0f} judgements came; this log says why ("judgements are '
                "missing\"). Mend the judge's server and give the same command again: it continues. If there were "
                "replies without a score, delete the file of reward_kwargs.ledger first, which would repeat them"
            )
        return batch, {**metrics, **parts}


def reward_parts(infos: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Returns the metrics of what the reward function returned for each sample of a step."""
    values: dict[str, list[float]] = {}
    for info in infos:
        for key, value in info.items():
            if key != "score" and isinstance(value, int | float):
                values.setdefault(key, []).append(float(value))
    metrics = {f"reward/{key}/mean": sum(column) / len(column) for key, column in values.items()}
    if failed := values.get("judge_failed"):
        metrics |= {"reward/judge_failed/sum": sum(failed), "reward/judgements/sum": float(len(failed))}
    return metrics
