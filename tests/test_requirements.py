"""The locks: complete, of known minimum versions, without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
# A resolver that is left alone goes back to vllm 0.1.2 or llamafactory 0.8.2.
MINIMUM = {
    "requirements.txt": {
        "llamafactory": "0.9.5", "verl": "0.9.1", "vllm": "0.24.0", "torch": "2.11.0", "transformers": "5.5.4",
        "ray": "2.50", "deepspeed": "0.18.4", "liger-kernel": "0.8.2", "trl": "0.18.0", "hydra-core": "1.3.2",
    },
    "requirements-cpu.txt": {
        "llamafactory": "0.9.5", "verl": "0.9.1", "torch": "2.13.0", "transformers": "5.5.4", "ray": "2.50",
        "hydra-core": "1.3.2", "trl": "0.18.0",
    },
}  # fmt: skip


def locked(name: str) -> dict[str, Version]:
    lines = (REPOSITORY / name).read_text().splitlines()
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)\s+# via .+", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {pin[1].lower(): Version(pin[2]) for pin in pins}


@pytest.mark.parametrize("name", MINIMUM)
def test_the_lock_has_at_least_these_versions(name):
    pins = locked(name)
    for package, minimum in MINIMUM[name].items():
        assert pins[package] >= Version(minimum), package


@pytest.mark.parametrize(("name", "extra"), [("requirements.txt", "gpu"), ("requirements-cpu.txt", "cpu")])
def test_every_direct_dependency_is_in_the_lock_at_a_version_that_it_allows(name, extra):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = locked(name)
    for line in project["dependencies"] + project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        assert pins[requirement.name.lower()] in requirement.specifier, line


def test_cpu_and_gpu_agree_where_both_have_a_package():
    cpu, gpu = locked("requirements-cpu.txt"), locked("requirements.txt")
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing <= {"torch", "triton", "setuptools"}


def test_the_cpu_lock_has_nothing_that_needs_cuda():
    assert not {
        n
        for n in locked("requirements-cpu.txt")
        if re.match("nvidia-c|nvidia-n[^ ]*-cu|cuda", n) or n in ("torchvision", "torchaudio", "triton")
    }


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-cpu.txt", "pyproject.toml", "launch/install.sh", "launch/lock.sh"]
)
def test_no_address_of_an_index_is_in_the_files(name):
    assert "://" not in (REPOSITORY / name).read_text()


def test_every_direct_dependency_has_its_reason():
    text = (REPOSITORY / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[tool.uv]")]
    pins = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert pins and all("# " in line for line in pins), [line for line in pins if "# " not in line]
