"""What training on GPUs needs of a machine, as far as a machine without one can show it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from launch.cli.arguments import GRPO, RECIPES, parse
from launch.cli.configuration import compose_stage
from launch.preflight import gpu
from tests.conftest import REPOSITORY
from tests.launch import tiny_model

KEY = "actor_rollout_ref.model.override_config.attn_implementation"


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi first on PATH that answers with the given text."""

    def answering(text: str) -> None:
        program(tmp_path, "nvidia-smi", f"printf '{text}'")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return answering


@pytest.mark.parametrize(
    ("cuda", "driver", "refused"),
    [("13.0", "570.124.06", True), ("13.0", "580.65.06", False), ("12.8", "570.124.06", False), (None, "470.1", False)],
)
def test_a_driver_that_is_too_old_for_torch_is_refused(cuda, driver, refused, smi, monkeypatch):
    smi(f"{driver}\\n{driver}\\n")
    monkeypatch.setattr(gpu, "cuda_of_torch", lambda: cuda)
    if not refused:
        return gpu.check_driver()
    with pytest.raises(BadInput, match=f"driver is {driver}, and torch's CUDA {cuda} needs 580"):
        gpu.check_driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the cure that the message names
    gpu.check_driver()


def test_a_driver_that_does_not_answer_is_no_driver(smi):
    smi("NVIDIA-SMI has failed\\n'; exit 9; '")
    assert gpu.ask_nvidia_smi("driver_version") == []


def test_the_cuda_of_torch_is_read_as_torch_says_it():
    import torch

    assert gpu.cuda_of_torch() == torch.version.cuda


def test_a_cpu_build_of_torch_is_no_gpu_environment(monkeypatch):
    monkeypatch.setattr(gpu, "cuda_of_torch", lambda: None)
    with pytest.raises(BadInput, match="built for the CPU; first: bash launch/install.sh gpu"):
        gpu.check_build()


def test_a_compiler_and_pythons_headers_are_asked_for(tmp_path, monkeypatch):
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(headers))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="gcc: no such compiler here"):
        gpu.check_compiler()
    monkeypatch.setenv("CC", "icx")
    with pytest.raises(BadInput, match="CC=icx: no such compiler"):
        gpu.check_compiler()
    program(tmp_path, "icx", "true")
    gpu.check_compiler()
    (headers / "Python.h").unlink()
    with pytest.raises(BadInput, match=rf"Python.h: not there.*python3.{sys.version_info.minor}-dev"):
        gpu.check_compiler()


@pytest.mark.parametrize("recipe", sorted(p.parent.name for p in RECIPES.glob("*/grpo.yaml") if "hard" not in str(p)))
@pytest.mark.parametrize("hardware", ["hardware=gpu8", "hardware=gpu1"])
def test_every_recipe_has_an_attention_that_every_card_has(recipe, hardware):
    if (recipe, hardware) == ("demo", "hardware=gpu8"):
        pytest.skip("its batch does not divide by eight")
    config = compose_stage(GRPO, parse(GRPO, [f"recipe={recipe}", hardware]))
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"


def test_verl_loads_the_model_with_the_composed_attention_and_not_with_its_own_default(tmp_path):
    from transformers import AutoModelForCausalLM
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import HFModelConfig

    config = compose_stage(GRPO, parse(GRPO, ["recipe=psyche_r1", "hardware=gpu8", "run=x"]))
    part = config.actor_rollout_ref.model
    part.path = str(tiny_model.make_as_large(tmp_path))
    model = omega_conf_to_dataclass(part, HFModelConfig)
    AutoModelForCausalLM.from_pretrained(part.path, config=model.hf_config)
    part.override_config = OmegaConf.create({})
    if not gpu.installed("flash-attn"):
        model = omega_conf_to_dataclass(part, HFModelConfig)
        with pytest.raises(ImportError, match="FlashAttention2"):
            AutoModelForCausalLM.from_pretrained(part.path, config=model.hf_config)


