"""Looks at the GPU set on a machine without a GPU: imports, attention, what vLLM is handed, the audit.

    bash tests/gpu_path/run.sh                     installs it without a CUDA toolkit, then calls this
    VENV/bin/python -m tests.gpu_path.environment  in an environment of `bash launch/install.sh gpu`

Prints a line for each thing, with exit code 1 when one failed. Pretended GPUs (pretended.py) and imports stay in a
process, so that each kind has one of its own. CUDA itself is not tried: nothing is computed on a GPU.
"""

# vLLM is in the GPU set alone
# pyright: reportMissingImports=false

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from launch.cli import arguments, configuration
from launch.cli.arguments import GRPO, RECIPES, SERVE
from launch.cli.configuration import as_dict
from launch.preflight import gpu

IMPORTED = (
    "deepspeed",
    "vllm",
    "vllm.entrypoints.cli.serve",
    "verl.trainer.main_ppo",
    "verl.workers.engine_workers",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "llamafactory.train.tuner",
    "liger_kernel.transformers",
)
ON_GPUS = ("gpu1", "gpu", "gpu8", "gpu8x2")  # of recipes/hardware; `gpu` with three cards
CARDS_OF_GPU = "cards=3"
SERVED = ("{}", "{max-model-len: 8192}")  # flags of launch.serve
OK, FAILED = "ok    ", "FAILED"


