"""Checks before a trainer starts."""

import json

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import Stage, parse
from launch.cli.configuration import compose_stage
from launch.models import local, tiny
from launch.models.find import check_model, find_models, parameters
from launch.preflight import checks
from tests.launch.frameworks.test_frameworks import SHAPE

U, A = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "模型 (1)"
    tiny.make(folder, ["心理学问答" * 20], 1, {**SHAPE, "vocab_size": 300})
    return folder


def test_a_whole_model_folder_and_a_hub_id_pass(model):
    check_model(str(model), "base_model")
    check_model("Qwen/Qwen2.5-0.5B-Instruct", "base_model")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["config.json"], "no config.json"),
        (["tokenizer.json"], "no tokenizer"),
        (["chat_template.jinja"], "no chat template"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(model, tmp_path, missing, message):
    import shutil

    folder = shutil.copytree(model, tmp_path / "broken")
    for name in missing:
        (folder / name).unlink(missing_ok=name == "chat_template.jinja")
    if missing == ["chat_template.jinja"]:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match=message):
        check_model(str(folder), "base_model")


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "runs/x/base", "model", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(name):
    with pytest.raises(BadInput, match="no such folder, and not the ID of a model"):
        check_model(name, "base_model")


def test_an_adapter_is_refused_with_the_key_that_takes_a_whole_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=f"^base_model={tmp_path}: holds a LoRA adapter .* say base_model=NEW_FOLDER$"):
        find_models("no-such-run", str(tmp_path), "base")


def test_a_function_that_a_file_has_not_is_told_with_those_that_it_has(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import re\nfrom os import path as given\nWEIGHT = 2\n\ndef score():\n    pass\n")
    for name in ("score", "given", "WEIGHT"):  # a name may hold a function wherever it is from
        checks.check_defines(file, name, "reward")
    with pytest.raises(BadInput, match="^reward.name=scor: .*mine.py has score. Did you mean score[?]$"):
        checks.check_defines(file, "scor", "reward")


def test_token_lengths_are_the_real_tokenizers(model):
    tokenizer = local.load_tokenizer(str(model))
    lengths = checks.token_lengths(tokenizer, [[U, A], [U, {"role": "assistant", "content": "答" * 50}]])
    assert lengths[0] == len(tokenizer.apply_chat_template([U, A])["input_ids"])
    assert lengths[1] > lengths[0]
    assert checks.token_lengths(tokenizer, []) == []


def test_rows_that_would_be_cut_are_named():
    lines = checks.cut_rows([10, 30, 20, 40], 25, ["a", "b", "c", "d"], "cutoff_len")
    assert lines[0] == "token lengths: mean 25, longest 40, cutoff_len=25"
    assert lines[1] == "WARNING: 2 of 4 rows are longer and lose their end: b, d; raise cutoff_len"
    assert len(checks.cut_rows([10], 25, ["a"], "cutoff_len")) == 1


def test_a_model_that_the_machine_cannot_carry_is_refused(model):
    assert parameters("Qwen/Qwen2.5-0.5B-Instruct") == 0.5e9
    assert parameters("owner/name") is None
    counted = parameters(str(model))
    assert counted is not None and 10_000 < counted < 100_000
    checks.check_memory_on_cpu(str(model), "base_model")
    checks.check_memory_on_cpu("owner/name", "base_model")
    with pytest.raises(BadInput, match="1000.0B parameters takes about 14901 GiB.*recipe=demo"):
        checks.check_memory_on_cpu("owner/Huge-1000B", "base_model")


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:9", "no Ray cluster answers there"), ("head", "expected HOST:PORT"), ("head:x", "expected HOST:PORT")],
)
def test_a_ray_address_that_does_not_answer_is_said(address, message):
    with pytest.raises(BadInput, match=message):
        checks.check_ray(address, "RAY_ADDRESS", seconds=2)


def test_something_else_than_ray_at_the_address_is_said():
    import socket

    with socket.socket() as listener:  # takes the call and stays silent
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"{address}: no Ray cluster answers there"):
            checks.check_ray(address, "RAY_ADDRESS", seconds=2)


