"""How the demo hands its words to the stages."""

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from launch import demo
from launch.running import child


def test_words_go_to_the_stages_that_take_them():
    words, by_stage = demo.parse(["source=cpsyexam", "source_path=a b", "seed=3", "grpo.trainer.n_gpus_per_node=2"])
    assert words["run"] == "demo"
    assert by_stage["data"] == ["recipe=demo", "source=cpsyexam", "source_path=a b", "seed=3", "run=demo"]
    assert by_stage["sft"] == ["recipe=demo", "hardware=cpu", "seed=3", "run=demo"]
    assert by_stage["grpo"] == ["recipe=demo", "hardware=cpu", "seed=3", "run=demo", "trainer.n_gpus_per_node=2"]
    assert by_stage["merge"] == ["run=demo"]


@pytest.mark.parametrize(
    ("word", "message"),
    [("sorce=x", "Did you mean source?"), ("x", "the demo takes"), ("run=a/b", "plain name"), ("recipe=dem", "demo"),
     ("train.x=1", "STAGE.KEY=VALUE")],
)  # fmt: skip
def test_a_word_of_no_stage_is_refused(word, message):
    with pytest.raises(BadInput, match=message):
        demo.parse([word])


def test_a_recipe_without_grpo_ends_in_a_conversation():
    _, by_stage = demo.parse(["recipe=psyllm_demo", "seed=3", "chat.temperature=0.3"])
    assert list(by_stage) == ["data", "sft", "chat", "eval"]
    assert by_stage["chat"] == ["recipe=psyllm_demo", "seed=3", "run=psyllm_demo", "temperature=0.3"]
    with pytest.raises(BadInput, match=r"stages: data, sft, chat, eval"):
        demo.parse(["recipe=psyllm_demo", "grpo.trainer.total_epochs=1"])


def test_the_dialogue_demo_trains_a_model_that_thinks_before_every_reply():
    name = f"test-{uuid.uuid4().hex[:8]}"
    folder, line = Path("runs", name), [sys.executable, "-m", "launch.demo", "recipe=psyllm_demo", f"run={name}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["chat"]["turns"] == summary["chat"]["well_formed"] == 3
        assert summary["sft"]["loss_last"] < 1 < 5 < summary["sft"]["loss_first"]
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert summary["chat"]["messages"][1]["content"][:10] in page and "<svg" in page
        judged, report = summary["judged"]["cpsycoune"], (folder / "report.md").read_text(encoding="utf-8")
        assert (
            judged["missing"] == 0 and judged["judges"]["mild"]["safety"] == judged["judges"]["strict"]["safety"] == 1
        )
        assert judged["judges"]["mild"]["professionalism"] > judged["judges"]["strict"]["professionalism"]
        assert "which no model gave" in report and "| mild | strict | professionalism |" in report
        assert "## clients" in report and "system prompt in place of the benchmark's own: none" in report
        again = subprocess.run(line, capture_output=True, text=True)
        assert again.returncode == 0 and "is there already" in again.stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_demo_with_other_words_sets_the_earlier_run_aside(tmp_path):
    folder = tmp_path / "demo"
    for words in ({"data": ["seed=1"]}, {"data": ["seed=2"]}, {"data": ["seed=3"]}):
        demo.set_aside(folder, words)
        folder.mkdir(exist_ok=True)
        (folder / "demo.json").write_text(json.dumps({"arguments": words}))
    demo.set_aside(folder, {"data": ["seed=3"]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "demo.1", "demo.2"]
    assert json.loads((tmp_path / "demo.1/demo.json").read_text())["arguments"] == {"data": ["seed=1"]}


def test_memory_of_a_process_tree_is_counted():
    import os

    assert 10 * 2**20 < child.tree_memory(os.getpid()) < 20 * 2**30
    assert child.tree_memory(2**22 - 3) == 0


def test_help_needs_no_run(capsys):
    assert demo.main(["--help"]) == 0
    assert "bash launch/demo.sh" in capsys.readouterr().out
    assert Path("launch/demo.sh").exists()
