"""What the frameworks themselves make of a configuration, without training: `launch/audit.py` asks in a process apart.

    python -m launch.frameworks.values sft WORLD  < [settings, ...]      > [{name: value} or {"error": text}, ...]
    python -m launch.frameworks.values grpo       < [configuration, ...] > ...

SFT goes through LLaMA-Factory's own argument parser in a simulated world of WORLD devices, GRPO through verl's own
validation and dataclasses; values are checked against the dataclasses' annotations, which verl itself does not do.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import sys
import types
import typing
from typing import Any

from omegaconf import OmegaConf

NAMES_SFT = (  # of LLaMA-Factory's arguments, as they are
    "learning_rate", "seed", "gradient_accumulation_steps", "per_device_train_batch_size", "per_device_eval_batch_size",
    "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "num_train_epochs", "max_steps", "bf16", "fp16",
    "logging_steps", "save_steps", "save_only_model", "eval_steps", "ddp_timeout", "cutoff_len", "template",
    "preprocessing_num_workers", "val_size", "max_samples", "packing", "neat_packing", "mask_history",
    "stage", "finetuning_type", "plot_loss", "use_swanlab", "model_name_or_path", "enable_liger_kernel",
    "max_grad_norm", "optim_args", "train_on_prompt",
)  # fmt: skip


def simulate_world(size: int) -> None:
    """Makes this process rank 0 of `size`, with torch's fake process group: nothing is waited for."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ.update(WORLD_SIZE=str(size), RANK="0", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())


def resolve_sft(settings: dict) -> dict:
    """Returns LLaMA-Factory's own values; raises whatever its parser raises."""
    from launch.frameworks.llama_factory import without_torchaudio

    without_torchaudio()
    from llamafactory.hparams import get_train_args

    groups = get_train_args({**settings, "use_cpu": True, "report_to": "none", "output_dir": "never-written"})
    values = {}
    for group in groups:
        values.update({name: getattr(group, name) for name in NAMES_SFT if hasattr(group, name)})
        check_types(group)
    train = groups[2]
    world = train.world_size
    stage = (train.hf_deepspeed_config.config["zero_optimization"]["stage"]) if train.deepspeed else None
    values.update(
        num_devices=world,
        total_train_batch_size=world * train.per_device_train_batch_size * train.gradient_accumulation_steps,
        total_eval_batch_size=world * train.per_device_eval_batch_size,
        optim=train.optim.value,
        lr_scheduler_type=train.lr_scheduler_type.value,
        eval_strategy=train.eval_strategy.value,
        warmup_ratio=_warmup_ratio(train),
        deepspeed_stage=stage,
    )
    return values


def _warmup_ratio(train) -> float:
    """Returns the warm-up's share of all steps; transformers 5 keeps a ratio as warmup_steps below 1."""
    ratio = getattr(train, "warmup_ratio", None)
    return ratio if ratio else (train.warmup_steps if 0 < train.warmup_steps < 1 else 0.0)


def resolve_grpo(settings: dict) -> dict:
    """Returns verl's own values; raises whatever its validation raises."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = OmegaConf.create(settings)
    validate_config(_checkable(config), need_reference_policy(config), need_critic(config))
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    algorithm = omega_conf_to_dataclass(config.algorithm)
    for part in (actor, rollout, algorithm, actor.optim):
        check_types(part)
    return {
        "learning_rate": actor.optim.lr,
        "lr_warmup_steps": actor.optim.lr_warmup_steps,
        "lr_scheduler_type": actor.optim.lr_scheduler_type,
        "weight_decay": actor.optim.weight_decay,
        "seed": config.data.seed,
        "rollout_seed": rollout.seed,
        "num_devices": config.trainer.n_gpus_per_node * config.trainer.nnodes,
        "total_train_batch_size": config.data.train_batch_size,
        "total_eval_batch_size": config.data.val_batch_size,
        "ppo_mini_batch_size": actor.ppo_mini_batch_size,
        "ppo_micro_batch_size_per_gpu": actor.ppo_micro_batch_size_per_gpu,
        "ppo_epochs": actor.ppo_epochs,
        "use_dynamic_bsz": actor.use_dynamic_bsz,
        "use_kl_loss": actor.use_kl_loss,
        "kl_loss_coef": actor.kl_loss_coef,
        "kl_loss_type": actor.kl_loss_type,
        "entropy_coeff": actor.entropy_coeff,
        "adv_estimator": str(getattr(algorithm.adv_estimator, "value", algorithm.adv_estimator)),
        "use_kl_in_reward": algorithm.use_kl_in_reward,
        "rollout_n": rollout.n,
        "rollout_name": rollout.name,
        "temperature": rollout.temperature,
        "num_epochs": config.trainer.total_epochs,
        "reward_function": f"{config.reward.custom_reward_function.path}:{config.reward.custom_reward_function.name}",
    }


def _checkable(config: Any) -> Any:
    """Returns what verl can validate here: its last check, of an adapter's rank, cannot be made without vLLM."""
    config = config.copy()
    if importlib.util.find_spec("vllm") is None:
        for place in ("lora_rank", "lora.rank"):
            if OmegaConf.select(config, f"actor_rollout_ref.model.{place}"):
                OmegaConf.update(config, f"actor_rollout_ref.model.{place}", 0)
    return config


def check_types(instance: Any) -> None:
    """Raises TypeError for a field whose value is of another simple type than its annotation says."""
    try:
        hints = typing.get_type_hints(type(instance))
    except (NameError, TypeError):
        return  # annotations that cannot be evaluated
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name, None)
        kinds = _simple_types(hints.get(field.name))
        if value is None or not kinds or not isinstance(value, str | bool | int | float):
            continue
        fits = any(type(value) is kind or (kind is float and type(value) is int) for kind in kinds)
        if not fits and not isinstance(value, tuple(k for k in kinds if k not in (bool, int, float))):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{type(instance).__name__}.{field.name}={value!r}: expected {names}")


def _simple_types(hint: object) -> list[type]:
    """Returns the types of an annotation when all of them are simple, else nothing."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    parts: list[Any] = [part for part in (typing.get_args(hint) if is_union else [hint]) if part is not type(None)]
    return parts if parts and all(part in (str, bool, int, float) for part in parts) else []


def main() -> None:
    resolve = {"sft": resolve_sft, "grpo": resolve_grpo}[sys.argv[1]]
    asked, answers = json.load(sys.stdin), []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if sys.argv[1] == "sft":
            simulate_world(int(sys.argv[2]))
        for settings in asked:
            try:
                answers.append(resolve(settings))
            except Exception as error:  # every refusal of the frameworks is an answer here
                answers.append({"error": f"{type(error).__name__}: {error}"})
    json.dump(answers, sys.stdout, default=str)


if __name__ == "__main__":
    main()
