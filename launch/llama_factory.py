"""Entry to LLaMA-Factory's own trainer, also where torchaudio cannot be installed: `launch/sft.py` starts it as

    python -m launch.llama_factory runs/NAME/sft/llama_factory.yaml

`python -m launch.llama_factory keys` writes launch/conf/llama_factory_keys.txt, the keys that it accepts.
"""

import importlib
import importlib.machinery
import sys
import types


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
        module.__version__ = "0.0.0"
        module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = module


def accepted_keys() -> list[str]:
    """Returns the sorted keys of LLaMA-Factory's training YAML, from its own dataclasses."""
    import dataclasses

    without_torchaudio()
    from llamafactory.hparams import parser

    return sorted({f.name for arguments in parser._TRAIN_ARGS for f in dataclasses.fields(arguments) if f.init})


if __name__ == "__main__":
    if sys.argv[1:] == ["keys"]:
        from launch.configuration import CONF

        (CONF / "llama_factory_keys.txt").write_text("\n".join(accepted_keys()) + "\n", encoding="utf-8")
    else:
        without_torchaudio()
        from llamafactory.train.tuner import run_exp

        run_exp()
