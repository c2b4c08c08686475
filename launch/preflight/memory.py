"""What a run takes of each GPU and of the disk, estimated from the model's shape before anything is loaded.

States are counted exactly: weights, gradients and AdamW's moments. Activations are a lower estimate under gradient
checkpointing (layer inputs, one layer's inside, logits). The numbers are ours; nothing here was measured on a GPU.
"""

import json
import shutil
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import yaml

from data_pipeline.errors import BadInput
from launch.cli.arguments import RECIPES
from launch.preflight import gpu

GIB = 2**30
CARD = 80 * GIB  # of the paper recipes' cards, where none is here to ask


@dataclass(frozen=True)
class Shape:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool
    head_dim: int | None = None

    @property
    def parameters(self) -> int:
        """Weights of embeddings, attention, MLP and norms; biases and head norms are left out (below 0.1 %)."""
        head = self.head_dim or self.hidden_size // self.num_attention_heads
        attention = self.hidden_size * head * (2 * self.num_attention_heads + 2 * self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + self.hidden_size


def shape(model: str) -> Shape | None:
    """Returns the model's shape from its config.json or recipes/published/models.yaml, None when neither knows it."""
    path = Path(model) / "config.json"
    if path.is_file():
        described = json.loads(path.read_text(encoding="utf-8"))
    else:
        described = yaml.safe_load((RECIPES / "published" / "models.yaml").read_text(encoding="utf-8")).get(model, {})
    try:
        return Shape(**{name: described.get(name) for name in Shape.__dataclass_fields__ if name in described})
    except TypeError:
        return None  # another architecture


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU: `states` are certain, `activations` at least."""

    states: float
    activations: float

    def note(self) -> str:
        total = self.states + self.activations
        return (
            f"memory per GPU, estimated: {total / GIB:.0f} GiB = {self.states / GIB:.0f} weights, gradients and "
            f"optimizer + {self.activations / GIB:.0f} activations of the longest rows"
        )


def activations(model: Shape, tokens: int, logit_bytes: int) -> float:
    """Returns bytes for `tokens` on one GPU: layer inputs and one layer's inside in bf16, and the logits."""
    layers = 2 * tokens * model.hidden_size * model.num_hidden_layers
    inside = 2 * tokens * (8 * model.hidden_size + 4 * model.intermediate_size)
    return layers + inside + logit_bytes * tokens * model.vocab_size


def sft_memory(model: Shape, tokens: int, world: int, sharded: bool, lora: bool, fused_loss: bool) -> Memory:
    """Returns what one GPU holds in SFT; `tokens` are a device's batch times the longest row."""
    if lora:
        states = 2 * model.parameters  # frozen in bf16; the adapters are below 1 %
    else:  # fp32 weights, gradients and two moments, or bf16 ones with an fp32 copy: 16 bytes either way
        states = 16 * model.parameters / (world if sharded else 1)
    return Memory(states, activations(model, tokens, 0 if fused_loss else 10))  # logits: bf16, fp32 copy, gradient


def grpo_memory(model: Shape, tokens: int, world: int, lora: bool, logit_bytes: int, dense_mask: bool) -> Memory:
    """Returns what one GPU holds while verl's FSDP updates the actor; the rollout engine's share is given back then.

    `dense_mask`: packed rows without FlashAttention are kept apart by a mask of tokens x tokens, a byte each.
    """
    states = (2 if lora else 16) * model.parameters / world
    return Memory(states, activations(model, tokens, logit_bytes) + (tokens**2 if dense_mask else 0))


def grpo_logit_bytes(fused_kernels: bool) -> int:
    """Returns the bytes per logit at the peak of verl's loss: logits in bf16, and what is made of them.

    Fused kernels make none. flash-attn's kernel writes the gradient in place (4: ours, not measured). Without it verl
    keeps torch's log_softmax and its gradients, of rows and whole (6: measured, tests/launch/preflight/test_memory.py).
    """
    return 0 if fused_kernels else 4 if gpu.installed("flash-attn") else 6


def most_tokens(of: Callable[[int], Memory], card: int) -> int:
    """Returns the most tokens on one GPU with which `of(tokens)` fits into `card` bytes."""
    return bisect_right(range(2**22), card, key=lambda tokens: of(tokens).states + of(tokens).activations) - 1


def gpu_memory() -> list[int]:
    """Returns the bytes of each GPU that nvidia-smi lists, nothing without one."""
    return [int(line) * 2**20 for line in gpu.ask_nvidia_smi("memory.total") if line.isdigit()]


def check_gpu_memory(memory: Memory, gpus: list[int], cure: str) -> list[str]:
    """Returns the estimate, with a warning when it exceeds the smallest GPU; BadInput when the states alone do."""
    notes = [memory.note()]
    if gpus and memory.states > min(gpus):
        raise BadInput(f"{notes[0]}, and the smallest GPU has {min(gpus) / GIB:.0f} GiB; {cure}")
    if gpus and memory.states + memory.activations > min(gpus):
        notes.append(f"WARNING: the smallest GPU has {min(gpus) / GIB:.0f} GiB; {cure}")
    return notes


def checkpoint_bytes(model: Shape, optimizer: bool, weight_bytes: int) -> int:
    """Returns the size of one checkpoint: weights, and with `optimizer` AdamW's fp32 copy of what is not fp32."""
    states = 8 + (4 if weight_bytes == 2 else 0)
    return model.parameters * (weight_bytes + (states if optimizer else 0))


def check_disk(folder: Path, needed: float, key: str) -> str:
    """Returns a line with the disk a run takes and what is free; raises BadInput when it cannot fit."""
    while not folder.exists():
        folder = folder.resolve().parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"{folder}: {free / GIB:.0f} GiB are free, and the checkpoints take about {needed / GIB:.0f} GiB; keep "
            f"fewer ({key}), save more rarely, or free the disk"
        )
    return f"disk: checkpoints take about {needed / GIB:.1f} GiB, {free / GIB:.0f} GiB are free"


