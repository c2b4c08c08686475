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
    try:
        last = json.loads((output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return 0, None, ""
    return last["current_steps"], last["total_steps"], f"loss {last['loss']:.3f}" if "loss" in last else ""


def log_history(output: Path) -> list[dict]:
    """Returns the Trainer's history: one entry per logged step, the last one of the whole run."""
    return json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


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
