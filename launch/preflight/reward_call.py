"""A user's reward function, imported and called once before anything starts, in a process of its own.

    python -m launch.preflight.reward_call < {"path": FILE, "name": ..., "kwargs": {...}, "row": {...}}   # what it does

verl imports it in its workers, minutes after the start. Called as verl calls it, with the first prompt and its right
answer as the response; what it prints, loads or ends is the child's.
"""

import asyncio
import importlib.util
import inspect
import json
import math
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput

SECONDS = 120.0  # after which it is not waited for: a reward may load a model; ours
TOLD = 300  # characters of an exception's message
ARGUMENTS, RESULT = "its arguments were looked at", "it was called once"


def check(function: dict[str, Any], row: dict, env: dict[str, str], key: str) -> list[str]:
    """Raises BadInput with file, line and exception unless the function gives a score that verl takes; returns a
    warning where it has not come back. `function` has path, name and kwargs, `row` is verl's, `env` the trainer's.
    """
    command = [sys.executable, "-m", "launch.preflight.reward_call"]
    told = json.dumps({**function, "row": row}, default=str)
    added = {name: str(value) for name, value in env.items()}
    try:
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **added}
        )
    except subprocess.TimeoutExpired:
        return [f"WARNING: {key}.path={function['path']}: not back after {SECONDS:g} s of being called once; goes on"]
    if not done.stdout:  # it ended the process
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise BadInput(
            f"{key}.path={function['path']}: ended its process with {done.returncode} when it was called once {last}"
        )
    found = json.loads(done.stdout)
    if found["error"] is None:
        return []
    where = f"{key}.path={found['file']}" + (f" line {found['line']}" if found["line"] else "")
    kwargs = "".join(f", {name}" for name in function["kwargs"])
    cures = {
        ARGUMENTS: f"verl calls it with data_source, solution_str, ground_truth, extra_info{kwargs}, all by name: take "
        f"the rest as **kwargs, or leave the recipe's own out with '~{key}.reward_kwargs'",
        RESULT: "verl takes a number, or {'score': number, ...}",
    }
    cure = cures.get(found["stage"], "mend it there; nothing was started")
    if found["error"] == "ModuleNotFoundError":
        cure = "install it into .venv (.venv/bin/python -m pip install ...)"
    raise BadInput(f"{where}: {found['error']}: {found['message']}, when {found['stage']}; {cure}")


def fault_of(result: object) -> str | None:
    """Returns what is wrong with a score, None for what verl takes: a number, or a dictionary with one as "score"."""
    if isinstance(result, dict) and "score" not in result:
        return f"returned a dictionary without 'score': {', '.join(map(str, result)) or 'it is empty'}"
    score = result["score"] if isinstance(result, dict) else result
    try:
        number = math.nan if isinstance(score, str | bytes) else float(score)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isfinite(number):
        return None
    return f"returned {type(score).__name__} {score!r:.80}{' as score' if isinstance(result, dict) else ''}"


def call(asked: dict[str, Any]) -> dict[str, Any]:
    """Returns {"error": None}, or the exception: its type as `error`, message, file, line, and when (`stage`)."""
    path, row, stage = Path(asked["path"]).resolve(), asked["row"], "it was imported"
    try:
        spec = importlib.util.spec_from_file_location("custom_module", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["custom_module"] = module
        spec.loader.exec_module(module)
        function = getattr(module, asked["name"])
        truth = row["reward_model"]["ground_truth"]
        extra = {**(row.get("extra_info") or {}), "num_turns": None, "rollout_reward_scores": {}}
        given = {"data_source": row["data_source"], "solution_str": str(truth), "ground_truth": truth}
        given = {**given, "extra_info": extra, **asked["kwargs"]}
        stage = ARGUMENTS
        inspect.signature(function).bind(**given)
        stage = "it was called once with the first prompt"
        result = function(**given)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        stage = RESULT
        if fault := fault_of(result):
            raise TypeError(fault)
    except BaseException as error:  # whatever a user's file raises, SystemExit too, is the answer
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        message = " ".join(str(error).split())[:TOLD]
        found = {"message": message, "file": asked["path"], "line": line, "stage": stage}
        return {"error": type(error).__name__, **found}
    return {"error": None}


async def _awaited(result: Any) -> Any:
    return await result


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the user's file prints is no answer
    json.dump(call(json.load(sys.stdin)), answer)
    answer.flush()
    os._exit(0)  # threads that the file has started are not waited for


if __name__ == "__main__":
    main()
