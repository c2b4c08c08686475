"""vLLM as a server on this machine: its command, with the flags that this project relies on, and its life.

`python -m launch.serve engine=vllm` becomes such a server; an evaluation starts one for each checkpoint and ends it.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launch.cli import arguments
from launch.cli.entry import StageFailed, console
from launch.frameworks import vllm
from launch.models.local import check_memory
from launch.running.trainer import cause, end_with_parent

HOST = "127.0.0.1"
FLAGS: dict[str, Any] = {
    "generation-config": "vllm",  # else a request without a setting takes it from the model's own file
    # else JSON may be white space up to max_tokens
    "structured-outputs-config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
LEAST_BATCH = 8192  # tokens; vLLM's own number for a server
CPU_FLAGS: dict[str, Any] = {
    "dtype": "float32",
    "enforce-eager": True,  # compiled, a tiny model starts in a minute
    "no-enable-chunked-prefill": True,  # a prompt in two parts and a seed end the engine ("CPU Generator...")
    "kv-cache-memory-bytes": 2**30,  # ours; vLLM would take nearly all of the machine's memory
}


def command(model: str, name: str, address: tuple[str, int], given: Mapping[str, Any]) -> list[str]:
    """Returns the command that serves `model` as `name`; `given` flags take the place of ours."""
    given = {str(key).replace("_", "-"): value for key, value in given.items()}
    ours = FLAGS | (_cpu_flags(model, given) if vllm.is_for_cpu() else {})
    flags = {key: value for key, value in ours.items() if not {key, key.removeprefix("no-")} & set(given)} | given
    argv = [str(Path(sys.executable).with_name("vllm")), "serve", model, "--served-model-name", name]
    argv += ["--host", address[0], "--port", str(address[1])]
    for key, value in flags.items():
        if isinstance(value, bool):
            argv += [f"--{key}" if value else f"--no-{key}"]
        elif value is not None:
            argv += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return argv


def _cpu_flags(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Without chunks a batch has to hold the longest prompt."""
    longest = given.get("max-model-len") or _window(model)
    return CPU_FLAGS | {"max-num-batched-tokens": max(LEAST_BATCH, longest if isinstance(longest, int) else 0)}


def _window(model: str) -> int:
    config = Path(model, "config.json")
    return json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings", 0) if config.is_file() else 0


def environment(model: str) -> dict[str, str]:
    """Returns what is set for vLLM: no reports to its makers, no question to the hub about a folder.

    FlashInfer's sampler, vLLM's default on GPUs, is compiled when vLLM starts: with a toolkit that most machines have
    not, and not with the lock's own, whose nvcc (13.2) does not fit its runtime's headers (13.0). vLLM has another one.
    """
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    env |= {} if vllm.is_for_cpu() else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return env | ({"HF_HUB_OFFLINE": "1"} if Path(model).is_dir() else {})


def cards() -> int:
    """Returns the GPUs that vLLM would see, 1 without any: what an evaluation's copies of a model are spread over."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = arguments.count_gpus() if shown is None else len([card for card in shown.split(",") if card.strip()])
    return max(1, 0 if vllm.is_for_cpu() else seen)


def cards_of_one(given: Mapping[str, Any]) -> int:
    """Returns the GPUs that one copy of the model takes, with these flags."""
    return (given.get("tensor-parallel-size") or 1) * (given.get("pipeline-parallel-size") or 1)


def on_all_cards(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags, with as many copies of the model as the cards hold beside one another."""
    given = {str(key).replace("_", "-"): value for key, value in given.items()}
    copies = cards() // cards_of_one(given)
    return given if copies < 2 else {"data-parallel-size": copies} | given


@contextlib.contextmanager
def serving(model: str, name: str, given: Mapping[str, Any], log: Path) -> Iterator[str]:
    """Gives the address of a vLLM on a free port of this machine, which ends with the block.

    Raises BadInput for a model that this machine cannot hold, and StageFailed, with the end of its log, when vLLM does
    not come up, or has ended before the block has.
    """
    if vllm.is_for_cpu():
        check_memory(model, "model")
        vllm.check_heads(model, "model")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    argv = command(model, name, (HOST, port), given)
    console.print(f"  vLLM loads {model}; log: {log}")
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            argv,
            env={**environment(model), **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its own children can be ended with it
            preexec_fn=end_with_parent,
        )
    try:
        while not _answers(port):
            _check_alive(process, log, start)
            time.sleep(0.2)
        try:
            yield f"http://{HOST}:{port}/v1"
        finally:
            _check_alive(process, log, start)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _check_alive(process: subprocess.Popen, log: Path, start: int) -> None:
    if process.poll() is not None:
        failure = cause(log, start)
        raise StageFailed(f"{failure.context}\n\nvLLM ended: {failure.line}{failure.more}\nlog: {log}")
