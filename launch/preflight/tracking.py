"""Experiment trackers: whether they are installed and logged in, since a trainer has nobody at its keyboard to ask."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.errors import BadInput


@dataclass(frozen=True)
class Tracker:
    key: str  # the environment variable that holds its key
    logins: tuple[str, ...]  # files that its `login` command writes
    host: str  # as it stands in such a file
    mode: str  # the environment variable of its mode
    offline: tuple[str, ...]  # modes that need no login


TRACKERS = {
    "wandb": Tracker("WANDB_API_KEY", ("~/.netrc", "~/_netrc"), "wandb", "WANDB_MODE", ("offline", "disabled")),
    "swanlab": Tracker(
        "SWANLAB_API_KEY",
        (".swanlab/.netrc", "~/.swanlab/.netrc"),
        "",
        "SWANLAB_MODE",
        ("local", "offline", "disabled"),
    ),
}


def check_tracking(names: list[str], env: dict[str, str], key: str, cure: str = "") -> None:
    """Raises BadInput for a tracker that is not installed, or that would ask for a login; `env` is the trainer's."""
    for name in names:
        tracker = TRACKERS.get(name)
        if tracker is None:
            continue  # console, file, tensorboard...: no login
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"{key}: {name} is not installed; .venv/bin/python -m pip install {name}, or leave it out")
        seen = {**os.environ, **env}
        if seen.get(tracker.mode) in tracker.offline or seen.get(tracker.key):
            continue
        files = [Path(file).expanduser() for file in tracker.logins]
        if not any(file.is_file() and tracker.host in file.read_text(encoding="utf-8") for file in files):
            raise BadInput(
                f"{key}: {name} has no login here, and the trainer cannot be asked for one: set {tracker.key}, run "
                f".venv/bin/{name} login, or say {cure or f'{tracker.mode}={tracker.offline[0]} in the environment'}"
            )
