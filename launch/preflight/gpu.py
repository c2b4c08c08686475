"""What training on GPUs needs of a machine, asked before anything is loaded, each with its cure.

Asked of nvidia-smi, the installed packages and the file system: no framework is imported. A machine without GPUs has
nothing to answer.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data_pipeline.errors import BadInput
from launch.cli import arguments

# The lowest driver of each CUDA major version (NVIDIA's CUDA release notes, minor version compatibility)
LOWEST_DRIVER = {"12": 525, "13": 580}
USUAL_TOOLKIT = Path("/usr/local/cuda")
# verl's and LLaMA-Factory's names of an attention, and the distribution that has it
ATTENTION = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
    "fa2": "flash-attn",
    "fa3": "flash-attn-3",
}

# Those that no lock has and install.sh adds: what its FLASH_ATTN_WHEEL= names. Later builds of FlashAttention 4 want
# another nvidia-cutlass-dsl than vLLM 0.24 does.
ADDED = {"flash-attn": "FILE_OR_URL", "flash-attn-4": "flash-attn-4==4.0.0b16"}
HOPPER = 9.0  # compute capability; FlashAttention 4 has no backward pass below (flash_attn/cute/interface.py)


def ask_nvidia_smi(what: str) -> list[str]:
    """Returns one line per GPU of `nvidia-smi --query-gpu=WHAT`, nothing without one."""
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in listed.stdout.splitlines()] if listed.returncode == 0 else []


def cuda_of_torch() -> str | None:
    """Returns the CUDA version that the installed torch was built for, None for a CPU build; imports no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    for node in ast.parse((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "cuda":
            return ast.literal_eval(node.value)  # pyright: ignore[reportAttributeAccessIssue]
    return None


def check_driver() -> None:
    """Raises BadInput when the driver is too old for this torch, which then sees no GPU and works on the CPU."""
    cuda = cuda_of_torch()
    if cuda is None or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return
    lowest = LOWEST_DRIVER.get(cuda.split(".")[0], 0)
    for driver in ask_nvidia_smi("driver_version"):
        if re.match(r"\d+", driver) and int(driver.split(".")[0]) < lowest:
            raise BadInput(
                f"the NVIDIA driver is {driver}, and torch's CUDA {cuda} needs {lowest} or newer, or it sees no GPU: "
                "update the driver, or say CUDA_VISIBLE_DEVICES= (empty) to work on the CPU"
            )


def check_build() -> None:
    """Raises BadInput when a training on GPUs would meet a torch without CUDA, or no compiler for its kernels."""
    if cuda_of_torch() is None:
        raise BadInput("the torch in this environment is built for the CPU; first: bash launch/install.sh gpu")
    check_driver()
    check_compiler()


def check_compiler() -> None:
    """Raises BadInput unless triton can compile: a C compiler and the headers of this Python."""
    asked = os.environ.get("CC")
    if not (shutil.which(asked) if asked else shutil.which("gcc") or shutil.which("clang")):
        raise BadInput(
            f"{f'CC={asked}' if asked else 'gcc'}: no such compiler here, and triton builds its kernels with one: "
            "apt-get install gcc, or load your cluster's module, or set CC=/path/to/gcc"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise BadInput(
            f"{header}: not there, and triton builds its kernels against it: apt-get install {python}-dev, or make "
            "the environment anew with an interpreter that has it (PYTHON=/path/to/python bash launch/install.sh gpu)"
        )


def check_attention(name: str | None, key: str, cure: str) -> None:
    """Raises BadInput for an attention whose package is not installed, or whose backward pass these cards lack; the
    frameworks fail late, or take another.
    """
    package = ATTENTION.get(name or "")
    if package is not None and not installed(package):
        wheel = f", or FLASH_ATTN_WHEEL={ADDED[package]} bash launch/install.sh gpu" if package in ADDED else ""
        raise BadInput(f"{key}={name}: the package {package} is not installed; say {cure}{wheel}")
    if package == "flash-attn-4" and (
        older := [card for card in ask_nvidia_smi("compute_cap") if float(card) < HOPPER]
    ):
        raise BadInput(
            f"{key}={name}: trains on Hopper and newer, and a card here has compute capability {older[0]}; say {cure}"
        )


def installed(package: str) -> bool:
    """Returns whether the distribution is in this environment."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def toolkit() -> dict[str, str]:
    """Returns the environment that names the CUDA toolkit of the lock where the machine has none, else nothing.

    DeepSpeed looks for nvcc when it is imported, and a driver alone brings none; nvidia's wheels in the lock do.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named or shutil.which("nvcc") or (USUAL_TOOLKIT / "bin/nvcc").exists():
        return {}
    homes = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin/nvcc"))
    return {"CUDA_HOME": str(homes[-1].parent.parent)} if homes else {}


def check_gpus(asked: int, key: str) -> None:
    """Raises BadInput when the recipe and hardware ask for more GPUs than this machine shows."""
    seen = arguments.count_gpus()
    if seen < asked:
        raise BadInput(
            f"{key}={asked}, but this machine shows {seen} GPUs. Take a machine that has them, or "
            f"hardware={arguments.detect_hardware()}; on two CPU cores `bash launch/demo.sh` runs the whole job"
        )
