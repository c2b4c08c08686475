"""A run as it stands, out of what its stages write: manifests, logs, measurements. Nothing is kept beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.counts import DataCounts, StepCounts
from data_pipeline.errors import BadInput
from data_pipeline.synthesis.files import StepFiles, step_folders
from launch.cli.configuration import as_dict, load_config
from launch.frameworks import llama_factory, verl
from launch.running.folder import RUNS, read_manifest

STAGES = ("data", "sft", "grpo", "merge", "eval")
RUNNING, STOPPED, FINISHED, UNREADABLE = "running", "stopped", "finished", "unreadable"
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class StageState:
    """One stage of a run."""

    name: str
    state: str  # RUNNING, STOPPED (the same command goes on), FINISHED, or UNREADABLE (`told` says why)
    manifest: dict[str, Any]
    recipe: str
    hardware: str
    told: str = ""
    done: int = 0  # of `total` steps
    total: int | None = None

    @property
    def share(self) -> float | None:
        return None if not self.total else min(1.0, self.done / self.total)


@dataclass(frozen=True)
class Run:
    name: str
    stages: list[StageState] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return RUNS / self.name

    @property
    def last(self) -> StageState | None:
        """Returns the stage that runs, or the last one that was begun."""
        running = [stage for stage in self.stages if stage.state == RUNNING]
        return running[-1] if running else self.stages[-1] if self.stages else None

    @property
    def changed(self) -> float:
        """Returns when one of its manifests was last written, in seconds since 1970."""
        files = [self.path / stage.name / "manifest.json" for stage in self.stages]
        return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

    def stage(self, name: str) -> StageState | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def first(self, key: str) -> str:
        """Returns the value of `recipe`, `hardware` or the like of the first stage that has one."""
        return next((value for stage in self.stages if (value := getattr(stage, key))), "")

    @property
    def model(self) -> str:
        """Returns the model that it began with, else the last one that it names."""
        named = [stage.manifest.get(key) for key in ("base_model", "model") for stage in self.stages]
        return next((str(one) for one in named if one), "")


def all_runs() -> list[Run]:
    """Returns the runs, the newest first."""
    names = [p.name for p in RUNS.iterdir() if p.is_dir() and not p.name.startswith(".")] if RUNS.is_dir() else []
    runs = [run for name in names if (run := read_run(name)).stages]
    return sorted(runs, key=lambda run: -run.changed)


def read_run(name: str) -> Run:
    """Returns the run with the stages that were begun, none for a run that is not there."""
    return Run(name, [stage for of in STAGES if (stage := read_stage(name, of))])


def read_stage(run: str, name: str) -> StageState | None:
    """Returns one stage as it stands, None for one that was not begun."""
    folder = RUNS / run / name
    try:
        manifest = read_manifest(run, name)
    except BadInput as error:
        return StageState(name, UNREADABLE, {}, "", "", str(error))
    except OSError as error:
        return StageState(name, UNREADABLE, {}, "", "", f"{error.filename}: {error.strerror}")
    if manifest is None:
        return None
    words = manifest.get("command") or {}
    done, total, text = _progress(folder, name, manifest.get("planned_steps"))
    state = FINISHED if manifest["status"] == "finished" else RUNNING if _held(folder) else STOPPED
    return StageState(name, state, manifest, words.get("recipe", ""), words.get("hardware", ""), text, done, total)


def _held(folder: Path) -> bool:
    """Returns whether the process that holds the stage's lock still lives."""
    try:
        holder = (folder / ".lock").read_text().strip()
        return holder.isdigit() and b"launch" in Path("/proc", holder, "cmdline").read_bytes()
    except OSError:
        return False


def _progress(folder: Path, stage: str, planned: int | None) -> tuple[int, int | None, str]:
    if stage == "sft":
        return llama_factory.progress(_sft_output(folder))
    if stage == "grpo":
        files = sorted(folder.glob("metrics.*.jsonl"), key=lambda p: p.stat().st_mtime)
        return verl.progress(files[-1], planned) if files else (0, None, "")
    if stage == "data":
        steps = [place for place in step_folders(folder / "steps") if not place.name.startswith("0_")]
        whole = [place for place in steps if (place / "step.json").is_file()]
        return (len(whole), len(steps), steps[-1].name) if steps else (0, None, "")
    return 0, None, ""


def _sft_output(folder: Path) -> Path:
    """Returns where LLaMA-Factory writes: what its settings name, else the model's folder."""
    try:
        return Path(str(load_config(folder / "llama_factory.yaml")["output_dir"]))
    except (OSError, KeyError, ValueError):
        return folder / "model"


def curves(run: Run) -> dict[str, dict[str, dict[str, Points]]]:
    """Returns {stage: {name of the curve: {line: [(step, value)]}}} of what the trainers have written so far."""
    found = {}
    if run.stage("sft") and (of := llama_factory.curves(_sft_output(run.path / "sft"))):
        found["sft"] = of
    if run.stage("grpo") and (of := verl.curves(run.path / "grpo")):
        found["grpo"] = of
    return found


def funnel(run: Run) -> dict[str, StepCounts]:
    """Returns the counts of every finished step, of reading alone where there are no steps, {} before that."""
    made = {
        f"{place.parent.name}/{place.name}": state.counts
        for place in step_folders(run.path / "data" / "steps")
        if (state := StepFiles(place).state())
    }
    if made or not (counts := data_counts(run)):
        return made
    return {"read": StepCounts(into=counts.into, out=counts.out, rejected=counts.rejected)}


def data_counts(run: Run) -> DataCounts | None:
    stage = run.stage("data")
    if stage is None or stage.state != FINISHED:
        return None
    return DataCounts.model_validate(stage.manifest["counts"])


def settings(run: Run, stage: str) -> Mapping[str, Any]:
    """Returns {dotted key: value} of the resolved configuration of a stage, {} without one."""
    try:
        return flat(as_dict(load_config(run.path / stage / "config.yaml")))
    except (OSError, ValueError):
        return {}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted key: value} of nested dictionaries; an empty one is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = (
                value if not isinstance(value, dict | list) else json.dumps(value, ensure_ascii=False)
            )
    return found
