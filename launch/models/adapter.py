"""LoRA adapters: told from whole models, and folded into their base, proven by log-probabilities.

    python -m launch.models.adapter ADAPTER_FOLDER NEW_FOLDER [BASE]     # BASE where the adapter's own is elsewhere now

SFT with finetuning_type=lora does so at its end, launch/merge.py with GRPO's checkpoints: what comes next takes whole
models only.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from launch.cli.entry import console, run_command
from launch.models import parity

CONFIG = "adapter_config.json"  # peft's
TOLERANCE = 1e-3  # nats between the network with its adapter and the folded one, both in fp32; ours
PROBES = 4  # conversations that are compared; ours
_LORA = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")


def check_whole(model: str, key: str) -> None:
    """Raises BadInput for a folder with an adapter, where a whole model is wanted."""
    if (Path(model) / CONFIG).is_file():
        raise BadInput(
            f"{key}={model}: holds a LoRA adapter ({CONFIG}), and a whole model is wanted; fold it into its base, "
            f"`python -m launch.models.adapter {model} NEW_FOLDER`, and say base_model=NEW_FOLDER"
        )


def fold(base: str, adapter: Path, target: Path, prompts: list[list[dict]]) -> dict:
    """Writes base and adapter as one model to `target`, in the precision of the base; returns the parity's figures.

    Raises BadInput for an adapter or base that does not load, ValueError when the folded model says something else.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        dtype = AutoConfig.from_pretrained(base, trust_remote_code=False).dtype or torch.float32
        network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
        with_adapter: Any = PeftModel.from_pretrained(network, str(adapter))
        tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
    except Exception as error:  # peft, transformers and the hub have many; the message is what helps
        raise BadInput(
            f"{adapter}: the adapter and its base {base} do not load: {' '.join(str(error).split())}"
        ) from None
    through = parity.log_probs(with_adapter, tokenizer, prompts)
    whole: Any = with_adapter.merge_and_unload()
    folded = parity.difference(parity.log_probs(whole, tokenizer, prompts), through)
    if not folded <= TOLERANCE:
        raise ValueError(f"the folded model differs from {adapter} on {base} by {folded:.2g} nats")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    whole.to(dtype).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    stored = AutoModelForCausalLM.from_pretrained(partial, dtype="auto", trust_remote_code=False)
    written = parity.difference(
        parity.log_probs(stored, tokenizer, prompts), parity.log_probs(whole, tokenizer, prompts)
    )
    if not written <= TOLERANCE:
        raise ValueError(f"what was written to {partial} differs from the folded model by {written:.2g} nats")
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    return {"fold_logprob_diff": folded, "written_logprob_diff": written, "dtype": str(dtype).removeprefix("torch.")}


def of_checkpoint(state: dict) -> dict[str, dict]:
    """Returns {module: {"A": tensor, "B": tensor}} of the adapters in a checkpoint's tensors, {} for a whole model."""
    found: dict[str, dict] = {}
    for name, tensor in state.items():
        if match := _LORA.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = tensor
    return found


def alpha_of(actor: Path, adapters: dict[str, dict], given: float | None) -> float:
    """Returns lora_alpha of verl's checkpoint, as it says itself; raises BadInput where nobody says it."""
    path = actor / "lora_train_meta.json"
    alpha = json.loads(path.read_text(encoding="utf-8")).get("lora_alpha") if path.is_file() else given
    if not alpha:
        rank = next(iter(adapters.values()))["A"].shape[0]
        raise BadInput(
            f"{actor}: holds a LoRA adapter of rank {rank} and no {path.name}, which says by how much it counts; say "
            "lora_alpha=, as it was trained with (actor_rollout_ref.model.lora_alpha)"
        )
    return float(alpha)


def folded(state: dict, alpha: float) -> dict:
    """Returns the tensors of a whole model: verl's, of a base with adapters, folded; names as of the base alone."""
    adapters = of_checkpoint(state)
    whole = {}
    for name, tensor in state.items():
        if _LORA.fullmatch(name):
            continue
        module = name.removesuffix(".base_layer.weight")
        if name.endswith(".base_layer.weight") and module in adapters:
            a, b = adapters[module]["A"], adapters[module]["B"]
            tensor = tensor + alpha / a.shape[0] * (b @ a)
        whole[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    return whole


def with_adapters(network: Any, state: dict, alpha: float) -> Any:
    """Returns the network with the checkpoint's adapters as peft runs them, beside it and not folded in."""
    from peft import LoraConfig, get_peft_model

    adapters = of_checkpoint(state)
    rank = next(iter(adapters.values()))["A"].shape[0]
    modules = sorted({module.removeprefix("base_model.model.") for module in adapters})
    scaled: Any = alpha  # peft's annotation says int
    config = LoraConfig(r=rank, lora_alpha=scaled, target_modules=modules, task_type="CAUSAL_LM")
    network = get_peft_model(network.float(), config)
    missing, unknown = network.load_state_dict(state, strict=False)
    tied = {"base_model.model.lm_head.weight"} if network.config.tie_word_embeddings else set()
    if wrong := sorted({*missing, *unknown} - tied):
        raise BadInput(
            f"the checkpoint's adapter does not fit its own model: {wrong[0]} and {len(wrong) - 1} more tensors"
        )
    return network


def main(argv: list[str]) -> int:
    return run_command(fold_by_words, __doc__, argv)


def fold_by_words(argv: list[str]) -> int:
    """Returns the exit code: 0 folded; raises BadInput for folders that do not fit."""
    if len(argv) not in (2, 3):
        raise BadInput(f"{len(argv)} words; it takes ADAPTER_FOLDER NEW_FOLDER [BASE]")
    adapter, target = Path(argv[0]), Path(argv[1])
    if not (adapter / CONFIG).is_file():
        raise BadInput(f"{adapter}: holds no {CONFIG}; is it an adapter?")
    if target.exists():
        raise BadInput(f"{target}: is there already; name a new folder")
    told = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    base = argv[2] if len(argv) == 3 else told["base_model_name_or_path"]
    prompts = [[{"role": "user", "content": text}] for text in ("你好", "Good evening.")]
    try:
        figures = fold(base, adapter, target, prompts)
    except ValueError as error:
        raise BadInput(str(error)) from None
    console.print(
        f"{target}: a whole model; equal to {base} with its adapter to {figures['fold_logprob_diff']:.1e} nats"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
