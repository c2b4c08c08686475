"""Checkpoints of both trainers: which is the newest whole one. Any other is set aside before a trainer trips over it.

A kill while a checkpoint is written, or a full disk, leaves a folder that the frameworks take for the newest one; they
also load what somebody has altered, or put there. Whole is what has all its files, as they were written (hashes.py),
of the model that is trained, and nothing that would run code (shards.py).
"""

import json
import re
import time
import zipfile
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from data_pipeline.records import write_text
from launch.running import hashes, shards

LAST_FILE = "trainer_state.json"  # transformers writes it after everything else, but the other ranks' random states
TRACKER = "latest_checkpointed_iteration.txt"  # verl writes it after everything else
SETTLED = 5.0  # seconds without a change after which a checkpoint of several ranks is complete; ours
KINDS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # verl's checkpoint.load_contents: its files
SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads")  # fmt: skip
_SHARD = re.compile(r"\w+_world_size_(\d+)_rank_\d+\.pt")
ANEW = "no earlier one is whole, so that the training starts from its beginning"


def fault(folder: Path) -> str | None:
    """Returns which file of a checkpoint is cut off, or not to be loaded, and how it was seen; None for a whole one."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if path.suffix in shards.PICKLES and not zipfile.is_zipfile(path):
            return f"{name} is cut off ({path.stat().st_size} bytes, no end of a torch file)"
        if path.suffix == ".safetensors" and path.stat().st_size != _safetensors_size(path):
            return f"{name} is cut off ({path.stat().st_size} bytes, its header names {_safetensors_size(path)})"
        if path.suffix in (".pkl", ".pickle"):
            return f"{name} is a pickle, which no trainer of ours writes"
    for path in sorted(folder.rglob("*")):
        if path.suffix in shards.PICKLES and path.name != shards.NOBODY_READS and (why := shards.fault(path)):
            return f"{path.relative_to(folder)} is not read, for it may hold code or be broken ({why})"
    return None


def _safetensors_size(path: Path) -> int | None:
    """Returns the size in bytes that the file's header announces, None without a whole header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < 1 << 30 else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError):
            return None
    return 8 + length + max(ends, default=0)


def numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """Returns {step: folder} of the checkpoints named PREFIX and a number, oldest first."""
    by_suffix = {p.name.removeprefix(prefix): p for p in folder.glob(f"{prefix}*") if p.is_dir()}
    return {int(step): by_suffix[step] for step in sorted((s for s in by_suffix if s.isdigit()), key=int)}


def prepare_sft(output: Path, base: Path | None = None) -> list[str]:
    """Sets the newest checkpoints aside while they are not whole, or of another model than `base`; returns a note on
    each (what, why, what follows).
    """
    notes, whole = [], 0
    for step, folder in reversed(numbered(output, "checkpoint-").items()):
        why = f"{LAST_FILE} is missing or cut off" if not _is_json(folder / LAST_FILE) else None
        why = why or _lacks_order(folder) or hashes.changed(output.parent, folder) or fault(folder)
        why = why or _of_another(folder, base)
        if why is None:
            whole = step
            break
        notes.append(_set_aside(folder, step, why))
    return _followed(notes, whole)


def _lacks_order(folder: Path) -> str | None:
    """Returns which rank's random state is missing, of which follows the order of its rows, and which transformers goes
    on without; DeepSpeed's files say how many ranks there are.
    """
    ranks = len([*folder.glob("global_step*/*_optim_states.pt")])
    names = [f"rng_state_{rank}.pth" for rank in range(ranks if ranks > 1 else 0)]
    return next((f"{name} is missing" for name in names if not (folder / name).is_file()), None)