def main() -> int:
    """Asks for each kind in a process of its own; returns the exit code."""
    env = {**os.environ, **gpu.toolkit(), "DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "1"}
    passed = failed = 0
    for words in [*(["imports", name] for name in IMPORTED), ["attention"], ["rollout"], ["serve"], ["audit"]]:
        argv = [sys.executable, "-m", "tests.gpu_path.environment", *words]
        done = subprocess.run(argv, capture_output=True, text=True, env=env)
        lines = [line for line in done.stdout.splitlines() if line.startswith((OK, FAILED))]
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            lines.append(f"{FAILED} {' '.join(words)}: exit code {done.returncode}: {said}")
        print(*lines, sep="\n", flush=True)
        passed += sum(line.startswith(OK) for line in lines)
        failed += sum(line.startswith(FAILED) for line in lines)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def ask(kind: str, what: list[str]) -> None:
    """Prints what the function `kind` says of each of `what`, or the exception that it ends in."""
    for one in what:
        try:
            told, state = globals()[kind](one), OK
        except Exception as error:  # every failure is an answer here
            told, state = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", FAILED
        print(f"{state} {kind} {one}: {told}", flush=True)


def pairs(stage: str) -> list[str]:
    """Returns "RECIPE HARDWARE [WORDS]" of every recipe with this stage, on every hardware of GPUs."""
    found = []
    for recipe in sorted(file.parent.name for file in RECIPES.glob(f"*/{stage}.yaml")):
        for hardware in (name for name in ON_GPUS if (RECIPES / "hardware" / name / f"{stage}.yaml").is_file()):
            found.append(f"{recipe} {hardware}" + (f" {CARDS_OF_GPU}" if hardware == "gpu" else ""))
    return found


def composed(pair: str, model: Path):
    """Returns the GRPO configuration of a pair, with `model`."""
    recipe, hardware, *words = pair.split()
    argv = [f"recipe={recipe}", f"hardware={hardware}", "run=gpu_path", f"base_model={model}", *words]
    return configuration.compose_stage(GRPO, arguments.parse(GRPO, argv))


def imports(name: str) -> str:
    """Imports the module with GPUs pretended; returns its package's version."""
    import importlib

    from tests.gpu_path.pretended import pretend_torch

    pretend_torch()
    if name.startswith("llamafactory"):
        from launch.frameworks.llama_factory import without_torchaudio

        without_torchaudio()
    module = importlib.import_module(name)
    package = sys.modules[name.split(".")[0]]
    return str(getattr(package, "__version__", None) or module.__name__)


def attention(pair: str) -> str:
    """Loads a tiny model with a head of its own as verl's engine does; returns the attention that it has."""
    from transformers import AutoModelForCausalLM
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import HFModelConfig

    from tests.gpu_path.pretended import pretend_torch
    from tests.launch import tiny_model

    pretend_torch()
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_model.make_as_large(Path(folder))
        described = omega_conf_to_dataclass(composed(pair, path).actor_rollout_ref.model, HFModelConfig)
        loaded = AutoModelForCausalLM.from_pretrained(str(path), config=described.hf_config)
    return f"{loaded.config._attn_implementation}, packed rows: {described.use_remove_padding}"


def rollout(pair: str) -> str:
    """Hands vLLM what verl would hand it on the first node; returns what vLLM makes of it."""
    import asyncio

    from tests.gpu_path.pretended import pretend_torch, pretend_vllm

    pretend_torch()
    pretend_vllm()
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    made = []

    class Asked(vLLMHttpServer):
        """verl's server up to the point where vLLM's engine would start."""

        def __init__(self, config, model):
            self.config, self.model_config = self._init_config(config), self._init_model_config(model)
            self._validate_configs()
            self.node_rank = self.replica_rank = 0
            self.nnodes, self._disaggregation_role = 1, "null"

        def _should_profile(self):
            return False

        async def run_server(self, args):
            made.append(engine_config(args))

    with tempfile.TemporaryDirectory() as folder:
        config = composed(pair, as_published(Path(folder))).actor_rollout_ref
        asyncio.run(Asked(config.rollout, omega_conf_to_dataclass(config.model)).launch_server())
    return told(made[0])


def serve(flags: str) -> str:
    """Hands vLLM what launch.serve, and on eight cards launch.eval, would hand it; returns what vLLM makes of both."""
    from tests.gpu_path.pretended import pretend_torch, pretend_vllm

    pretend_torch()
    pretend_vllm()
    import vllm.entrypoints.cli.serve as cli
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from launch.models import vllm_server

    with tempfile.TemporaryDirectory() as folder:
        model = str(as_published(Path(folder)))
        made, given = [], as_dict(configuration.compose_stage(SERVE, arguments.parse(SERVE, [f"vllm={flags}"])))["vllm"]
        for of in (given, {"data-parallel-size": 8} | given):
            parser = FlexibleArgumentParser()
            subparsers = parser.add_subparsers(dest="subparser")
            commands = {one.name: one for one in cli.cmd_init()}
            for one in commands.values():
                one.subparser_init(subparsers)
            args: Any = parser.parse_args(vllm_server.command(model, "NAME", ("127.0.0.1", 8000), of)[1:])
            args.model = args.model_tag
            commands["serve"].validate(args)
            made.append(told(engine_config(args)))
        return "; ".join(made)


def engine_config(args):
    """Returns vLLM's own configuration of these arguments, as its server makes it."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    return AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)


def told(config) -> str:
    model, scheduler, parallel = config.model_config, config.scheduler_config, config.parallel_config
    return (
        f"{model.max_model_len} tokens, {scheduler.max_num_batched_tokens} in a batch, {model.dtype}, "
        f"TP {parallel.tensor_parallel_size} DP {parallel.data_parallel_size}, sleep {model.enable_sleep_mode}"
    )


def as_published(folder: Path) -> Path:
    """Returns a folder with the published base model's configuration, a tokenizer and no weights."""
    import yaml

    from tests.launch import tiny_model

    path = tiny_model.make_as_large(folder)
    file = path / "config.json"
    described = yaml.safe_load((RECIPES / "published/models.yaml").read_text(encoding="utf-8"))
    shape = {"max_position_embeddings": 32768, "dtype": "bfloat16", **described["Qwen/Qwen2.5-7B-Instruct"]}
    own = json.loads(file.read_text(encoding="utf-8"))
    own.pop("layer_types", None)  # one for each of the tiny model's layers
    file.write_text(json.dumps({**own, **shape}), encoding="utf-8")
    (path / "model.safetensors").unlink()
    return path


def audited() -> list[str]:
    """Returns the recipes that have a card with numbers of their training."""
    return [card.stem for card in sorted((RECIPES / "published").glob("*.yaml")) if (RECIPES / card.stem).is_dir()]


def audit(recipe: str) -> str:
    """Runs `python -m launch.audit`; returns its last line."""
    argv = [sys.executable, "-m", "launch.audit", f"recipe={recipe}", "hardware=gpu8"]
    done = subprocess.run(argv, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        raise ValueError(f"exit code {done.returncode}: {lines[-1]}")
    return lines[-1]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        of = {"attention": pairs("grpo"), "rollout": pairs("grpo"), "serve": SERVED, "audit": audited()}
        ask(sys.argv[1], sys.argv[2:] or of[sys.argv[1]])
    else:
        sys.exit(main())
