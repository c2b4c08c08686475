"""Serves a model with the OpenAI-compatible server that fits the machine: vLLM with a GPU, transformers without.

    python -m launch.serve run=NAME [checkpoint=sft] [port=8000]
    python -m launch.serve base_model=PATH|ID engine=vllm "vllm={max-model-len: 8192, reasoning-parser: qwen3}"

It ends with Ctrl-C or SIGTERM. What it serves is the bare model: the crisis gate belongs to `python -m launch.chat`.
"""

import os
import shlex
import socket
from typing import Any, Literal

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Variable
from data_pipeline.safety.credentials import key_in
from launch.cli import arguments
from launch.cli.arguments import SERVE, Command
from launch.cli.configuration import Text, as_dict, checked
from launch.cli.entry import console, run_stage, show_plan
from launch.frameworks import vllm
from launch.models import local, vllm_server
from launch.models.find import Checkpoint, find_model
from launch.preflight import checks, gpu

REPLICAS = "data-parallel-size"  # vLLM's flag
LOOPBACK = ("localhost", "::1")


class Settings(BaseModel):
    """The keys of launch/conf/serve.yaml, as the file comments on them."""

    model_config = ConfigDict(frozen=True, strict=True)

    run: Text
    checkpoint: Checkpoint | None
    base_model: Text | None
    dry_run: bool
    engine: Literal["auto", "vllm", "transformers"]
    host: Text
    port: int = Field(ge=0, lt=65536)
    name: Text | None
    api_key_env: Variable | None
    replicas: int = Field(ge=1)
    vllm: dict[str, Any]


def run(config: DictConfig, command: Command) -> None:
    """Serves until it is ended; raises BadInput for wrong settings, an occupied port or a model that is not there."""
    asked = checked(config, Settings)
    engine, key = check(asked)
    name = asked.name or asked.run or str(asked.base_model)
    if asked.dry_run:
        model, notes = _known(asked)
        what = f"run={asked.run}" if asked.run else f"base_model={asked.base_model}"
        here = ["python", "-m", "launch.serve", what, "engine=transformers"]
        argv = vllm_server.command(model, name, (asked.host, asked.port), flags(asked)) if engine == "vllm" else here
        secret = {"VLLM_API_KEY": f"${asked.api_key_env}"} if asked.api_key_env else {}
        env = {**vllm_server.environment(model), **secret} if engine == "vllm" else {}
        show_plan(as_dict(config), argv, env, notes)
        return
    if not asked.run and not asked.base_model:
        raise BadInput("serve what? run=NAME or base_model=ID|PATH")
    model = find_model(asked.run, asked.base_model, asked.checkpoint)
    if engine == "vllm":
        vllm.check_installed("engine=vllm", cpu=not arguments.count_gpus())
        checks.check_port_free(str(asked.port), "port")
        if vllm.is_for_cpu():
            local.check_memory(model, "model", asked.replicas)
            vllm.check_heads(model, "model")
        argv = vllm_server.command(model, name, (asked.host, asked.port), flags(asked))
        if asked.vllm:
            vllm.check_flags(argv[1:], f"vllm={asked.vllm}")
        console.print(f"{shlex.join(argv)}\nThe bare model, without the crisis gate of launch.chat.")
        secret = {"VLLM_API_KEY": key} if key else {}
        os.execve(argv[0], argv, {**vllm_server.environment(model), **os.environ, **secret})
    listener = bind(asked.host, asked.port)  # before the model loads: an occupied port costs no minute
    gpu.check_driver()
    from launch.models import openai_api

    openai_api.serve(model, name, listener, key)


def check(asked: Settings) -> tuple[str, str]:
    """Returns (engine, key, "" for none); raises BadInput for values that do not go together."""
    if asked.run:
        arguments.check_run_name(asked.run)
    variable = asked.api_key_env
    key = key_in(variable) if variable else ""
    if variable and not key and not asked.dry_run:
        raise BadInput(f"{variable} is not set: put the key that clients must send into this variable")
    if not variable and asked.host not in LOOPBACK and not asked.host.startswith("127."):
        raise BadInput(f"host={asked.host} opens the model to others: name a key for them, api_key_env=VARIABLE")
    engine = asked.engine
    if engine == "auto":
        engine = "vllm" if arguments.count_gpus() else "transformers"
    if asked.replicas > 1:
        check_replicas(asked, engine)
    if asked.vllm and engine != "vllm":
        raise BadInput(f"vllm={asked.vllm}: there is no vLLM with engine={engine}")
    if engine == "vllm" and asked.port == 0:
        raise BadInput("port=0: vLLM needs the port's number")
    return engine, key


def check_replicas(asked: Settings, engine: str) -> None:
    """Raises BadInput for replicas without vLLM, that are named twice, or for which there are not enough GPUs."""
    if engine != "vllm":
        raise BadInput(f"replicas={asked.replicas}: only vLLM has them; say engine=vllm")
    given = {str(key).replace("_", "-"): value for key, value in asked.vllm.items()}
    if REPLICAS in given:
        raise BadInput(f"replicas={asked.replicas} and vllm.{REPLICAS}={given[REPLICAS]} say the same; say one of them")
    for_one = vllm_server.cards_of_one(given)
    if not vllm.is_for_cpu() and not asked.dry_run and asked.replicas * for_one > vllm_server.cards():
        raise BadInput(
            f"replicas={asked.replicas}: {asked.replicas * for_one} GPUs are needed, {for_one} each, and there are "
            f"{vllm_server.cards()}; say replicas={max(1, vllm_server.cards() // for_one)}"
        )


def flags(asked: Settings) -> dict[str, Any]:
    """Returns vLLM's flags, the replicas' among them."""
    return asked.vllm | ({REPLICAS: asked.replicas} if asked.replicas > 1 else {})


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


def _known(asked: Settings) -> tuple[str, list[str]]:
    try:
        return find_model(asked.run, asked.base_model, asked.checkpoint), []
    except BadInput as error:
        return "MODEL", [f"model unknown: {error}"]


if __name__ == "__main__":
    run_stage(SERVE, run)
