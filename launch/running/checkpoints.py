"""Checkpoints of both trainers: which is the newest whole one. A cut one is set aside before a trainer trips over it.

A kill while a checkpoint is written, or a full disk, leaves a folder that the frameworks take for the newest one.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput

LAST_FILE = "trainer_state.json"  # transformers writes it after everything else
TRACKER = "latest_checkpointed_iteration.txt"  # verl writes it after everything else


def fault(folder: Path) -> str | None:
    """Returns which file of a checkpoint is cut off and how it was seen, None for a whole checkpoint."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if path.suffix in (".pt", ".bin", ".pth") and not zipfile.is_zipfile(path):
            return f"{name} is cut off ({path.stat().st_size} bytes, no end of a torch file)"
        if path.suffix == ".safetensors" and path.stat().st_size != _safetensors_size(path):
            return f"{name} is cut off ({path.stat().st_size} bytes, its header names {_safetensors_size(path)})"
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


def prepare_sft(output: Path) -> list[str]:
    """Sets the newest checkpoints aside while they are cut off; returns a note on each (what, why, what follows)."""
    notes = []
    for step, folder in reversed(numbered(output, "checkpoint-").items()):
        why = f"{LAST_FILE} is missing or cut off" if not _is_json(folder / LAST_FILE) else fault(folder)
        if why is None:
            break
        notes.append(_set_aside(folder, step, why))
    return notes


def prepare_grpo(folder: Path) -> list[str]:
    """As `prepare_sft` for verl's checkpoints; the tracker file then names the newest whole one."""
    notes, tracker = [], folder / TRACKER
    whole = 0
    for step, path in reversed(numbered(folder, "global_step_").items()):
        if step > last_step(folder):
            continue  # was being written when the run was killed; verl writes it again
        why = fault(path)
        if why is None:
            whole = step
            break
        notes.append(_set_aside(path, step, why))
    if notes:
        if whole:
            tracker.write_text(str(whole))
        else:
            tracker.unlink()
    return notes


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


def load_shards(actor: Path) -> dict:
    """Returns the checkpoint's full fp32 tensors, put together from its FSDP shards independently of verl's merger."""
    import torch
    from torch.distributed.tensor import DTensor

    world = json.loads((actor / "fsdp_config.json").read_text())["world_size"]
    paths = [actor / f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world)]
    try:  # our own trainer wrote these files; DTensor needs the full unpickler
        ranks = [torch.load(path, map_location="cpu", weights_only=False) for path in paths]
    except Exception as error:
        raise BadInput(f"{actor}: a shard cannot be read ({error}); the checkpoint was cut off") from None
    full = {}
    for name in ranks[0]:
        parts = [rank[name] for rank in ranks]
        if isinstance(parts[0], DTensor):
            placement: Any = parts[0].placements[-1]  # of one of two kinds of shard, or none
            local = [part._local_tensor for part in parts]
            full[name] = torch.cat(local, placement.dim) if placement.is_shard() else local[0]
        else:
            full[name] = parts[0]
        full[name] = full[name].float()
    return full
