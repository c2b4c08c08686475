"""The files of launch/cluster run as they stand: each command as a dry run, with SLURM's programs stood in for."""

import os
import shlex
import subprocess

import pytest
import yaml

from tests.conftest import REPOSITORY

SLURM = {  # srun runs its command here, but starts no Ray; scontrol knows two nodes
    "srun": """while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
        case $1 in *ray) exit 0 ;; hostname) echo 127.0.0.1; exit 0 ;; esac
        [[ $SRUN_CPUS_PER_TASK == 64 ]] || exit 9
        exec "$@" """,
    "scontrol": "printf 'node1\nnode2\n'",
    "sleep": "true",
}


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_slurm_file_starts_what_it_names(stage, tmp_path):
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]",
           "SLURM_CPUS_PER_TASK": "64", "SLURM_NODEID": "0"}  # fmt: skip
    done = subprocess.run(["bash", f"launch/cluster/{stage}.slurm", "dry_run=true"], env=env, capture_output=True,
                          text=True, cwd=REPOSITORY, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "# command:" in done.stdout
    assert "# batch plan: " in done.stdout


def test_the_skypilot_file_starts_what_it_names():
    task = yaml.safe_load((REPOSITORY / "launch/cluster/skypilot.yaml").read_text(encoding="utf-8"))
    lines = [line for part in ("setup", "run") for line in task[part].splitlines()]
    stages = [line for line in lines if "launch" in line and "install.sh" not in line]
    assert len(stages) == 5
    for line in stages:
        words = shlex.split(line) + ([] if "audit" in line else ["dry_run=true"])
        done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, timeout=300)
        assert done.returncode == 0, line + done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("file", ["sft.slurm", "grpo.slurm", "data.slurm"])
def test_a_slurm_file_says_that_its_log_needs_a_folder(file):
    text = (REPOSITORY / "launch/cluster" / file).read_text(encoding="utf-8")
    assert "--output=runs/" in text and "mkdir -p runs" in text
