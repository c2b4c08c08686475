"""Names from before the move: an old key, module or run folder is told where it is now."""

import json
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from launch.cli import moved
from tests.conftest import REPOSITORY, TABLE, launch, refused


def test_every_module_that_was_moved_is_where_the_table_says_and_no_longer_where_it_was():
    for package, names in moved.MODULES.items():
        folder = REPOSITORY.joinpath(*package.split("."))
        for old, new in names.items():
            assert not (folder / f"{old}.py").exists(), old
            assert folder.joinpath(*new.split(".")).with_suffix(".py").is_file(), new


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("launch.runs", "launch.running.folder"),
        ("launch.streaming.load", "launch.models.local"),
        ("data_pipeline.crisis", "data_pipeline.safety.crisis"),
        ("eval.benchmarks.own", "eval.benchmarks.heldout"),
        ("launch.cpu.rollout", None),
        ("data_pipeline.records", None),
        ("somebody.runs", None),
    ],
)
def test_an_old_module_has_its_new_name(name, new):
    assert moved.new_module(name) == new


def test_an_old_key_names_the_new_one():
    for word in ("lines={posts: [clean]}", "lines.posts=[clean]"):
        refused(launch("data", "recipe=psyllm", "dry_run=true", word), "pipelines")


def test_an_old_key_in_a_recipe_names_the_new_one():
    folder = REPOSITORY / "recipes" / "test_old_key"
    folder.mkdir()
    try:
        (folder / "data.yaml").write_text("# @package _global_\nlines:\n  posts: [clean]\n", encoding="utf-8")
        refused(launch("data", "recipe=test_old_key", "dry_run=true"), "lines", "was renamed", "pipelines")
    finally:
        (folder / "data.yaml").unlink()
        folder.rmdir()


def test_an_old_module_in_a_configuration_names_the_new_one():
    word = "trainer.v1.sampler.custom_sampler.path=pkg://launch.random_model"
    refused(launch("grpo", "recipe=demo", "dry_run=true", word), "custom_sampler.path", "launch.models.tiny")


def test_a_reward_that_imports_an_old_module_is_told(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text("import json\nfrom data_pipeline.crisis import crisis_flags\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"reward.py line 2: the module data_pipeline.crisis was moved; .*safety.crisis"):
        moved.check_imports(file, "reward.custom_reward_function.path")


def test_a_run_folder_of_another_version_is_refused_with_what_to_do(run_name):
    done = launch("data", "recipe=demo", f"run={run_name}", *TABLE)
    assert done.returncode == 0, done.stderr
    path = Path("runs", run_name, "data/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["layout"]
    import hashlib

    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    manifest["manifest_sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    says = ("another version of PsyForge", "run=NAME", f"git checkout {manifest['code']['commit']}")
    refused(launch("data", "recipe=demo", f"run={run_name}", *TABLE), *says)
    refused(launch("data", "status", f"run={run_name}"), *says)
    refused(launch("sft", "recipe=demo", f"run={run_name}"), *says)
