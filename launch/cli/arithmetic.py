"""Arithmetic in recipes: ${mul:3,${cards}}, ${add:...}, ${max:...}, ${accumulation:TOTAL,DEVICE,PROCESSES}.

${gpus:} is the number of GPUs here; ${one_card:${cards},${nodes},A,B} is A for one card in all, else B; ${trained:KIND}
is the folder that LLaMA-Factory fills: adapter where one is trained, else model.
"""

import math
from collections.abc import Callable

from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from launch.cli.arguments import count_gpus

ADAPTERS = ("lora", "oft")  # LLaMA-Factory's finetuning_type that leaves an adapter


def accumulation(total: int | None, per_device: int, processes: int) -> int:
    """Returns the accumulation steps that make `total` rows per optimizer step, 1 without a total.

    Raises BadInput for a total that one pass over the devices does not divide, with the nearest that fit.
    """
    if total is None:
        return 1
    for name, value in (("per_device_train_batch_size", per_device), ("cards x nodes", processes)):
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            hint = "; hardware=gpu takes the GPUs that it sees, say cards=N" if processes == 0 else ""
            raise BadInput(f"{name}={value}: must be a positive whole number{hint}")
    one_pass = per_device * processes
    if not isinstance(total, int) or total <= 0 or total % one_pass:
        totals = nearest(max(1, int(total)), lambda t: t % one_pass == 0)
        devices = nearest(per_device, lambda p: total % (p * processes) == 0) if total > 0 else "none"
        raise BadInput(
            f"psyforge.total_train_batch_size={total} (nearest: {totals}) is not a multiple of {per_device} per device "
            f"x {processes} devices (nearest per_device_train_batch_size: {devices})"
        )
    return total // one_pass


def nearest(value: int, fits: Callable[[int], bool]) -> str:
    """Returns the nearest fitting numbers below and above, as text."""
    below = next((v for v in range(min(value, 100_000), 0, -1) if fits(v)), None)
    above = next((v for v in range(value, 4 * value + 1024) if fits(v)), None)
    return " or ".join(str(v) for v in dict.fromkeys((below, above)) if v is not None) or "none"


OmegaConf.register_new_resolver("add", lambda *numbers: sum(numbers), replace=True)
OmegaConf.register_new_resolver("accumulation", accumulation, replace=True)
OmegaConf.register_new_resolver("gpus", count_gpus, replace=True)
OmegaConf.register_new_resolver("one_card", lambda cards, nodes, a, b: a if cards * nodes == 1 else b, replace=True)
OmegaConf.register_new_resolver("trained", lambda kind: "adapter" if kind in ADAPTERS else "model", replace=True)
OmegaConf.register_new_resolver("max", max, replace=True)
OmegaConf.register_new_resolver("mul", lambda *numbers: math.prod(numbers), replace=True)
