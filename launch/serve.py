"""Serves a model with the OpenAI-compatible server that fits the machine: vLLM with a GPU, transformers without.

    python -m launch.serve run=NAME [checkpoint=sft] [port=8000]
    python -m launch.serve base_model=PATH|ID engine=transformers

It ends with Ctrl-C or SIGTERM. What it serves is the bare model: the crisis gate belongs to `python -m launch.chat`.
"""

import importlib.util
import os
import re
import socket
import sys
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from launch.cli import arguments
from launch.cli.arguments import SERVE, Command
from launch.cli.configuration import as_dict
from launch.cli.entry import console, run_stage, show_plan
from launch.models.find import CHECKPOINTS, find_model
from launch.preflight import checks

ENGINES = ("auto", "vllm", "transformers")
LOOPBACK = ("localhost", "::1")


def run(config: DictConfig, command: Command) -> None:
    """Serves until it is ended; raises BadInput for wrong settings, an occupied port or a model that is not there."""
    engine, key = check(config)
    name = str(config.name or config.run or config.base_model)
    if config.dry_run:
        model, notes = _known(config)
        what = f"run={config.run}" if config.run else f"base_model={config.base_model}"
        here = ["python", "-m", "launch.serve", what, "engine=transformers"]
        argv = vllm_command(config, model, name) if engine == "vllm" else here
        env = {"VLLM_API_KEY": f"${config.api_key_env}"} if engine == "vllm" and config.api_key_env else {}
        show_plan(as_dict(config), argv, env, notes)
        return
    if not config.run and not config.base_model:
        raise BadInput("serve what? run=NAME or base_model=ID|PATH")
    model = find_model(config)
    if engine == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise BadInput("engine=vllm: vLLM is not installed here (bash launch/install.sh installs it with a GPU)")
        checks.check_port_free(str(config.port), "port")
        argv = vllm_command(config, model, name)
        console.print(f"{' '.join(argv)}\nThe bare model, without the crisis gate of launch.chat.")
        os.execve(argv[0], argv, {**os.environ, **({"VLLM_API_KEY": key} if key else {})})
    listener = bind(config.host, config.port)  # before the model loads: an occupied port costs no minute
    from launch.models import openai_api

    openai_api.serve(model, name, listener, key)


def check(config: DictConfig) -> tuple[str, str]:
    """Returns (engine, key, "" for none); raises BadInput for a value that cannot be."""
    if config.engine not in ENGINES:
        raise BadInput(f"engine={config.engine}: known are {', '.join(ENGINES)}")
    if config.checkpoint not in (None, *CHECKPOINTS):
        raise BadInput(f"checkpoint={config.checkpoint}: known are {', '.join(CHECKPOINTS)}")
    if config.run:
        arguments.check_run_name(str(config.run))
    if type(config.port) is not int or not 0 <= config.port < 65536:
        raise BadInput(f"port={config.port}: a port number, 1 to 65535, or 0 for a free one")
    variable = config.api_key_env
    if variable is not None and not re.fullmatch("[A-Z][A-Z0-9_]*", str(variable)):
        raise BadInput("api_key_env: not the name of an environment variable (the value is not shown; it may be a key)")
    key = os.environ.get(variable or "", "").strip()
    if variable and not key and not config.dry_run:
        raise BadInput(f"{variable} is not set: put the key that clients must send into this variable")
    host = str(config.host)
    if not variable and host not in LOOPBACK and not host.startswith("127."):
        raise BadInput(f"host={host} opens the model to others: name a key for them, api_key_env=VARIABLE")
    engine = config.engine
    if engine == "auto":
        engine = "vllm" if arguments.count_gpus() else "transformers"
    if config.vllm and engine != "vllm":
        raise BadInput(f"vllm={as_dict(config.vllm)}: there is no vLLM with engine={engine}")
    if engine == "vllm" and config.port == 0:
        raise BadInput("port=0: vLLM needs the port's number")
    return engine, key


def vllm_command(config: DictConfig, model: str, name: str) -> list[str]:
    """Returns the command that starts vLLM; its key travels in the environment, not on the command line."""
    argv = [str(Path(sys.executable).with_name("vllm")), "serve", model, "--served-model-name", name]
    argv += ["--host", str(config.host), "--port", str(config.port)]
    for key, value in as_dict(config.vllm).items():
        flag = f"--{key.replace('_', '-')}"
        argv += [flag] if value is True else [] if value in (False, None) else [flag, str(value)]
    return argv


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address, not listening yet; raises BadInput when it cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadInput(f"host={host} port={port}: {error.strerror or error}; say another port=") from None
    return listener


def _known(config: DictConfig) -> tuple[str, list[str]]:
    try:
        return find_model(config), []
    except BadInput as error:
        return "MODEL", [f"model unknown: {error}"]


if __name__ == "__main__":
    run_stage(SERVE, run)
