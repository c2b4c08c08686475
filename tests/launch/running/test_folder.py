"""Run folders: one configuration and one set of inputs each; nothing mixes, nothing is repeated."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.llm.ledger import Call, Ledger
from launch.cli.arguments import Command, Stage
from launch.running.folder import StageFolder, finished_manifest, open_stage, sha256

STAGE = Stage("data")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("one")
    return tmp_path


def begin(seed=1, resume="auto", free=(), until_done=()):
    config = OmegaConf.create({"run": "a", "seed": seed, "dry_run": False, "resume": resume, "nested": {"x": [1]}})
    return open_stage(STAGE, config, {"source": Path("in.txt")}, Command(words={"recipe": "demo"}), free, until_done)


def end(folder: StageFolder) -> None:
    (folder.path / "out.txt").write_text("result")
    folder.finish({"out": folder.path / "out.txt"}, {"rows": 3})
    folder.lock.close()


def test_a_finished_stage_holds_what_it_read_and_wrote(here):
    folder = begin()
    assert not folder.done and not folder.begun
    end(folder)
    manifest = json.loads((here / "runs/a/data/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["inputs"]["source"] == {"path": "in.txt", "sha256": sha256(Path("in.txt"))}
    assert manifest["outputs"]["out"]["sha256"] == sha256(Path("runs/a/data/out.txt"))
    assert manifest["counts"] == {"rows": 3}
    assert manifest["seed"] == 1
    assert {"commit", "changed"} == set(manifest["code"])
    assert "pyarrow" in manifest["packages"]
    assert OmegaConf.load("runs/a/data/config.yaml").nested.x == [1]


def test_the_same_again_is_done_and_an_unfinished_one_continues(here):
    folder = begin()
    folder.lock.close()
    again = begin()
    assert not again.begun and not again.done
    (again.path / "train.log").touch()
    again.lock.close()
    again = begin()
    assert again.begun and not again.done
    end(again)
    assert begin().done


def test_what_is_free_to_change_goes_on_and_opens_a_finished_stage_again(here):
    end(begin())
    assert begin(free=("seed",)).done, "nothing has changed"
    again = begin(seed=2, free=("seed", "source"))
    assert again.begun and not again.done and "forced" not in again.manifest
    end(again)
    Path("in.txt").write_text("another")
    with pytest.raises(BadInput, match="in.txt changed"):
        begin(seed=2, free=("seed", "sour"))
    assert not begin(seed=2, free=("source",)).done


def paid(folder: Path) -> None:
    call = Call("key", "step", "row", 0, "m", "http://h/v1", "stop", "text", "", "", 1, 1, None, 0.1, 1, "now")
    with Ledger(folder / "ledger.sqlite") as ledger:
        asyncio.run(ledger.record(call))


BEGUN = {
    "a trainer was started": lambda folder: (folder / "train.log").touch(),
    "a call was paid": paid,
    "a response was stored": lambda folder: (folder / "responses.sft.heldout.jsonl").touch(),
}


@pytest.mark.parametrize("how", BEGUN)
def test_a_stage_protects_what_it_has_made_and_nothing_before(here, how):
    begin().lock.close()
    again = begin(seed=2)  # as a message's cure
    assert not again.begun and "forced" not in again.manifest and again.manifest["seed"] == 2
    again.lock.close()
    BEGUN[how](again.path)
    with pytest.raises(BadInput, match="seed: 2 -> 3"):
        begin(seed=3)
    begin(seed=3, until_done=("seed",)).lock.close()
    end(begin(seed=3))
    with pytest.raises(BadInput, match="seed: 3 -> 4"):
        begin(seed=4, until_done=("seed",))


def test_calls_that_failed_are_not_paid(here):
    begin().lock.close()
    call = Call("key", "step", "row", 0, "m", "http://h/v1", "failed", "", "", "busy", 0, 0, None, 0.1, 1, "now")
    with Ledger(here / "runs/a/data/ledger.sqlite") as ledger:
        asyncio.run(ledger.record(call))
    assert begin(seed=2).manifest["seed"] == 2


@pytest.mark.parametrize("change", ["config", "input"])
def test_another_configuration_or_input_is_refused(here, change):
    end(begin())
    if change == "input":
        Path("in.txt").write_text("ong")  # one byte
    with pytest.raises(BadInput, match="seed: 1 -> 2" if change == "config" else "in.txt changed"):
        begin(seed=2 if change == "config" else 1)
    forced = begin(seed=2 if change == "config" else 1, resume="force")
    assert not forced.done
    assert len(forced.manifest["forced"]) == 1


def test_two_processes_cannot_hold_one_folder(here):
    folder = begin()
    with pytest.raises(BadInput, match="another process .* is running this stage"):
        begin()
    folder.lock.close()


def test_a_runs_folder_that_cannot_be_written_is_said(here):
    Path("runs").write_text("a file in its place")
    with pytest.raises(BadInput, match="cannot write there"):
        begin()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_runs_folder_is_said(here):
    Path("runs").mkdir(mode=0o500)
    with pytest.raises(BadInput, match="make runs/ writable"):
        begin()


@pytest.mark.parametrize("content", ["{", "[]", '{"status": "finished"}', ""])
def test_an_edited_manifest_is_refused(here, content):
    end(begin())
    Path("runs/a/data/manifest.json").write_text(content)
    with pytest.raises(BadInput, match="not a manifest of ours"):
        begin()


@pytest.mark.parametrize(("key", "value"), [("status", "running"), ("seed", 2), ("counts", {"rows": 4})])
def test_a_manifest_in_which_a_value_was_changed_is_refused(here, key, value):
    end(begin())
    path = Path("runs/a/data/manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(BadInput, match="edited"):
        begin()
    path.write_text(json.dumps(manifest))  # other blanks are no edit
    assert begin().done


def test_a_stage_that_needs_another_says_which_command_makes_it(here):
    with pytest.raises(BadInput, match="the data stage has not run; first: python -m launch.data run=a"):
        finished_manifest("a", "data", "python -m launch.data run=a")
    begin().lock.close()
    with pytest.raises(BadInput, match="has not finished"):
        finished_manifest("a", "data", "x")


def test_checkpoints_beside_a_model_are_no_part_of_it_and_a_checkpoint_is_a_model(here):
    for folder in ("m", "m/checkpoint-2", "m/checkpoint-1.broken"):
        Path(folder).mkdir()
        Path(folder, "model.safetensors").write_text(folder)
    whole, checkpoint = sha256(Path("m")), sha256(Path("m/checkpoint-2"))
    shutil.rmtree("m/checkpoint-1.broken")
    shutil.rmtree("m/checkpoint-2")
    assert sha256(Path("m")) == whole != checkpoint
    Path("m/model.safetensors").write_text("other")
    assert sha256(Path("m")) != whole
    Path("checkpoint-2").mkdir()
    Path("checkpoint-2/model.safetensors").write_text("m/checkpoint-2")
    assert sha256(Path("checkpoint-2")) == checkpoint != sha256(Path("m"))


def test_a_folders_hash_sees_names_and_contents(here):
    Path("m").mkdir()
    Path("m/a").write_text("1")
    first = sha256(Path("m"))
    Path("m/a").rename("m/b")
    second = sha256(Path("m"))
    Path("m/b").write_text("2")
    assert len({first, second, sha256(Path("m"))}) == 3
    assert sha256(Path("owner/name")) is None
