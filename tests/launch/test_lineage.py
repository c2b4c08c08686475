"""From a result back to its raw files, and every change since seen."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import launch, refused


@pytest.fixture(scope="module")
def run(run_name, tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "题.jsonl"
    shutil.copy("data_pipeline/samples/questions.jsonl", source)
    assert launch("data", "recipe=demo", "source=table", f"run={run_name}", f"source_path={source}").returncode == 0
    return run_name, source


def test_the_chain_is_printed_and_one_changed_byte_is_seen(run):
    name, source = run
    done = launch("lineage", f"run={name}")
    assert done.returncode == 0, done.stdout
    assert f"input source: {source}" in done.stdout
    assert "output sft.jsonl" in done.stdout
    assert "every file is as recorded" in done.stdout
    path = Path("runs", name, "data", "sft.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b" " + content[-1:])
    done = launch("lineage", f"run={name}")
    assert done.returncode == 1
    assert "sft.jsonl" in next(line for line in done.stdout.splitlines() if "CHANGED" in line)
    path.unlink()
    assert "missing" in launch("lineage", f"run={name}").stdout


def test_a_run_that_is_not_there(run):
    name, _ = run
    refused(launch("lineage", f"run={name}x"), "no stage has run", f"Did you mean {name}?")
    refused(launch("lineage"), "lineage of which run?")
    refused(launch("lineage", "run=a/b"), "plain name")