def test_a_port_that_is_taken_is_said():
    import socket

    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        with pytest.raises(BadInput, match=f"MASTER_PORT={port}: Address already in use"):
            checks.check_port_free(port, "MASTER_PORT")
    checks.check_port_free(port, "MASTER_PORT")
    for wrong in ("x", "0", "70000"):
        with pytest.raises(BadInput, match="must be a port number"):
            checks.check_port_free(wrong, "MASTER_PORT")


def test_rays_copy_of_the_working_directory_is_no_place_to_train_in():
    from pathlib import Path

    checks.check_working_dir(Path("/home/me/psyforge"))
    with pytest.raises(BadInput, match="Submit without --working-dir"):
        checks.check_working_dir(Path("/tmp/ray/session/runtime_resources/working_dir_files/_ray_pkg_1"))


def test_a_path_that_is_read_as_a_pattern_is_told_before_the_framework_finds_no_rows():
    from pathlib import Path

    checks.check_working_dir(Path("/home/某 (one)/psyforge"))
    with pytest.raises(BadInput, match=r"takes \[ \] in a path for a pattern and finds no rows; move the repository"):
        checks.check_working_dir(Path("/home/me/[new]/psyforge"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "a", "messages": [U, A]}, {"id": "a", "messages": [U, A]}],
            "line 2: the id 'a' stands already on line 1",
        ),
        ([{"messages": [U, A]}, {"messages": [U, U]}], "line 2: message 2 has the role 'user'"),
        ([{"messages": [U, {**A, "content": ""}]}], "line 1: the assistant message is empty"),
        ([{"text": "x"}], "line 1: messages is not a list"),
    ],
)
def test_sft_rows_are_checked_with_file_and_line(tmp_path, rows, message):
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(BadInput, match=message) as error:
        checks.read_sft_rows(tmp_path, "sft")
    assert str(tmp_path / "sft.jsonl") in str(error.value)


def test_a_grpo_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file; first: python -m launch.data"):
        checks.read_grpo_rows(tmp_path / "absent.parquet")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(BadInput, match="not a parquet file"):
        checks.read_grpo_rows(tmp_path / "x.parquet")


def grpo(*words: str):
    stage = Stage("grpo", base_model_key="actor_rollout_ref.model.path")
    return compose_stage(stage, parse(stage, ["recipe=psyche_r1", *words]))


def test_too_few_cpus_for_ray_are_said_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 32)
    with pytest.raises(BadInput, match="num_cpus=32: verl reserves 35.*so say ray_kwargs.ray_init.num_cpus=35"):
        checks.check_ray_cpus(grpo("hardware=gpu8"))
    checks.check_ray_cpus(grpo("hardware=gpu8", "ray_kwargs.ray_init.num_cpus=35"))
    checks.check_ray_cpus(grpo("hardware=gpu1"))
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 64)
    checks.check_ray_cpus(grpo("hardware=gpu8"))


def test_fused_kernels_and_a_head_of_its_own_are_refused_under_fsdp2():
    fused, plain = (grpo("hardware=gpu8", f"actor_rollout_ref.model.use_fused_kernels={v}") for v in ("true", "false"))
    part = fused.actor_rollout_ref.model
    with pytest.raises(BadInput, match="use_fused_kernels=true: fails.*use_fused_kernels=false"):
        checks.check_fused_kernels(part, fused.actor_rollout_ref.actor.strategy, tied=False)
    checks.check_fused_kernels(part, "fsdp2", tied=True)
    checks.check_fused_kernels(part, "fsdp", tied=False)
    checks.check_fused_kernels(plain.actor_rollout_ref.model, "fsdp2", tied=False)


def test_a_setting_that_names_a_file_which_is_not_there_is_told(tmp_path):
    there = tmp_path / "a.yaml"
    there.touch()
    checks.check_inputs({"a": {"path": str(there)}, "b": "pkg://x.py", "c": None, "psyforge": {"t": "qwen3.jinja"}})
    checks.check_inputs({"files": [str(there)], "name": "v1.5", "folder": "/nowhere", "reward_kwargs": {"x": "y.json"}})
    with pytest.raises(BadInput, match=r"a\.path=/nowhere/z\.json: no such file"):
        checks.check_inputs({"a": {"path": "/nowhere/z.json"}})
    with pytest.raises(BadInput, match=r"files=no\.parquet: no such file"):
        checks.check_inputs({"files": [str(there), "no.parquet"]})
