"""Measures on a GPU machine without Ray, vLLM and DeepSpeed what can be measured there: see lent.sh, which starts it.

    OUT=FOLDER python -m tests.gpu_path.lent

SFT with the flags of recipe=psyche_r1 and psyche_r1_fast, verl's actor at the published micro batch with each attention
that is there, merge parity. Each part is a process with a limit; lent.json is written anew after each. Without a GPU
the same parts run small, on the CPU.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from data_pipeline.export import llama_factory as export
from data_pipeline.records import Question, read_jsonl
from launch.cli import arguments
from launch.cli.arguments import GRPO, REPOSITORY
from launch.cli.configuration import compose_stage
from launch.models import tiny
from launch.preflight import machine, memory, throughput
from launch.running.child import call, last_words

OUT = Path(os.environ.get("OUT", "runs/lent")).resolve()
WORK = Path("runs/lent/work")  # models; too large to be carried back
SFT_STEPS = 12
IN_ALL = float(os.environ.get("SECONDS_IN_ALL", 480))
STARTED = time.monotonic()
ON_GPU = torch.cuda.is_available()
MICRO, TOKENS = (20, 3072) if ON_GPU else (4, 96)  # the published micro batch at its longest rows
# The paper's model with fewer layers, which one card holds beside the gradients of all of it
ACTOR = {**tiny.LARGE, "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
         "num_key_value_heads": 4, "num_hidden_layers": 8}  # fmt: skip
ATTENTIONS = {  # name: (attention, packed rows, package)
    "sdpa_packed": ("sdpa", True, None),
    "sdpa_padded": ("sdpa", False, None),
    "flex_packed": ("flex_attention", True, None),
    "flash_2": ("flash_attention_2", True, "flash_attn"),
    "flash_4": ("flash_attention_4", True, "flash_attn.cute"),
}
UNRUN = {"rollout, weight update, sleep and wake": "vLLM and Ray", "two steps of GRPO": "Ray",
         "SFT on several cards": "DeepSpeed, and more than one card", "server, evaluation": "vLLM"}  # fmt: skip
results: dict[str, Any] = {"unrun": {what: f"not tried: needs {package}" for what, package in UNRUN.items()}}


def main() -> int:
    """Runs the parts in their order; returns 1 when one of them failed."""
    OUT.mkdir(parents=True, exist_ok=True)
    for old in (WORK, Path("runs/lent-faithful"), Path("runs/lent-fast")):
        shutil.rmtree(old, ignore_errors=True)
    WORK.mkdir(parents=True)
    part("machine", about)
    part("rows and model of SFT", prepare_sft)
    part("SFT, faithful", lambda: sft("psyche_r1", "faithful"), 120)
    part("model of the actor", prepare_actor)
    part("actor, sdpa_packed", lambda: actor("sdpa_packed", WORK / "checkpoint"), 120)
    part("merge", merge, 120)
    part("SFT, fast", lambda: sft("psyche_r1_fast", "fast"), 120)
    for name in list(ATTENTIONS)[1:]:
        part(f"actor, {name}", lambda name=name: actor(name), 90)
    print((OUT / "lent.json").read_text())
    return int(any("failed" in told for told in results.values()))


def part(name: str, do: Callable[[], dict], needs: float = 20) -> None:
    """Does a part, unless less than half of what it may need is left, and writes what came of it."""
    global limit
    needs *= IN_ALL / 480
    limit, started = min(needs, IN_ALL - (time.monotonic() - STARTED)), time.monotonic()
    if limit < needs / 2:
        results[name] = {"not tried": f"{limit:.0f} s are left"}
    else:
        try:
            results[name] = do()
        except Exception as error:  # what failed is a result
            results[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[-600:]}"}
    results[name]["seconds"] = round(time.monotonic() - started, 1)
    print(f"{name}: {json.dumps(results[name])}", flush=True)
    (OUT / "lent.json").write_text(json.dumps(results, indent=1) + "\n")


limit = 0.0  # seconds that the part at hand may take


def child(*argv: str, **env: str) -> None:
    """Runs a module of verl's; its output goes into lent.log. Raises RuntimeError with its last lines when it fails."""
    if importlib.util.find_spec("ray") is None:  # for verl alone: others ask whether Ray is there
        env["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '.')}:{REPOSITORY / 'tests/gpu_path/stand_in'}"
    with (OUT / "lent.log").open("a") as log:
        start = log.tell()
        log.write(f"\n--- {' '.join(argv)}\n")
        log.flush()
        words = [sys.executable, "-m", *argv]
        code = subprocess.run(words, stdout=log, stderr=log, timeout=limit, env={**os.environ, **env}).returncode
    if code:
        said = (OUT / "lent.log").read_text(errors="replace")[start:].strip().splitlines()
        raise RuntimeError(f"exit code {code}: {' | '.join(said[-6:])}")


def about() -> dict:
    asked = machine.names()
    return {"cards": machine.cards(), "flops": throughput.peak_flops(asked[0]) if asked else None,
            "packages": {name: machine._version(name) for name in (*machine.SHOWN, "accelerate", "triton")},
            "torch": torch.__version__}  # fmt: skip


def prepare_sft() -> dict:
    """Rows of the questions that ship with the project, about 800 tokens long, and the model of launch.check_gpu."""
    rows = [row for _, row in read_jsonl(REPOSITORY / "data_pipeline/samples/questions.jsonl")]
    questions = [Question(source="samples", **row) for row in rows]
    texts = [question.stem + question.rationale for question in questions]
    tiny.make(WORK / "base", texts, 1, tiny.LARGE if ON_GPU else tiny.SMALL)
    (WORK / "data").mkdir()
    longer = [replace(question, rationale=question.rationale * 4) for question in questions]
    return {"rows": export.write(WORK / "data", longer)}


def sft(recipe: str, name: str) -> dict:
    """`launch.sft` with the recipe's flags on one card."""
    if name == "fast" and not ON_GPU:
        return {"not tried": "the fused kernels of liger need a GPU"}
    watch = throughput.Watch(Path(f"runs/lent-{name}/sft/model"))
    words = [f"recipe={recipe}", f"hardware={'gpu1' if ON_GPU else 'cpu'}", f"run=lent-{name}",
             f"base_model={WORK / 'base'}", f"dataset_dir={WORK / 'data'}", "logging_steps=1", "save_strategy=no",
             f"max_steps={SFT_STEPS}", "psyforge.total_train_batch_size=4",
             f"psyforge.env.PYTHONPATH={os.environ.get('PYTHONPATH', '.')}"]  # fmt: skip
    ended = call("sft", words, output=(OUT / "lent.log").open("ab"), look=watch.look, limit=limit)
    if ended.code or ended.late:
        raise RuntimeError(last_words(OUT / "lent.log"))
    found = throughput.sft(f"lent-{name}", watch, 4, machine.names()[:1])
    return found | {"peak_gib": watch.peak(ended.peak)}


def prepare_actor() -> dict:
    """The paper's shape with fewer layers, in bf16; its weights are made on the card."""
    shape = ACTOR if ON_GPU else tiny.SMALL
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if ON_GPU else "cpu"):
        tiny.make(WORK / "actor", ["心理学的问题" * 9], 1, shape)
    torch.set_default_dtype(torch.float32)
    if ON_GPU:
        torch.cuda.empty_cache()
    found = memory.shape(str(WORK / "actor"))
    return {"parameters": found.parameters if found else None}


