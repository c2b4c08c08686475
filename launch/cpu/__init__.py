"""verl on machines without a GPU: a platform plugin here, engine registration and rollout in `rollout.py`.

recipes/hardware/cpu/grpo.yaml loads it (VERL_PLATFORM=cpu, VERL_USE_EXTERNAL_MODULES=launch.cpu); nothing of it is
imported where a GPU is used. No line of verl is changed. For verl 0.9.1.
"""

import os
import resource
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.utils import distributed


def _nothing(*args, **kwargs) -> None:
    return None


def _resident(*args, **kwargs) -> int:
    return psutil.Process().memory_info().rss


def _peak_resident(*args, **kwargs) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# What verl calls on `torch.<device>` and torch.cpu lacks. is_available() is False: verl then skips cache work.
_DEVICE_MODULE = SimpleNamespace(
    is_available=lambda: False,
    device_count=lambda: 1,
    current_device=lambda: "cpu",
    set_device=_nothing,
    synchronize=_nothing,
    empty_cache=_nothing,
    manual_seed=torch.manual_seed,
    manual_seed_all=torch.manual_seed,
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
    get_device_name=lambda *args: "CPU",
    memory_allocated=_resident,
    memory_reserved=_resident,
    max_memory_allocated=_peak_resident,
    max_memory_reserved=_peak_resident,
    mem_get_info=lambda *args: (psutil.virtual_memory().available, psutil.virtual_memory().total),
)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """gloo collectives; Ray's "GPU" is a logical slot per worker (ray_kwargs.ray_init.num_gpus = world size)."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> Any:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # verl hands it to Tensor.to(), where a number would mean an accelerator

    def device_count(self) -> int:
        return 1

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"  # verl's resource check counts only "GPU" and "NPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def is_ipc_supported(self) -> bool:
        return False

    def nvtx_range(self, message: str):
        return nullcontext()

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing


# verl asks for "cpu:gloo,<device>:<backend>", which names the device twice when it is the CPU; torch refuses that.
_initialize = distributed.initialize_global_process_group_ray


def _initialize_on_cpu(timeout_second=None, backend=None):
    return _initialize(timeout_second, backend or "cpu:gloo")


if os.environ.get("VERL_PLATFORM", "").lower() == "cpu":
    distributed.initialize_global_process_group_ray = _initialize_on_cpu
