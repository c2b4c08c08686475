"""The walk through a paper run: its commands are taken as they stand, and its figures are what a dry run says."""

import shlex
import subprocess
import sys

import pytest

from launch.cli.arguments import count_gpus
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "recipes/psyche_r1/README.md").read_text(encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """Returns {stage: words} of the stages' commands, the last of each."""
    block = TEXT.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    named = {next((w for w in words if "launch" in w), ""): words for words in lines if words}
    return {name.removeprefix("launch/").removesuffix(".sh").removeprefix("launch."): w for name, w in named.items()}


def test_every_stage_is_walked_through():
    assert list(commands()) == ["install", "audit", "check_gpu", "data", "sft", "grpo", "merge", "eval"]


@pytest.mark.parametrize("stage", ["data", "sft", "grpo", "merge", "eval"])
def test_a_command_is_taken_as_it_stands_and_its_figures_are_those_of_a_dry_run(stage):
    words = [sys.executable if word == "python" else word for word in commands()[stage]]
    words = [*words, *["dry_run=true"] * ("dry_run=true" not in words)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    if stage in ("sft", "grpo") and not count_gpus():
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| {stage} "))
        time, disk, card = (cell.split(",")[0].strip() for cell in row.split("|")[3:6])
        assert f"estimated: {time} = " in done.stdout
        assert f"model take about {disk.split()[0]}." in done.stdout
        assert f"memory per GPU, estimated: {card.split()[0]} GiB" in done.stdout