def actor(name: str, checkpoint: Path | None = None) -> dict:
    """verl's engine with one attention: tests/gpu_path/actor.py."""
    attention, packed, package = ATTENTIONS[name]
    if attention == "flex_attention" and not ON_GPU:
        return {"not tried": "compiled for a GPU; on the CPU that takes longer than all the rest"}
    if package and subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True).returncode:
        return {"not tried": f"no {package} here"}
    part = "actor_rollout_ref.model"
    # what the CPU's file loads for its rollout imports Ray
    hardware = ["hardware=gpu", "cards=1"] if ON_GPU else ["hardware=cpu", f"{part}.external_lib=null"]
    words = ["recipe=psyche_r1", *hardware, "run=lent", f"base_model={WORK / 'actor'}",
             f"{part}.override_config.attn_implementation={attention}", f"{part}.use_remove_padding={packed}",
             "actor_rollout_ref.actor.fsdp_config.param_offload=false",
             "actor_rollout_ref.actor.fsdp_config.optimizer_offload=false"]  # fmt: skip
    job, result = WORK / f"{name}.yaml", WORK / f"{name}.json"
    OmegaConf.save(compose_stage(GRPO, arguments.parse(GRPO, words)), job)
    env = {} if ON_GPU else {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "launch.cpu"}
    saved = [str(checkpoint)] if checkpoint else []
    child("tests.gpu_path.actor", str(WORK / "actor"), str(job), str(MICRO), str(TOKENS), str(result), *saved, **env)
    found = json.loads(result.read_text())
    if shape := memory.shape(str(WORK / "actor")):
        of = replace(shape, num_hidden_layers=found["layers"])
        mask = (MICRO * TOKENS) ** 2 if attention == "sdpa" and packed else 0
        found["estimated_activations_gib"] = round((memory.activations(of, MICRO * TOKENS, 6) + mask) / 2**30, 2)
    return found


def merge() -> dict:
    """verl's own merger on the actor's checkpoint, and launch.merge's comparison."""
    from launch.merge import compare

    env = {} if ON_GPU else {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "launch.cpu"}
    source, target = str(WORK / "checkpoint"), str(WORK / "merged")
    child("verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", source, "--target_dir", target, **env)
    return compare(Path(target), Path(source), [[{"role": "user", "content": "心理学是什么？"}]])


if __name__ == "__main__":
    sys.exit(main())
