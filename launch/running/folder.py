"""Run folders: `runs/NAME/STAGE/` with its configuration, manifest and lock.

A stage folder belongs to one configuration and one set of inputs. The same again continues it, or finds it done;
another one is refused, so that two runs never mix. A stage that has not begun (`has_begun`) holds nothing to mix with.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput, storage_fault
from data_pipeline.llm.ledger import Where, place, totals
from data_pipeline.records import write_text
from data_pipeline.safety.credentials import hide_keys
from launch.cli.arguments import REPOSITORY, Command, Stage
from launch.cli.configuration import as_dict, load_config

RUNS = Path("runs")
PACKAGES = ("llamafactory", "verl", "torch", "transformers", "ray", "vllm", "deepspeed", "datasets", "pyarrow")
LAYOUT = 2  # of run folders and their configuration; 1 had `lines` for `pipelines`
_LEFT_OUT = re.compile(r"__pycache__|checkpoint-\d+(\.broken\d*)?")  # names of folders, in a folder's hash
# Words that say how to start, not what to run
VOLATILE = ("dry_run", "resume", "steps", "budget", "executor", "shared", "tokens_per_s")


@dataclass
class StageFolder:
    """`runs/NAME/STAGE/`, held by this process until it ends. `done`: an earlier call finished it already."""

    path: Path
    manifest: dict
    lock: TextIO
    done: bool = False
    begun: bool = False  # by an earlier call: what it has made is to be continued
    started: float = field(default_factory=time.monotonic)

    def finish(self, outputs: dict[str, Path], counts: dict, **more) -> None:
        """Hashes the outputs and marks the manifest finished."""
        self.manifest.update(
            status="finished",
            outputs=describe(outputs),
            counts=counts,
            wall_s=round(self.manifest.get("wall_s", 0) + time.monotonic() - self.started, 2),
            finished=_now(),
            **more,
        )
        self.save()

    def save(self) -> None:
        self.manifest["manifest_sha256"] = _own_hash(self.manifest)
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False)
        write_text(self.path / "manifest.json", text + "\n")


def open_stage(
    stage: Stage,
    config: DictConfig,
    inputs: dict[str, Path],
    command: Command,
    free: Collection[str] = (),
    until_done: Collection[str] = (),
) -> StageFolder:
    """Returns the stage's folder, new, to be continued, or done. `free` are keys of the configuration, and names of
    inputs, that may change within a run: a finished stage is then to be continued. Those of `until_done` may change
    until it is finished, and all of them until it has begun.

    Raises BadInput when runs/ cannot be written, another process holds the folder, or the folder belongs to another
    configuration or other inputs (naming what differs; `resume=force` goes on and is recorded).
    """
    path = RUNS / config.run / stage.name
    resolved = {k: v for k, v in as_dict(config).items() if k not in VOLATILE}
    lock = _opened(path)
    _hold(lock, path)

    described = describe(inputs)
    manifest = read_manifest(config.run, stage.name)
    folder = StageFolder(path, manifest or {}, lock)
    if manifest is not None:
        changed = _differences(_stored_config(path), resolved)
        changed += [
            (name, f"input {name}: {now['path']} changed")
            for name, now in described.items()
            if manifest["inputs"].get(name, {}).get("sha256") != now["sha256"]
        ]
        finished = manifest["status"] == "finished"
        may_change = free if finished else [*free, *until_done]
        differences = [told for key, told in changed if not any(f"{key}.".startswith(f"{one}.") for one in may_change)]
        folder.begun = finished or has_begun(path)
        if not folder.begun:
            differences = []
        if differences and config.resume != "force":
            shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
            raise BadInput(
                f"{path}: exists with another configuration or other inputs ({shown}). Use another run=NAME, delete "
                f"{path}, or say resume=force"
            )
        if differences:
            manifest.setdefault("forced", []).append({"at": _now(), "differences": differences})
        elif finished and not changed:
            folder.done = True
            return folder
    folder.manifest = {
        **folder.manifest,
        "layout": LAYOUT,
        "stage": stage.name,
        "run": config.run,
        "status": "running",
        "command": command.words,
        "inputs": described,
        "config_sha256": hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest(),
        "code": _code(),
        "packages": _packages(),
        "seed": config.get("seed"),
        "started": folder.manifest.get("started", _now()),
    }
    write_text(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(resolved)))
    if recipe := command.words.get("recipe"):
        write_text(path / "recipe", recipe + "\n")
    folder.save()
    return folder


def _opened(path: Path) -> TextIO:
    """Returns the lock of a stage's folder, which is made, its owner's alone; raises BadInput where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, path):
            if folder.stat().st_mode & 0o077 and folder.stat().st_uid == os.geteuid():
                folder.chmod(0o700)  # of an earlier version
        return open(path / ".lock", "a+")
    except OSError as error:
        if isinstance(error, PermissionError) and path.exists() and (owner := path.stat().st_uid) != os.geteuid():
            raise BadInput(
                f"{path}: belongs to user {_name_of(owner)}; use another run=NAME, or run as that user"
            ) from None
        told = storage_fault(error) or f"{error.strerror}; make {RUNS}/ a folder that can be written"
        raise BadInput(f"{path}: cannot write there ({told})") from None


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def ledger_of(path: Path) -> Where:
    """Returns where the calls of a stage's folder are kept."""
    return place(_stored_config(path).get("ledger"), path)


