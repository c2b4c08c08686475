"""What this machine is: cards, driver, toolkit, compiler, packages, attention, memory, disk. No framework is imported.

`python -m launch.check_gpu` shows it before it runs anything.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from launch.cli.arguments import REPOSITORY
from launch.preflight import checks, gpu, memory

OK, FAILED, NOT_TRIED = "ok", "failed", "not tried"
SHOWN = ("torch", "transformers", "llamafactory", "verl", "ray", "deepspeed", "vllm")  # of the packages
GIB = 2**30
# The paper recipes' disk: checkpoints of SFT and GRPO, the models, the merged one (docs/training.md); derived
DISK_OF_A_FULL_RUN = 700 * GIB


@dataclass(frozen=True)
class Line:
    """What is said of one part of the machine, or of one run on it."""

    name: str
    state: str
    told: str


def ask(config: DictConfig) -> list[Line]:
    """Returns a line on each thing that can be asked; `config` is the GRPO stage's, composed for this machine."""
    of_gpus = {"driver": _driver, "CUDA toolkit": _toolkit, "compiler, Python.h": _compiler}
    on_gpu, lines = config.trainer.device == "cuda", [_line("cards", cards)]
    lines += [_line(n, say) if on_gpu else Line(n, NOT_TRIED, "no GPU here") for n, say in of_gpus.items()]
    lines += [
        _line("packages", packages),
        _line("attention", lambda: _attention(config)),
        _line("memory", lambda: f"{psutil.virtual_memory().total / GIB:.0f} GiB, {os.cpu_count()} CPUs"),
        _line("Ray's CPUs", lambda: checks.check_ray_cpus(config) or "as many as verl reserves"),
        _line("disk", _disk),
    ]
    return lines


def _line(name: str, say: Callable[[], str]) -> Line:
    try:
        return Line(name, OK, say())
    except BadInput as error:
        return Line(name, FAILED, str(error))


def cards() -> str:
    """Returns how many cards of which kind and memory nvidia-smi lists."""
    kinds = [f"{name} with {bytes / GIB:.0f} GiB" for name, bytes in zip(names(), memory.gpu_memory(), strict=True)]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)) or "none: this is a CPU's check"


def names() -> list[str]:
    """Returns the name of each card, nothing without one."""
    return gpu.ask_nvidia_smi("name")


def _driver() -> str:
    gpu.check_driver()
    return f"{gpu.ask_nvidia_smi('driver_version')[0]}, torch has CUDA {gpu.cuda_of_torch() or 'not: a CPU build'}"


def _toolkit() -> str:
    if home := gpu.toolkit().get("CUDA_HOME"):
        return f"none on this machine; the lock's own is taken: {home}"
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if not named and not shutil.which("nvcc") and not (gpu.USUAL_TOOLKIT / "bin/nvcc").exists():
        raise BadInput("none here, nor in the environment, and deepspeed needs one; first: bash launch/install.sh gpu")
    return str(named or shutil.which("nvcc") or gpu.USUAL_TOOLKIT)


def _compiler() -> str:
    gpu.check_compiler()
    return "there"


def packages() -> str:
    """Returns the versions of the frameworks; raises BadInput for one that is not as in the lock."""
    lock = REPOSITORY / ("requirements-cpu.txt" if gpu.cuda_of_torch() is None else "requirements.txt")
    pins = dict(line.split()[0].split("==") for line in lock.read_text(encoding="utf-8").splitlines() if line.strip())
    there = {name: _version(name) for name in SHOWN}
    wrong = [f"{n} {there[n] or 'missing'}, not {pins[n]}" for n in SHOWN if n in pins and there[n] != pins[n]]
    if wrong:
        raise BadInput(f"{'; '.join(wrong)}, as {lock.name} says; first: bash launch/install.sh")
    return ", ".join(f"{name} {found or 'none'}" for name, found in there.items())


def _version(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def _attention(config: DictConfig) -> str:
    key = "actor_rollout_ref.model.override_config.attn_implementation"
    name = config.actor_rollout_ref.model.override_config.get("attn_implementation", "flash_attention_2")
    gpu.check_attention(name, key, f"{key}=sdpa")
    others = sorted({package for package in gpu.ATTENTION.values() if gpu.installed(package)})
    return f"{name}; installed besides: {', '.join(others) or 'none'}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    needs = f"a full run of the paper recipes takes about {DISK_OF_A_FULL_RUN / GIB:.0f} GiB"
    return f"{free / GIB:.0f} GiB are free; {needs}"
