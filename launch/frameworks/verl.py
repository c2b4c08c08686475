"""What verl is to us: its command, its configuration and the metrics that it writes. Imports no verl."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.records import write_text
from launch.frameworks import verl_metrics

BASE_MODEL = "actor_rollout_ref.model.path"  # how it spells base_model
OURS = ("run", "cards", "nodes", "grpo_prompts", "seed", "dry_run", "resume", "psyforge")
# verl's workers start in folders of their own, so these have to be absolute when they get there.
PATHS = (
    "data.train_files",
    "data.val_files",
    "actor_rollout_ref.model.path",
    "reward.custom_reward_function.path",
    "trainer.default_local_dir",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
)
CURVES = {  # of its metrics, as the papers draw them: {curve: {line: key}}
    "reward": {"mean": "critic/score/mean", "highest": "critic/score/max", "lowest": "critic/score/min"},
    "KL": {"KL to the start": "actor/kl_loss"},
    "entropy": {"entropy": "actor/entropy"},
    "response length": {"mean": "response_length/mean", "highest": "response_length/max"},
    "share that is cut": {"share that is cut": "response_length/clip_ratio"},
    "learning rate": {"learning rate": "actor/lr"},
    "gradient norm": {"gradient norm": "actor/grad_norm"},
}
PART = r"reward/(?!think_chars)\w+/mean"  # a part of our reward (reward/psyche.py), as the metrics have it
HYDRA = {"run": {"dir": "."}, "output_subdir": None}


def config_folder() -> Path:
    """Returns the folder of verl's own YAML, found without an import; raises BadInput where verl is not installed."""
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise BadInput("verl is not installed here; first: bash launch/install.sh")
    return Path(spec.origin).parent / "trainer" / "config"


def defaults() -> dict[str, Any]:
    """Returns verl's own configuration, as it composes it, interpolations unresolved."""
    with open(config_folder() / "_generated_ppo_trainer.yaml", encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def own_part(config: dict[str, Any]) -> dict[str, Any]:
    """Returns verl's part of the GRPO stage's configuration, as it stands."""
    return {key: value for key, value in config.items() if key not in OURS}


def our_part(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of the GRPO stage's configuration that verl does not get."""
    return {key: value for key, value in config.items() if key in OURS}


def changed_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Returns verl's part without what is verl's own default: the part a person wants to read."""

    def differing(ours, theirs):
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            return ours
        changed = {}
        for key, value in ours.items():
            if key in theirs and (value == theirs[key] or str(theirs[key]).startswith("${")):
                continue
            inner = differing(value, theirs.get(key))
            if inner != {} or key not in theirs:
                changed[key] = inner
        return changed

    return differing(own_part(config), defaults())


def for_verl(config: dict[str, Any]) -> DictConfig:
    """Returns verl's part of the configuration, with absolute paths."""
    settings = OmegaConf.create(own_part(config))
    for key in PATHS:
        value = OmegaConf.select(settings, key)
        if value and (key != "actor_rollout_ref.model.path" or Path(value).is_dir()):
            OmegaConf.update(settings, key, str(Path(value).resolve()))
    # Without this Ray joins any cluster that somebody started on this machine.
    OmegaConf.update(settings, "ray_kwargs.ray_init.address", "local", force_add=True)
    if shlex.quote(sys.executable) != sys.executable:  # Ray starts its workers through a shell and does not quote
        OmegaConf.update(
            settings, "ray_kwargs.ray_init.runtime_env.py_executable", shlex.quote(sys.executable), force_add=True
        )
    return settings


def on_cluster(settings: dict, address: str, env: dict) -> dict:
    """Returns verl's settings for a Ray cluster that runs already: its address, and the environment for its workers."""
    settings["ray_kwargs"]["ray_init"] = {
        "address": address,
        "num_cpus": None,
        "runtime_env": {"env_vars": {name: str(value) for name, value in env.items()}},
    }
    return settings


def _read_metrics(path: Path) -> list[dict]:
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run
        steps.append({"step": entry["step"], **entry["data"]})
    return steps


def progress(metrics: Path, total: int | None) -> tuple[int, int | None, str]:
    """Returns (step, steps in all, latest mean reward) from verl's own metrics file."""
    steps = _read_metrics(metrics) if metrics.is_file() else []
    rewards = [s["critic/score/mean"] for s in steps if "critic/score/mean" in s]
    return (steps[-1]["step"] if steps else 0), total, f"reward {rewards[-1]:.2f}" if rewards else ""


def collect_metrics(folder: Path) -> list[dict]:
    """Returns `read_metrics`, and writes them to metrics.jsonl."""
    steps = read_metrics(folder)
    write_text(folder / "metrics.jsonl", "".join(json.dumps(s) + "\n" for s in steps))
    return steps


def read_metrics(folder: Path) -> list[dict]:
    """Returns the metrics of every step, of its latest attempt."""
    by_step = {}
    files = [*folder.glob(f"{verl_metrics.NAME}.*.jsonl"), *folder.glob("metrics.*.jsonl")]
    for path in sorted(files, key=lambda p: int(p.name.split(".")[1])):  # of one attempt verl's own come last
        for entry in _read_metrics(path):
            by_step[entry["step"]] = {**by_step.get(entry["step"], {}), **entry}
    return [by_step[number] for number in sorted(by_step)]


def curves(folder: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns {name of the curve: {line: [(step, value)]}} of a training as far as it has come."""
    steps = read_metrics(folder)
    found = {}
    for name, keys in CURVES.items():
        lines = {label: [(s["step"], s[key]) for s in steps if s.get(key) is not None] for label, key in keys.items()}
        found |= {name: lines} if any(lines.values()) else {}
    parts = sorted({key for s in steps for key in s if re.fullmatch(PART, key)})
    lines = {key.split("/")[1]: [(s["step"], s[key]) for s in steps if key in s] for key in parts}
    accuracy = {name: line for name, line in lines.items() if name == "acc"}
    found |= {"reward by part": lines} if lines else {}
    found |= {"accuracy on the prompts": accuracy} if accuracy else {}
    held = sorted({key for s in steps for key in s if key.startswith("val-core/")})
    lines = {key.split("/", 2)[-1]: [(s["step"], s[key]) for s in steps if key in s] for key in held}
    return found | ({"held-out questions": lines} if lines else {})


def command(folder: Path) -> list[str]:
    """Returns the command that trains by FOLDER/verl.yaml."""
    argv = [
        sys.executable,
        "-m",
        "launch.frameworks.verl_driver",
        "--config-path",
        str(folder.resolve()),
        "--config-name",
        "verl",
    ]
    return [*argv, "hydra/job_logging=none", "hydra/hydra_logging=none"]  # else Hydra writes files of its own
