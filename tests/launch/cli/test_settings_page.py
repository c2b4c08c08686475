"""docs/settings.md and `--help` hold every setting, each with what stands beside it in the code."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field

from data_pipeline.steps import find_step, step_names
from launch.cli import reference, settings_page
from launch.cli.comments import Setting, of_class, of_function, of_yaml
from launch.cli.configuration import CONF, load_config
from tests.conftest import launch
from tests.copies import copy_repository

STAGES = reference.stages()
ANEW = "python -m launch.cli.settings_page"

YAML = """# About the file.
# More about it.
run: ??? # name
seed: 42
defaults: [a, b] # Hydra's

# Apart.

# Above it,
# in two lines.
label: "a # b" # of the run
select: # of the rows
  single: null # at most
  multi: {a: 1,
    b: 2} # of two lines
plain:
  inner: [1, 2]
endpoint: &server # whom to ask
  # its address
  url: null
judge: *server # who judges
"""


def test_the_comments_of_a_yaml_file(tmp_path):
    (tmp_path / "x.yaml").write_text(YAML, encoding="utf-8")
    assert [(s.key, s.default, s.comment) for s in of_yaml(tmp_path / "x.yaml")] == [
        ("run", "", "name"),
        ("seed", "42", ""),
        ("label", '"a # b"', "Above it, in two lines. of the run"),
        ("select", "", "of the rows"),
        ("select.single", "null", "at most"),
        ("select.multi", "{a: 1,\n    b: 2}", "of two lines"),
        ("plain.inner", "[1, 2]", ""),
        ("endpoint", "", "whom to ask"),
        ("endpoint.url", "null", "its address"),
        ("judge", "", "who judges; its keys are those of endpoint"),
    ]


class Settings(BaseModel):
    """A docstring."""

    rows: int = Field(default=3, ge=1, lt=10)  # rows # of a table
    # above it
    share: float | None = Field(default=None, gt=0)
    long: list[str] = Field(
        default_factory=list,
    )  # at the end
    kind: Literal["a", "b"] = "a"  # of them
    bare: int = 1
    needed: str  # without a default


@dataclass
class Record:
    name: str  # of it
    on: bool = False


def test_the_comments_of_a_class():
    assert of_class(Settings) == [
        Setting("rows", "3", "rows # of a table (at least 1, below 10)"),
        Setting("share", "null", "above it (above 0)"),
        Setting("long", "[]", "at the end"),
        Setting("kind", "a", "of them (a or b)"),
        Setting("bare", "1", ""),
        Setting("needed", "", "without a default"),
    ]
    assert of_class(Record) == [Setting("name", "", "of it"), Setting("on", "false", "")]


def read(path: str, size: int = 800, merge: bool = False, split: str = "", bare: int = 0, **rest: int):
    """Yields rows of at most `bare` characters.

    `path` is a file. `size` is the most characters of a row, 1.5 pages or
    so; ours. With it, `merge` joins; `split` is one of two: "train; dev". Raises nothing.
    """


def test_the_sentences_of_a_function():
    assert of_function(read, "path") == [
        Setting("size", "800", "the most characters of a row, 1.5 pages or so; ours"),
        Setting("merge", "false", ""),
        Setting("split", "''", 'one of two: "train; dev"'),
        Setting("bare", "0", ""),
    ]


def test_the_page_is_current():
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert page == settings_page.page(), f"docs/settings.md is not current; write it anew: {ANEW}"


def test_every_setting_has_a_comment():
    without = settings_page.without_comment()
    assert not without, f"settings without a comment, see the docstring of launch/cli/settings_page.py: {without}"


def test_an_option_that_nobody_explains_is_named(tmp_path):
    copy = copy_repository(tmp_path)
    reader = "def read(path, depth: int = 3):\n    yield from ()\n"
    (copy / "data_pipeline/sources/attic.py").write_text(f'"""Letters."""\n\n\n{reader}', encoding="utf-8")
    (copy / "launch/conf/merge.yaml").write_text("run: ??? # name\n\nspeed: 3\n", encoding="utf-8")
    code = "from launch.cli import settings_page; print(settings_page.without_comment())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=copy)
    assert done.stdout.strip() == "['data: Source attic: source_options.depth', 'merge: Keys: speed']"


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    """Returns the dotted keys of the values that are no dictionary, or an empty one."""
    keys = []
    for key in config:
        missing = OmegaConf.is_missing(config, key)
        value = None if missing or OmegaConf.is_interpolation(config, str(key)) else config[key]
        keys += leaves(value, f"{prefix}{key}.") if isinstance(value, DictConfig) and value else [f"{prefix}{key}"]
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_a_stage_and_every_setting_of_a_step_is_there(stage):
    shown = {setting.key for section in reference.sections(STAGES[stage]) for setting in section.settings}
    ours = {key for key in leaves(load_config(CONF / f"{stage}.yaml")) if not key.startswith(("judge.", "guard."))}
    assert ours - {"defaults"} - shown == set()
    steps = {f"synthesis.{name}.{key}" for name in step_names() for key in find_step(name, "").settings.model_fields}
    assert stage != "data" or steps - shown == set()


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_stage_shows_the_same(stage):
    done = launch(stage, "--help", env=os.environ | {"COLUMNS": "72"})
    assert done.returncode == 0 and not done.stderr
    shown = " ".join(done.stdout.split())
    assert shown.startswith(" ".join(reference.about(stage).split()))
    for section in reference.sections(STAGES[stage]):
        for setting in section.settings:
            told = f"{setting.key}{f'={setting.default}' if setting.default else ''} {setting.comment}"
            assert " ".join(told.split()) in shown
    assert "--cfg job" in shown and "docs/settings.md" in shown
    comments = [line for line in done.stdout.splitlines() if line.startswith(" " * 20)]
    assert len(comments) > 3 and max(map(len, comments)) < 72


@pytest.mark.parametrize("words", [["-h"], ["status", "--help"], ["recipe=nothing", "--help"]])
def test_help_stands_before_all_else(words):
    done = launch("data", *words)
    assert done.returncode == 0 and "synthesis.clean.min_post=10" in done.stdout


def test_help_that_is_cut_off_leaves_no_traceback():
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m launch.data --help | head -n 1", shell=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("The data stage") and not done.stderr


def test_help_imports_no_framework():
    code = (
        "import sys; from launch.cli import arguments, help\nhelp.show(arguments.DATA), help.show(arguments.EVAL)\n"
        "print([m for m in ('torch', 'ray', 'verl', 'llamafactory', 'transformers', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("stage", "line", "shown"),
    [
        ("sft", "python -m launch.frameworks.llama_factory --help", "--neftune_noise_alpha"),
        ("grpo", "python -m launch.grpo --cfg job", "norm_adv_by_std_in_grpo: true"),
        ("grpo", "python -m launch.grpo --cfg job --package actor_rollout_ref.rollout", "gpu_memory_utilization: 0.5"),
    ],
)
def test_what_help_says_of_the_frameworks_keys_is_so(stage, line, shown):
    assert re.search(rf"{re.escape(line)}(?=[ .,])", reference.THEIR_KEYS[stage])
    done = subprocess.run([sys.executable, *line.split()[1:]], capture_output=True, text=True)
    assert done.returncode == 0 and shown in done.stdout, done.stderr
