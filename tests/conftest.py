"""Fixtures: the repository as working folder, real public data where it is at hand, run names that clean up."""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as launch/__init__.py, before any test loads torch

REPOSITORY = Path(__file__).resolve().parent.parent
# The 192 questions that ship with the project, as a data stage's source: quicker than the demo's synthesis.
TABLE = ("source=table", "source_path=data_pipeline/samples/questions.jsonl")
DATA = Path(os.environ.get("PSYFORGE_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def real_data(name: str) -> Path:
    """Returns a folder of real public data, or skips the test saying which one is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real data {name!r} is not at {DATA} (set PSYFORGE_DATA)")
    return path


@pytest.fixture
def cpsyexam() -> Path:
    return real_data("cpsyexam")


@pytest.fixture
def pceb() -> Path:
    return real_data("pceb")


@pytest.fixture(scope="module")
def run_name():
    """A run name of its own; runs/NAME is deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def launch(stage: str, *words: str, timeout: int = 600, **options) -> subprocess.CompletedProcess:
    """Runs `python -m launch.STAGE WORDS` as a user would and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-m", f"launch.{stage}", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=REPOSITORY,
        **options,
    )


def refused(result: subprocess.CompletedProcess, *expected: str) -> str:
    """Asserts exit code 2, one error message without a traceback that holds all of `expected`; returns it."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    message = result.stderr[result.stderr.index("error: ") :]
    for text in expected:
        assert text in message, message
    return message
