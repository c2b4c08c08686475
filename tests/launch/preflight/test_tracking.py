"""Trackers that would ask for a login are refused before a trainer with nobody at its keyboard starts."""

import importlib.util
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import SFT, parse
from launch.cli.configuration import compose_stage
from launch.preflight.tracking import check_tracking


@pytest.fixture(autouse=True)
def _nobody(tmp_path, monkeypatch):
    """A home without any login, and every tracker installed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "SWANLAB_API_KEY", "SWANLAB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("name", "key", "mode"), [("wandb", "WANDB_API_KEY", "WANDB_MODE"), ("swanlab", "SWANLAB_API_KEY", "SWANLAB_MODE")]
)
def test_a_tracker_needs_a_login_or_a_mode_without(name, key, mode, monkeypatch):
    check_tracking(["console", "file", "tensorboard", "none"], {}, "trainer.logger")
    with pytest.raises(
        BadInput, match=f"trainer.logger: {name} has no login here.*set {key}, run .venv/bin/{name} login"
    ):
        check_tracking(["console", name], {}, "trainer.logger")
    check_tracking([name], {mode: "offline"}, "trainer.logger")
    check_tracking([name], {key: "x"}, "trainer.logger")
    monkeypatch.setenv(mode, "offline")
    check_tracking([name], {}, "trainer.logger")


def test_a_login_on_this_machine_is_seen():
    Path("~/.netrc").expanduser().write_text("machine api.wandb.ai\n  login user\n  password x\n")
    check_tracking(["wandb"], {}, "report_to")
    folder = Path("~/.swanlab").expanduser()
    folder.mkdir()
    (folder / ".netrc").write_text("machine https://swanlab.cn/api\n  login user\n  password x\n")
    check_tracking(["swanlab"], {}, "report_to")


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="wandb is not installed; .venv/bin/python -m pip install wandb"):
        check_tracking(["wandb"], {"WANDB_API_KEY": "x"}, "report_to")


def test_psyllms_published_use_swanlab_is_asked_for(monkeypatch):
    from launch import sft

    config = compose_stage(SFT, parse(SFT, ["recipe=psyllm", "hardware=cpu", "run=x", "base_model=owner/name"]))
    with pytest.raises(BadInput, match="use_swanlab: swanlab has no login here.*swanlab_mode=local"):
        sft.check_plan_and_machine(config, "owner/name", 10)
    words = ["recipe=psyllm", "hardware=cpu", "run=x", "base_model=owner/name", "swanlab_mode=local"]
    sft.check_plan_and_machine(compose_stage(SFT, parse(SFT, words)), "owner/name", 10)
