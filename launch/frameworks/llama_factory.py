"""What LLaMA-Factory is to us: its trainer, the keys and values that it accepts, and the logs that it writes.

python -m launch.frameworks.llama_factory runs/NAME/sft/llama_factory.yaml   # as launch/sft.py starts it
python -m launch.frameworks.llama_factory --help                             # its keys, each with what it does
python -m launch.frameworks.llama_factory keys                               # writes launch/conf/llama_factory_keys.txt
"""

import importlib
import importlib.machinery
import json
import sys
import traceback
import types
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.errors import BadInput, did_you_mean

BASE_MODEL = "model_name_or_path"  # how it spells base_model
KEYS = Path(__file__).parent.parent / "conf" / "llama_factory_keys.txt"
KINDS: dict[str, tuple[type, str]] = {  # of values, each with how it is told
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "a text"),
    "list": (list, "a list"),
    "dict": (dict, "a dictionary"),
    "none": (types.NoneType, "null"),
}
SHOWN = 20  # so many texts are told in a message


def without_torchaudio() -> None:
    """Puts an empty module in torchaudio's place if the real one does not import.

    LLaMA-Factory 0.9.5 imports it unconditionally (data/mm_plugin.py), only to read audio; the registry's builds need
    CUDA, so that there is none beside a CPU torch.
    """
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        module = types.ModuleType("torchaudio")
        module.__dict__["__version__"] = "0.0.0"
        module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = module


def meet_on_the_cpu(file: Path) -> None:
    """Joins DeepSpeed's process group where the settings name it and the CPU.

    On GPUs accelerate does so. On a CPU it leaves every rank a world of its own, whose batch is silently smaller.
    """
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    if settings.get("use_cpu") and settings.get("deepspeed"):
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


@cache
def keys() -> dict[str, list[str]]:
    """Returns {key: what it accepts} of the pinned LLaMA-Factory, without importing it: names of KINDS, and `=TEXT` for
    each text where only some are accepted.
    """
    lines = (line.split(": ", 1) for line in KEYS.read_text(encoding="utf-8").splitlines())
    return {key: accepted.split(" | ") for key, accepted in lines}


def check_value(key: str, value: Any) -> None:
    """Raises BadInput for a value that LLaMA-Factory's annotation of the key does not hold.

    LLaMA-Factory compares none of them itself: a wrong one ends in a traceback after the model's files are read, or, as
    a text where a truth value belongs, is trained with.
    """
    accepted = keys()[key]
    texts = [one[1:] for one in accepted if one.startswith("=")]
    kinds = [one for one in accepted if one in KINDS]
    of_kinds = tuple(KINDS[kind][0] for kind in kinds)
    if type(value) in of_kinds or (type(value) is int and "float" in kinds) or value in texts:
        return
    if len(texts) > SHOWN:
        told = f"one of {len(texts)} names, which stand in launch/conf/{KEYS.name}"
    else:
        told = ", ".join([*texts, *(KINDS[kind][1] for kind in kinds)])
    if "str" in kinds and isinstance(value, int | float):
        told += f"; as a text it is {key}=\"'{value}'\""
    raise BadInput(f"{key}={value}: LLaMA-Factory takes {told}{did_you_mean(str(value), texts)}")


def accepted_keys() -> dict[str, list[str]]:
    """Returns what `keys` reads, sorted, from LLaMA-Factory's own dataclasses."""
    import dataclasses
    import typing

    without_torchaudio()
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import parser

    found = {}
    for arguments in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        for field in (field for field in dataclasses.fields(arguments) if field.init):
            texts = TEMPLATES if field.name == "template" else field.metadata.get("choices")
            found[field.name] = _accepted(hints[field.name], texts)
    return dict(sorted(found.items()))


def _accepted(hint: Any, texts: Any) -> list[str]:
    """Returns what an annotation holds, as `keys` says it; `texts` are the only ones of a field that names them."""
    import enum
    import typing

    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else [hint]
    only = [f"={text}" for text in texts or ()]
    kinds = set()
    for part in parts:
        origin = typing.get_origin(part) or part
        if origin is typing.Literal:
            only += [f"={text}" for text in typing.get_args(part)]
        elif isinstance(origin, type) and issubclass(origin, enum.Enum):
            only += [f"={member.value}" for member in origin]
        else:
            kinds.add("none" if origin is types.NoneType else origin.__name__)
    return sorted(only) + [kind for kind in KINDS if kind in kinds and not (kind == "str" and only)]


def progress(output: Path) -> tuple[int, int | None, str]:
    """Returns (steps done, steps in all, latest loss) from the trainer's own log."""
    if not (entries := _log(output)):
        return 0, None, ""
    last = entries[-1]
    return last["current_steps"], last["total_steps"], f"loss {last['loss']:.3f}" if "loss" in last else ""


def log_history(output: Path) -> list[dict]:
    """Returns the Trainer's history: one entry per logged step, the last one of the whole run."""
    return json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def curves(output: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns {name of the curve: {line: [(step, value)]}} of a training as far as it has come, {} before its first
    log: the Trainer's own history once that is written, LLaMA-Factory's log until then.
    """
    named = {"loss": "loss", "learning rate": "learning_rate", "gradient norm": "grad_norm"}
    try:
        entries = log_history(output)
    except (OSError, ValueError, KeyError):
        entries = [{"step": e["current_steps"], "loss": e.get("loss"), "learning_rate": e.get("lr")}
                   for e in _log(output) if "current_steps" in e]  # fmt: skip
    lines = {name: [(e["step"], e[key]) for e in entries if e.get(key) is not None] for name, key in named.items()}
    held = [(e["step"], e["eval_loss"]) for e in entries if "eval_loss" in e]
    found = {name: {name: points} for name, points in lines.items() if points}
    if held:
        found.setdefault("loss", {})["held-out loss"] = held
    return found


def _log(output: Path) -> list[dict]:
    """Returns the whole lines of trainer_log.jsonl, [] without one."""
    entries = []
    try:
        lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # it is being written
    return entries


def _main(argv: list[str]) -> None:
    if argv == ["keys"]:
        lines = (f"{key}: {' | '.join(accepted)}\n" for key, accepted in accepted_keys().items())
        KEYS.write_text("".join(lines), encoding="utf-8")
        return
    without_torchaudio()
    if argv and Path(argv[0]).is_file():
        meet_on_the_cpu(Path(argv[0]))
    from llamafactory.train.tuner import run_exp

    try:
        run_exp()
    except ValueError as error:
        raised_in = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
        if any(module.startswith("llamafactory.hparams") for module in raised_in):
            sys.exit(f"LLaMA-Factory takes these settings alone, not together: {error}")
        raise


if __name__ == "__main__":
    _main(sys.argv[1:])
