"""PsyDT's corpus from its file to training, as the recipe says: a small file of the same form, a tiny model."""

import json
import shutil
from pathlib import Path

import pytest

from launch.models import tiny
from tests.conftest import launch, refused
from tests.launch.frameworks.test_frameworks import SHAPE

TRAIN, TEST = "PsyDTCorpus_train_mulit_turn_packing.json", "PsyDTCorpus_test_single_turn_split.json"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("psydt")
    said = [("user", "考研失败了，觉得自己很没用。"), ("assistant", "听起来这次失利让你很受打击。你怎么看待它？"),
            ("user", "我总是做不好。"), ("assistant", "“总是”这个词，我们可以一起看一看。")]  # fmt: skip
    rows = [
        {"id": n, "normalizedTag": "学业", "messages": [
            {"role": "system", "content": "你是一位精通理情行为疗法的心理咨询师。"},
            *({"role": role, "content": f"{text}{n}"} for role, text in said)]}
        for n in range(12)
    ]  # fmt: skip
    for name in (TRAIN, TEST):
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(run_name, corpus) -> Path:
    done = launch("data", "recipe=psydt", f"run={run_name}", f"dialogues.path={corpus / TRAIN}")
    assert done.returncode == 0, done.stderr
    return Path("runs", run_name, "data")


def test_each_dialogue_is_a_row_with_its_own_system_prompt(made):
    rows = [json.loads(line) for line in (made / "sft.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    assert [m["role"] for m in rows[0]["messages"]] == ["system", *["user", "assistant"] * 2]
    assert rows[3]["messages"][0]["content"].startswith("你是一位精通理情行为疗法")
    assert rows[3]["messages"][-1]["content"] == "“总是”这个词，我们可以一起看一看。3"


def test_the_test_set_is_no_training_data_and_a_path_is_needed(run_name, corpus):
    name = f"{run_name}-test"
    refused(launch("data", "recipe=psydt", f"run={name}"), f"dialogues={TRAIN}: no such file or folder")
    for more in ((), ("dry_run=true",)):
        done = launch("data", "recipe=psydt", f"run={name}", f"dialogues.path={corpus / TEST}", *more)
        refused(done, "PsyDTCorpus test is a benchmark, not training data")
    assert not Path("runs", name, "data/steps/dialogues/1_clean").exists(), "it is told before the first step"
    shutil.rmtree(Path("runs", name), ignore_errors=True)


@pytest.mark.slow
def test_the_rows_are_trained_on(made, run_name):
    model = Path("runs", run_name, "m")
    tiny.make(model, ["你是一位精通理情行为疗法的心理咨询师" * 9], 1, {**SHAPE, "vocab_size": 300})
    words = ("hardware=cpu", f"run={run_name}", f"base_model={model}", "fp16=false", "val_size=0.1", "cutoff_len=512")
    done = launch("sft", *words, "num_train_epochs=1", "preprocessing_num_workers=1")  # the recipe is the run's
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(Path("runs", run_name, "sft/manifest.json").read_text())["counts"]
    assert counts["rows"] == 12 and counts["steps"] >= 1
