"""What vLLM is to us: whether it is here, for a GPU or without one, and whether it knows a flag. Imports no vLLM.

python -m launch.frameworks.vllm serve MODEL --FLAG VALUE ...    # vLLM's own parser reads it: 0, or 2 with a message
"""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # vLLM 0.28, v1/attention/backends/cpu_attn.py


def is_installed() -> bool:
    return importlib.util.find_spec("vllm") is not None


def is_for_cpu() -> bool:
    """Returns whether the vLLM of this environment is the build without a GPU."""
    return is_installed() and "cpu" in version("vllm")


def check_installed(key: str, cpu: bool) -> None:
    """Raises BadInput, opening with `key`, where there is no vLLM, or for a CPU only one that is built for GPUs."""
    if not is_installed():
        raise BadInput(
            f"{key}: vLLM is not installed here; first: bash launch/install.sh {'cpu vllm' if cpu else 'gpu'}"
        )
    if cpu and not is_for_cpu():
        raise BadInput(
            f"{key}: the vLLM here ({version('vllm')}) is built for GPUs; make an environment for this: "
            "VENV=.venv-cpu bash launch/install.sh cpu vllm"
        )


def check_heads(model: str, key: str) -> None:
    """Raises BadInput, opening with `key`, for a model folder whose heads vLLM cannot take without a GPU: it would come
    up, and end at the first request.
    """
    config = Path(model, "config.json")
    described = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if not described.get("num_attention_heads"):
        return
    size = described.get("head_dim") or described["hidden_size"] // described["num_attention_heads"]
    if size not in CPU_HEADS:
        raise BadInput(
            f"{key}={model}: its heads have {size} dimensions, and vLLM without a GPU takes "
            f"{', '.join(map(str, CPU_HEADS))}; hardware=cpu and engine=transformers take any"
        )


def check_flags(argv: list[str], key: str) -> None:
    """Raises BadInput, opening with `key`, for a command that vLLM does not understand. Takes some ten seconds."""
    line = [sys.executable, "-m", "launch.frameworks.vllm", *argv]
    env = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(line, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"{key}: {(done.stderr.strip().splitlines() or ['vLLM cannot be imported'])[-1]}")


def _parse(argv: list[str]) -> None:
    """Ends with 2 and one line on what vLLM's parser refuses, and the flag that is nearest."""
    from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def refuse(message: str) -> None:
        odd = next((word for word in message.split() if word.startswith("--")), "").lstrip("-").split("=")[0]
        known = [flag.lstrip("-") for flag in parser._option_string_actions if flag.startswith("--")]
        near = "" if odd in known else did_you_mean(odd, known)
        print(f"vLLM {version('vllm')} says {message}{near} (all of its flags: vllm serve --help=all)", file=sys.stderr)
        sys.exit(2)

    parser = make_arg_parser(FlexibleArgumentParser())
    setattr(parser, "error", refuse)  # noqa: B010  (typed, its error is not to be replaced)
    try:
        parser.parse_args(argv[1:])
    except ValueError as error:
        refuse(str(error))


if __name__ == "__main__":
    _parse(sys.argv[1:])
