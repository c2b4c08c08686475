"""The models of a run: base, sft and grpo, each where its stage says that it is; and what a model folder must hold."""

import json
import re
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from launch.running.folder import read_manifest

CHECKPOINTS = ("base", "sft", "grpo")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def find_models(config: DictConfig) -> dict[str, str]:
    """Returns {checkpoint: model folder or ID} for what was asked; raises BadInput for one that is not there."""
    sft = read_manifest(config.run, "sft") or {}
    merge = read_manifest(config.run, "merge") or {}
    known = {
        "base": config.base_model or sft.get("base_model"),
        "sft": sft.get("model") if sft.get("status") == "finished" else None,
        "grpo": merge.get("model") if merge.get("status") == "finished" else None,
    }
    makes = {
        "base": "say base_model=ID or PATH",
        "sft": f"first: bash launch/sft.sh run={config.run}",
        "grpo": f"first: python -m launch.grpo run={config.run}, then python -m launch.merge run={config.run}",
    }
    wanted = [config.checkpoint] if config.checkpoint != "all" else [c for c in CHECKPOINTS if known[c]]
    for checkpoint in wanted:
        if not known[checkpoint]:
            raise BadInput(f"run {config.run} has no checkpoint={checkpoint}; {makes[checkpoint]}")
        check_model(known[checkpoint], f"checkpoint {checkpoint}")
    if not wanted:
        raise BadInput(f"run {config.run} has no model yet; {makes['sft']}, or base_model=ID, or endpoint.base_url=URL")
    return {checkpoint: known[checkpoint] for checkpoint in wanted}


def find_model(config: DictConfig) -> str:
    """Returns the folder or ID of the model to talk to; raises BadInput for one that is not there."""
    asked = config.copy()
    asked.checkpoint = config.checkpoint or ("base" if config.base_model else "all")
    return list(find_models(asked).values())[-1]  # the last of base, sft, grpo


def check_model(model: str, key: str) -> None:
    """Raises BadInput unless `model` is a Hugging Face folder with tokenizer and chat template, or looks like an ID."""
    path = Path(model)
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "runs/")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            raise BadInput(f"{key}={model}: no such folder, and not the ID of a model (owner/name)")
        return
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