@pytest.mark.parametrize(
    ("name", "package"),
    [("flash_attention_2", "flash-attn"), ("flash_attention_3", "flash-attn-3"), ("flash_attention_4", "flash-attn-4")],
)
def test_an_attention_whose_package_is_missing_is_refused_with_its_cure(name, package):
    for good in ("sdpa", "eager", None):
        gpu.check_attention(good, KEY, "x")
    if gpu.installed(package):
        return gpu.check_attention(name, KEY, "x")
    with pytest.raises(
        BadInput, match=f"{KEY}={name}: the package {package} is not installed; say {KEY}=sdpa"
    ) as error:
        gpu.check_attention(name, KEY, f"{KEY}=sdpa")
    wheel = {"flash_attention_2": "FILE_OR_URL", "flash_attention_4": "flash-attn-4==4.0.0b16"}.get(name)
    assert str(error.value).endswith(f", or FLASH_ATTN_WHEEL={wheel} bash launch/install.sh gpu" if wheel else "=sdpa")


@pytest.mark.parametrize(("cards", "refused"), [("9.0\n9.0", False), ("10.0", False), ("9.0\n8.0", True)])
def test_flash_attention_4_is_refused_on_cards_before_hopper(cards, refused, tmp_path, monkeypatch):
    program(tmp_path, "nvidia-smi", f"echo '{cards}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu, "installed", lambda package: True)
    if refused:
        with pytest.raises(BadInput, match="Hopper and newer, and a card here has compute capability 8.0; say x"):
            gpu.check_attention("flash_attention_4", KEY, "x")
        gpu.check_attention("flash_attention_2", KEY, "x")
    else:
        gpu.check_attention("flash_attention_4", KEY, "x")


def test_the_toolkit_of_the_lock_is_named_where_the_machine_has_none(tmp_path, monkeypatch):
    home = tmp_path / "nvidia/cu13"
    (home / "bin").mkdir(parents=True)
    program(home / "bin", "nvcc", "true")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "USUAL_TOOLKIT", tmp_path / "cuda")  # whether this machine has one or not
    assert gpu.toolkit() == {"CUDA_HOME": str(home)}
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    assert gpu.toolkit() == {}


def function(name: str) -> str:
    """Returns a function of install.sh."""
    text = (REPOSITORY / "launch/install.sh").read_text(encoding="utf-8")
    start = text.index(f"\n{name}() {{")
    return text[start : text.index("\n}", start) + 2]


def test_the_installer_names_the_toolkit_of_the_lock(tmp_path):
    home = tmp_path / "lib/python3.11/site-packages/nvidia/cu13"
    (home / "bin").mkdir(parents=True)
    program(home / "bin", "nvcc", "true")
    script = f"set -euo pipefail\nvenv='{tmp_path}'\n{function('use_toolkit_of_lock')}\nuse_toolkit_of_lock\n"
    script = script.replace("/usr/local/cuda", str(tmp_path / "cuda")) + 'echo "[${CUDA_HOME:-}]"\n'

    def run(**env: str) -> str:
        told = subprocess.run(
            ["bash", "-c", script], env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    assert run() == f"[{home}]"
    assert run(CUDA_HOME="/opt/cuda") == "[/opt/cuda]"
    (home / "bin/nvcc").unlink()
    assert run() == "[]"


def test_a_wheel_of_flash_attention_that_is_named_is_installed(tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (venv / "installed-cpu").write_bytes((REPOSITORY / "requirements-cpu.txt").read_bytes())  # as if it was there
    wheel = tmp_path / "flash_attn-2.8.3-py3-none-any.whl"
    about = "flash_attn-2.8.3.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("flash_attn/__init__.py", "")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    env = {**os.environ, "VENV": str(venv), "FLASH_ATTN_WHEEL": str(wheel)}
    done = subprocess.run(["bash", "launch/install.sh", "cpu"], cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "from importlib.metadata import version; print(version('flash-attn'))"
    told = subprocess.run([str(venv / "bin/python"), "-c", code], capture_output=True, text=True)
    assert told.stdout.strip() == "2.8.3"
