"""Folders and files that somebody has prepared to run code when they are read: none of it runs."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.sources import passages, table
from data_pipeline.tables.rows import Layout, table_rows
from tests.conftest import launch, refused
from tests.launch import tiny_model

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import Qwen2Config, Qwen2ForCausalLM, PreTrainedTokenizerFast
class Config(Qwen2Config): model_type = "prepared"
class Model(Qwen2ForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
def generate(model, *args, **kwargs): pathlib.Path({marker!r}).touch()
"""


class Bomb:
    """A pickle that makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def save(file: Path, content: object, marker: Path) -> Path:
    """Writes a torch file with a bomb beside its tensors."""
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": content, "x": Bomb(marker)}, file)
    return file


def says_no(folder: Path, *told: str) -> None:
    from launch.models import local

    with pytest.raises(BadInput) as error:
        local.load(str(folder), "base_model")
    for text in told:
        assert text in str(error.value)


def test_a_model_that_brings_its_own_code(folder, marker):
    (folder / "prepared.py").write_text(CODE.format(marker=str(marker)))
    auto = {"AutoConfig": "prepared.Config", "AutoModelForCausalLM": "prepared.Model"}
    edit(folder / "config.json", model_type="prepared", auto_map=auto)
    says_no(folder)
    done = launch("chat", f"base_model={folder}", "recipe=demo", input="y\n" * 9)
    assert "Traceback" not in refused(done)
    assert not marker.exists()


def test_a_tokenizer_that_brings_its_own_code(folder, marker):
    (folder / "prepared.py").write_text(CODE.format(marker=str(marker)))
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "prepared.Tokenizer"]},
         tokenizer_class="Prepared")  # fmt: skip
    from launch.models import local

    try:
        local.load(str(folder), "base_model")
    except BadInput:
        pass
    assert not marker.exists()


def test_a_model_with_its_own_way_to_generate(folder, marker):
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    from launch.models import local
    from launch.models.reasoning import Sampling

    try:
        loaded = local.load(str(folder), "base_model")
        list(local.stream(loaded, "你好", Sampling(2)))
    except BadInput:
        pass
    assert not marker.exists()


def test_weights_that_are_a_pickle(folder, marker):
    (folder / "model.safetensors").unlink()
    save(folder / "pytorch_model.bin", 1, marker)
    says_no(folder)
    assert not marker.exists()


def test_an_adapter_that_is_a_pickle(model, tmp_path, marker):
    from launch.models import adapter

    edit_me = tmp_path / "adapter"
    edit_me.mkdir()
    edit(edit_me / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(model), r=2,
         target_modules=["q_proj"], task_type="CAUSAL_LM")  # fmt: skip
    save(edit_me / "adapter_model.bin", 1, marker)
    with pytest.raises(BadInput, match="do not load"):
        adapter.fold(str(model), edit_me, tmp_path / "whole", [])
    assert not marker.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_a_checkpoint_of_sft(folder, tmp_path, marker, name):
    from launch.running import checkpoints

    checkpoint = tmp_path / "sft/model/checkpoint-3"
    shutil.copytree(folder, checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    assert checkpoints.prepare_sft(checkpoint.parent, folder) == []
    save(checkpoint / name, 1, marker)
    (note,) = checkpoints.prepare_sft(checkpoint.parent, folder)
    assert name in note and "it names posix.system" in note and "from its beginning" in note
    assert not marker.exists() and checkpoint.with_name("checkpoint-3.broken").is_dir()


def test_a_checkpoint_of_verl_before_training_and_before_merging(tmp_path, marker):
    import torch

    from launch import merge
    from launch.running import checkpoints, shards

    folder = tmp_path / "grpo/checkpoints/global_step_2"
    shard = folder / "actor/model_world_size_1_rank_0.pt"
    shard.parent.mkdir(parents=True)
    torch.save({"w": torch.ones(4)}, shard)
    (folder / "actor/fsdp_config.json").write_text('{"world_size": 1}')
    (folder.parent / checkpoints.TRACKER).write_text("2")
    assert checkpoints.prepare_grpo(folder.parent) == [] and len(shards.load_actor(shard.parent)) == 1
    save(shard, 1, marker)
    with pytest.raises(BadInput, match="it names posix.system"):
        merge.find_checkpoint({"checkpoint": str(folder)}, "latest")
    with pytest.raises(BadInput, match="a shard cannot be read"):
        shards.load_actor(shard.parent)
    (note,) = checkpoints.prepare_grpo(folder.parent)
    assert "it names posix.system" in note and not marker.exists()
    assert not (folder.parent / checkpoints.TRACKER).exists()


def test_a_table_that_is_a_pickle_and_a_folder_with_a_script(tmp_path, marker):
    for name in ("t.pkl", "t.parquet", "t.csv"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(marker)))
        with pytest.raises(BadInput):
            list(table_rows(tmp_path / name, Layout()))
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "questions.py").write_text(CODE.format(marker=str(marker)))
    list(table_rows(folder, Layout()))
    (folder / "state.json").write_text("{}")  # as if `datasets` had saved it
    with pytest.raises(BadInput):
        list(table.read(folder))
    assert not marker.exists()


def test_yaml_that_makes_objects(tmp_path, marker):
    from eval.benchmarks.rubric.rubric import read_rubric

    tag = f"!!python/object/apply:os.system ['touch {marker}']"
    (tmp_path / "a.md").write_text(f"---\ntitle: {tag}\n---\n记忆是过去经验的保持和再现。\n", encoding="utf-8")
    list(passages.read(tmp_path / "a.md"))
    (tmp_path / "rubric.yaml").write_text(f"language: zh\nname: {tag}\n")
    with pytest.raises(BadInput, match="rubric.yaml line 2, column 7: the tag .* is not read"):
        read_rubric(tmp_path / "rubric.yaml")
    refused(launch("data", "recipe=demo", "run=x29", f"source_options={tag}"))
    assert not marker.exists()


def test_an_archive_writes_nothing_outside(tmp_path, marker):
    file = tmp_path / "cpsyexam.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"../{marker.name}", "x")
        archive.writestr(f"train/../../{marker.name}.json", "[]")
        archive.writestr("train/a.json", "[]")
    from data_pipeline.sources import cpsyexam

    list(cpsyexam.read(file))
    assert not marker.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["cpsyexam.zip"]
