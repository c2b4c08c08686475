"""What LLaMA-Factory is to us: its trainer, the keys that it accepts, and the logs that it writes.

python -m launch.frameworks.llama_factory runs/NAME/sft/llama_factory.yaml   # as launch/sft.py starts it
python -m launch.frameworks.llama_factory --help                             # its keys, each with what it does
python -m launch.frameworks.llama_factory keys                               # writes launch/conf/llama_factory_keys.txt
"""

import importlib
import importlib.machinery
import json
import sys
import types
from pathlib import Path

import yaml

BASE_MODEL = "model_name_or_path"  # how it spells base_model
KEYS = Path(__file__).parent.parent / "conf" / "llama_factory_keys.txt"


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


def keys() -> list[str]:
    """Returns the keys that the pinned LLaMA-Factory accepts, without importing it."""
    return KEYS.read_text(encoding="utf-8").split()


def accepted_keys() -> list[str]:
    """Returns the sorted keys of LLaMA-Factory's training YAML, from its own dataclasses."""
    import dataclasses

    without_torchaudio()
    from llamafactory.hparams import parser

    return sorted({f.name for arguments in parser._TRAIN_ARGS for f in dataclasses.fields(arguments) if f.init})


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
        KEYS.write_text("\n".join(accepted_keys()) + "\n", encoding="utf-8")
        return
    without_torchaudio()
    if argv and Path(argv[0]).is_file():
        meet_on_the_cpu(Path(argv[0]))
    from llamafactory.train.tuner import run_exp

    run_exp()


if __name__ == "__main__":
    _main(sys.argv[1:])