def for_sft(config, model: str, steps: int | None, longest: int, check: bool) -> list[str]:
    """Returns what an SFT run takes of GPUs and disk; with `check` it is held against this machine (BadInput)."""
    model_shape = shape(model)
    if model_shape is None:
        return []
    lora, notes = config.finetuning_type != "full", []
    if not config.get("use_cpu"):
        tokens = config.per_device_train_batch_size * longest
        world = config.cards * config.nodes
        memory = sft_memory(
            model_shape, tokens, world, bool(config.get("deepspeed")), lora, bool(config.get("enable_liger_kernel"))
        )
        cure = "use recipe=psyche_r1_lora, more GPUs with cards=, or a smaller base_model="
        notes += check_gpu_memory(memory, gpu_memory() if check else [], cure)
    if check and not lora:
        per_epoch = config.get("save_strategy", "steps") == "epoch"
        saves = ceil(config.get("num_train_epochs", 3.0)) if per_epoch else (steps or 0) // config.save_steps + 1
        kept = min(saves, (config.get("save_total_limit") or saves)) + 1  # one more while it is written
        width = 2 if config.get("bf16") else 4
        needed = kept * checkpoint_bytes(model_shape, not config.get("save_only_model"), width)
        notes.append(check_disk(Path(config.output_dir), needed, "save_total_limit=2, or save_only_model=true"))
    return notes


def for_grpo(config, model: str, steps: int | None, longest: int, check: bool) -> list[str]:
    """As `for_sft`, for verl; `longest` is the longest prompt with its response, in tokens."""
    model_shape = shape(model)
    if model_shape is None:
        return []
    actor, notes = config.actor_rollout_ref.actor, []
    lora = config.actor_rollout_ref.model.lora_rank > 0
    if config.trainer.device == "cuda":
        tokens = actor.ppo_max_token_len_per_gpu
        if not actor.use_dynamic_bsz:
            tokens = actor.ppo_micro_batch_size_per_gpu * longest
        world = config.trainer.n_gpus_per_node * config.trainer.nnodes
        described = config.actor_rollout_ref.model
        attention = described.override_config.get("attn_implementation", "flash_attention_2")
        of = partial(
            grpo_memory,
            model_shape,
            world=world,
            lora=lora,
            logit_bytes=grpo_logit_bytes(described.use_fused_kernels),
            dense_mask=described.use_remove_padding and not attention.startswith("flash"),
        )
        cure = "use recipe=psyche_r1_lora or psyche_r1_fast, more GPUs with cards=, or a smaller base_model="
        gpus = gpu_memory() if check else []
        notes += check_gpu_memory(of(tokens), gpus, cure)
        card, rows = min(gpus, default=CARD), actor.ppo_micro_batch_size_per_gpu
        if not actor.use_dynamic_bsz and (fitting := most_tokens(of, card)) < tokens:
            notes.append(
                f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={rows}: on {card / GIB:.0f} GiB it stands "
                f"only while its rows have at most {max(0, fitting) // rows} tokens in the mean, of {longest} at most; "
                "recipe=psyche_r1_fast fills micro batches by tokens"
            )
    if check and not lora:
        saves = (steps or 0) // config.trainer.save_freq + 1 if config.trainer.save_freq > 0 else 1
        kept = min(saves, config.trainer.max_actor_ckpt_to_keep or saves) + 1
        needed = kept * checkpoint_bytes(model_shape, True, 4)
        key = "trainer.max_actor_ckpt_to_keep=1"
        notes.append(check_disk(Path(config.trainer.default_local_dir), needed, key))
    return notes
