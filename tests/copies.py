"""A copy of the repository, for tests that add files to it and run its commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def copy_repository(folder: Path) -> Path:
    """Copies what a commit would hold, tracked and untracked, into `folder` and returns it."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if listed.returncode:
        pytest.skip("this copy of the repository has no .git folder that git reads")
    for name in listed.stdout.split("\0")[:-1]:
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Returns {path: content} of all files but those that runs and Python write."""
    found = [file for file in folder.rglob("*") if file.is_file() and not {"runs", "__pycache__"} & {*file.parts}]
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def launch_in(folder: Path, stage: str, *words: str) -> subprocess.CompletedProcess:
    """Runs `python -m launch.STAGE WORDS` of the copy."""
    line = [sys.executable, "-m", f"launch.{stage}", *words]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(line, capture_output=True, text=True, timeout=600, cwd=folder, env=env)
