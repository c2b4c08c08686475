"""Tensors out of checkpoints, read so that no code of theirs can run, whoever put the files there.

A `.pt` file is a pickle, which calls what it names. Here the names are those of torch, and the few more that verl and
DeepSpeed write: `weights_only`. verl and its merger load without that, so that what they are given is read here first.
"""

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput

PICKLES = (".pt", ".pth", ".bin")
NOBODY_READS = "training_args.bin"  # transformers writes it, and loads it never
# Classes that hold numbers and do nothing, of checkpoints that verl and DeepSpeed write
DATA = (
    "collections.defaultdict", "numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler", "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)  # fmt: skip


def fault(path: Path) -> str | None:
    """Returns why a `.pt` file is not to be loaded: it would call something else than tensors need; None where it may.

    Tensors stay on the disk: the file is mapped.
    """
    try:
        load(path, mmap=True)
    except Exception as error:  # torch raises what broken files provoke, of any type
        named = re.search(r"GLOBAL (\S+)|class (\S+)", str(error))
        return f"it names {named[1] or named[2]}" if named else f"{type(error).__name__}: {str(error)[:120]}"
    return None


def load(path: Path, mmap: bool = False) -> Any:
    """Returns what a `.pt` file holds, tensors on the CPU; raises what torch raises for another name than of data."""
    import torch
    import torch.distributed.tensor  # names its own classes as safe

    with _safe(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def load_actor(actor: Path) -> dict:
    """Returns the checkpoint's full fp32 tensors, put together from its FSDP shards independently of verl's merger."""
    import torch
    from torch.distributed.tensor import DTensor

    world = json.loads((actor / "fsdp_config.json").read_text())["world_size"]
    paths = [actor / f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world)]
    try:
        ranks = [load(path) for path in paths]
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise BadInput(f"{actor}: a shard cannot be read ({told}); the checkpoint was cut off, or altered") from None
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


@contextmanager
def _safe(path: Path) -> Iterator[None]:
    """Within it torch also loads the classes of DATA that the file names; the others are not imported."""
    import torch

    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # `load` says what is wrong
        named = []
    found = []
    for name in set(named) & set(DATA):
        module, _, attribute = name.rpartition(".")
        found.append((getattr(importlib.import_module(module), attribute), name))
    if "numpy.dtype" in named:  # which gives one of these, by the name of its kind
        import numpy

        found += [kind for name, kind in vars(numpy.dtypes).items() if name.endswith("DType")]
    with torch.serialization.safe_globals(found):
        yield
