"""The models of a run: base, sft and grpo, each where its stage says that it is; and what a model folder must hold."""

import json
import re
from pathlib import Path
from typing import Literal, get_args

from data_pipeline.errors import BadInput
from launch.models.adapter import check_whole
from launch.running.folder import read_manifest

Checkpoint = Literal["base", "sft", "grpo"]
CHECKPOINTS = get_args(Checkpoint)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def find_models(run: str, base_model: str | None, checkpoint: str) -> dict[str, str]:
    """Returns {checkpoint: model folder or ID} of a run; `base_model` takes the place of the one that it began with.

    Raises BadInput for a checkpoint that is not there; "all" are those that are.
    """
    sft = read_manifest(run, "sft") or {}
    merge = read_manifest(run, "merge") or {}
    known = {
        "base": base_model or sft.get("base_model"),
        "sft": sft.get("model") if sft.get("status") == "finished" else None,
        "grpo": merge.get("model") if merge.get("status") == "finished" else None,
    }
    makes = {
        "base": "say base_model=ID or PATH",
        "sft": f"first: bash launch/sft.sh run={run}",
        "grpo": f"first: python -m launch.grpo run={run}, then python -m launch.merge run={run}",
    }
    wanted = [checkpoint] if checkpoint != "all" else [c for c in CHECKPOINTS if known[c]]
    for name in wanted:
        if not known[name]:
            raise BadInput(f"run {run} has no checkpoint={name}; {makes[name]}")
        check_model(known[name], "base_model" if name == "base" and base_model else f"checkpoint {name}")
    if not wanted:
        raise BadInput(f"run {run} has no model yet; {makes['sft']}, or base_model=ID, or endpoint.base_url=URL")
    return {name: known[name] for name in wanted}


def find_model(run: str, base_model: str | None, checkpoint: str | None) -> str:
    """Returns the folder or ID of the model to talk to; raises BadInput for one that is not there."""
    models = find_models(run, base_model, checkpoint or ("base" if base_model else "all"))
    return list(models.values())[-1]  # the last of base, sft, grpo


def check_model(model: str, key: str) -> None:
    """Raises BadInput unless `model` is a whole model's folder with tokenizer and chat template, or an ID."""
    path = Path(model)
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "runs/")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            raise BadInput(f"{key}={model}: no such folder, and not the ID of a model (owner/name)")
        return
    check_whole(model, key)
    if not (path / "config.json").is_file():
        raise BadInput(f"{key}={model}: no config.json in it; is it a Hugging Face model folder?")
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise BadInput(f"{key}={model}: no tokenizer in it ({', '.join(TOKENIZER_FILES)}); copy the base model's files")
    settings = path / "tokenizer_config.json"
    in_settings = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
    if not in_settings and not (path / "chat_template.jinja").is_file():
        raise BadInput(
            f"{key}={model}: its tokenizer has no chat template; copy the base model's chat_template.jinja there"
        )


def parameters(model: str) -> float | None:
    """Returns the model's number of parameters: from its weights' size, else from its name ("7B"), else None."""
    weights = list(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    if weights:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        width = 4 if "32" in str(config.get("dtype") or config.get("torch_dtype")) else 2
        return sum(file.stat().st_size for file in weights) / width
    size = re.search(r"(\d+(?:\.\d+)?)B\b", Path(model).name, re.IGNORECASE)
    return float(size[1]) * 1e9 if size else None