def has_begun(path: Path) -> bool:
    """Returns whether a stage that is not finished has made what another configuration would spoil: a trainer was
    started in its folder, a call paid, or a response stored.
    """
    calls = totals(ledger_of(path))
    return (path / "train.log").exists() or any(c["calls"] for c in calls) or any(path.glob("responses.*.jsonl"))


def _hold(lock: TextIO, path: Path) -> None:
    """Takes the folder's lock and writes our process id into it; raises BadInput when another process has it.

    A killed stage's trainer holds the lock until it has ended too, so that one is waited for.
    """
    for waited in range(121):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            lock.seek(0)
            holder = lock.read().strip()
            if waited == 120 or (holder.isdigit() and Path("/proc", holder).exists()):
                raise BadInput(
                    f"{path}: another process (started by {holder or 'unknown'}) is running this stage; wait for it, "
                    "or use another run=NAME"
                ) from None
            if not waited:
                print(f"{path}: an earlier trainer is still ending; waiting for it")
            time.sleep(0.5)
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()


def read_manifest(run: str, stage: str) -> dict | None:
    """Returns the manifest of a run's stage, None without one; raises BadInput for a broken one."""
    path = RUNS / run / stage / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        whole = manifest["manifest_sha256"] == _own_hash(manifest)
    except (FileNotFoundError, NotADirectoryError):  # a file in the folder's place is told when the run is made
        return None
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise BadInput(f"{path}: not a manifest of ours (edited, or cut off); delete {path.parent} to start anew")
    if manifest.get("layout") != LAYOUT:
        commit, model = manifest["code"]["commit"], manifest.get("model")
        raise BadInput(
            f"{path.parent}: made by another version of PsyForge, whose run folders this one cannot go on with; start "
            "anew under another run=NAME"
            + (f", from its model by base_model={model}" if model else "")
            + (f". The version that made it: git checkout {commit}" if commit else "")
        )
    return manifest


def _own_hash(manifest: dict) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished_manifest(run: str, stage: str, command: str) -> dict:
    """Returns the finished manifest of an earlier stage; raises BadInput that says which command makes it."""
    manifest = read_manifest(run, stage)
    if manifest is None or manifest["status"] != "finished":
        state = "has not finished" if manifest else "has not run"
        raise BadInput(f"run {run}: the {stage} stage {state}; first: {command}")
    return manifest


def describe(files: dict[str, Path]) -> dict[str, dict]:
    """Returns {name: {path, sha256}}; a folder's hash is over its files' names and hashes, None for what is no file.

    Checkpoints of a training beside the model that it made are no part of that model: they may be deleted.
    """
    return {name: {"path": str(path), "sha256": sha256(Path(path))} for name, path in files.items()}


def compare(file: dict) -> str:
    """Returns whether a file is as `describe` found it: "as recorded", "missing", "CHANGED", or "on the hub" for what
    was no file.
    """
    if file["sha256"] is None:
        return "on the hub"
    now = sha256(Path(file["path"]))
    return "missing" if now is None else "as recorded" if now == file["sha256"] else "CHANGED"


def sha256(path: Path) -> str | None:
    if path.is_dir():
        inner = [f"{p.relative_to(path)} {sha256(p)}" for p in _files(path)]
        return hashlib.sha256("\n".join(inner).encode()).hexdigest()
    if not path.is_file():
        return None  # a model's ID on the hub
    return file_sha256(path)


def file_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p in files if not any(map(_LEFT_OUT.fullmatch, p.relative_to(folder).parts))]


def _stored_config(path: Path) -> dict:
    try:
        return as_dict(load_config(path / "config.yaml"))
    except FileNotFoundError:
        return {}


def _differences(old: dict, new: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Returns (key, "key: before -> after") of all that differs."""
    differing = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            differing += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            differing.append((f"{prefix}{key}", hide_keys(f"{prefix}{key}: {before!r} -> {after!r}")))
    return differing


def _code() -> dict:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD") or None, "changed": bool(git("status", "--porcelain"))}
    except OSError:
        return {"commit": None, "changed": None}


def _packages() -> dict:
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return installed


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