def prepare_grpo(folder: Path, base: Path | None = None, contents: Collection[str] = ("model",)) -> list[str]:
    """As `prepare_sft` for verl's checkpoints, of which it loads `contents`; the tracker file then names the newest
    whole one. One whose weights verl has deleted (max_actor_ckpt_to_keep) is no fault, and no checkpoint.
    """
    notes, tracker = [], folder / TRACKER
    whole, newest = 0, last_step(folder)
    for step, path in reversed(numbered(folder, "global_step_").items()):
        if step > newest:
            continue  # was being written when the run was killed; verl writes it again
        if step < newest and not (path / "actor").is_dir():
            continue
        why = missing(path, contents) or hashes.changed(folder.parent, path) or fault(path)
        why = why or _of_another(path / "actor" / "huggingface", base)
        if why is None:
            whole = step
            break
        notes.append(_set_aside(path, step, why))
    if whole != newest:
        notes = notes or [f"WARNING: the checkpoint of step {newest} is gone"]
        if whole:
            write_text(tracker, str(whole))
        else:
            tracker.unlink(missing_ok=True)
    return _followed(notes, whole)


def missing(folder: Path, contents: Collection[str] = ("model",)) -> str | None:
    """Returns which file a checkpoint of verl's FSDP lacks, None where all ranks' are there."""
    actor = folder / "actor"
    if (actor / "dist_ckpt").is_dir():
        return None  # Megatron's
    worlds = {int(named[1]) for file in actor.glob("*.pt") if (named := _SHARD.fullmatch(file.name))}
    if len(worlds) != 1:
        return "actor/ holds no weights" if not worlds else f"actor/ holds shards of {sorted(worlds)} ranks"
    (world,) = worlds
    for kind in (KINDS[one] for one in contents if one in KINDS):
        for rank in range(world):
            if not (actor / f"{kind}_world_size_{world}_rank_{rank}.pt").is_file():
                return f"actor/{kind}_world_size_{world}_rank_{rank}.pt is missing"
    return None


def recording_sft(output: Path) -> AbstractContextManager[None]:
    """Records the hashes of LLaMA-Factory's checkpoints while the block lasts."""

    def complete(ended: bool) -> list[Path]:
        found = [path for path in numbered(output, "checkpoint-").values() if _is_json(path / LAST_FILE)]
        return found if ended else [path for path in found if _age(path) >= SETTLED]

    return hashes.recording(output.parent, complete)


def recording_grpo(folder: Path) -> AbstractContextManager[None]:
    """As `recording_sft`, of verl's."""

    def complete(_: bool) -> list[Path]:
        found = {step: path for step, path in numbered(folder, "global_step_").items() if step <= last_step(folder)}
        return [path for path in found.values() if missing(path) is None]

    return hashes.recording(folder.parent, complete)


def _age(folder: Path) -> float:
    try:
        return time.time() - max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
    except OSError:
        return 0.0


def _of_another(folder: Path, base: Path | None) -> str | None:
    """Returns in what a checkpoint's model differs from the one that is trained, None where it does not."""
    try:
        ours, theirs = (json.loads((one / "config.json").read_text("utf-8")) for one in (base or folder, folder))
    except (OSError, ValueError):
        return None
    differing = [key for key in SHAPE if key in ours and key in theirs and ours[key] != theirs[key]]
    told = ", ".join(f"{key} {theirs[key]}, here {ours[key]}" for key in differing)
    return f"it is of another model ({told})" if told else None


def _followed(notes: list[str], step: int) -> list[str]:
    """Returns the notes, the last one with what follows."""
    follows = f"the training goes on from step {step}" if step else ANEW
    return [*notes[:-1], f"{notes[-1]}; {follows}"] if notes else notes


def last_step(folder: Path) -> int:
    """Returns the step of verl's newest checkpoint, 0 without one."""
    try:
        return int((folder / TRACKER).read_text())
    except (OSError, ValueError):
        return 0


def _set_aside(folder: Path, step: int, why: str) -> str:
    aside = folder.with_name(f"{folder.name}.broken")
    for number in range(2, 100):
        if not aside.exists():
            break
        aside = folder.with_name(f"{folder.name}.broken{number}")
    folder.rename(aside)
    return f"WARNING: the checkpoint of step {step} is not whole: {why}; set aside as {aside}"


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
