"""The checkout: no source file falls under .gitignore, what a run writes does."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("data_pipeline", "reward", "eval", "launch", "recipes", "tests", "docs")
CACHES = {"__pycache__", ".pytest_cache", ".hypothesis", ".ruff_cache"}


def git(*words: str, given: str = "") -> subprocess.CompletedProcess:
    # Only the checkout's own rules count, not those of the user's other repositories.
    command = ["git", "-c", "core.excludesFile=/dev/null", *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, cwd=REPOSITORY)


def ignored(paths: list[str]) -> list[str]:
    """Returns those of `paths` that .gitignore keeps out of a commit; tracked or not, they need not exist."""
    done = git("check-ignore", "--no-index", "-z", "--stdin", given="\0".join(paths))
    assert done.returncode in (0, 1), done.stderr  # 1: none of them
    return done.stdout.split("\0")[:-1]


@pytest.fixture(autouse=True)
def _checkout():
    try:
        top = git("rev-parse", "--show-toplevel")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if top.returncode or Path(top.stdout.strip()).resolve() != REPOSITORY:
        pytest.skip("this copy of the repository has no .git folder that git reads")


def test_no_file_of_a_room_is_ignored():
    files = [
        file.relative_to(REPOSITORY)
        for room in ROOMS
        for file in (REPOSITORY / room).rglob("*")
        if file.is_file() and file.suffix != ".pyc" and not CACHES & set(file.parts)
    ]
    assert len(files) > 100
    assert ignored([str(f) for f in files]) == []


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", ["runs", "running", "outputs", "multirun", ".venv", "build", "data", "cache"])
def test_a_folder_of_a_room_may_have_any_name(room, name):
    assert ignored([f"{room}/{name}/x.py", f"{room}/{name}.py"]) == []


def test_what_runs_and_tools_write_is_ignored():
    written = [
        "runs/demo/data/config.yaml", "outputs/2026-01-01/x.log", "multirun/x/x.yaml", ".venv/bin/python",
        ".venv-other/bin/python", "launch/__pycache__/x.pyc", ".ruff_cache/x", ".pytest_cache/x", ".hypothesis/x",
    ]  # fmt: skip
    assert ignored(written) == written
