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
from launch.cli.arguments import RECIPES, REPOSITORY
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


def sft_memory(model: Shape, tokens: int, world: int, zero: int, lora: bool, fused_loss: bool) -> Memory:
    """Returns what one GPU holds in SFT; `tokens` are a device's batch times the longest row, `zero` DeepSpeed's stage:
    3 shards all states, 2 all but the weights in bf16, 0 none.
    """
    if lora:
        states = 2 * model.parameters  # frozen in bf16; the adapters are below 1 %
    else:  # fp32 weights, gradients and two moments, or bf16 ones with an fp32 copy: 16 bytes either way
        whole = {0: 16, 2: 2, 3: 0}[zero]
        states = whole * model.parameters + (16 - whole) * model.parameters / world
    return Memory(states, activations(model, tokens, 0 if fused_loss else 10))  # logits: bf16, fp32 copy, gradient


def zero_stage(file: str | None) -> int:
    """Returns the stage of a DeepSpeed file, 0 without one; 1 counts as 2, which has smaller gradients. Raises BadInput
    for a file that is not there, or is none.
    """
    if not file:
        return 0
    try:
        stage = json.loads((REPOSITORY / file).read_text(encoding="utf-8"))["zero_optimization"]["stage"]
    except OSError as error:
        raise BadInput(f"deepspeed={file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"deepspeed={file}: not a DeepSpeed file with a zero_optimization.stage ({error})") from None
    return {1: 2, 2: 2, 3: 3}.get(stage, 0)


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


@dataclass(frozen=True)
class Ways:
    """What may be changed where a GPU is too small: rows of a micro batch (`key`, where there is one), cards, LoRA."""

    key: str
    rows: int
    world: int
    lora: str


def what_fits(of: Callable[..., Memory], ways: Ways, card: int) -> str:
    """Returns the settings that fit into `card` bytes, each alone, as words of the command line."""

    def fits(**changed) -> bool:
        memory = of(**changed)
        return memory.states + memory.activations <= card

    smaller = [n for n in range(ways.rows - 1, 0, -1) if ways.rows % n == 0 and fits(rows=n)] if ways.key else []
    more = [n for n in (2, 4, 8, 16, 32, 64) if n > ways.world and fits(world=n)]
    found = [f"{ways.key}={smaller[0]}"] if smaller else []
    found += [f"{more[0]} cards (cards= x nodes=)"] if more else []
    found += [f"{ways.lora} (recipe=psyche_r1_lora)"] if fits(lora=True) else []
    if not found and smaller == [] and ways.key and fits(lora=True, rows=1):
        found = [f"{ways.lora} {ways.key}=1"]
    return "what fits: " + "; or ".join(found) if found else "a smaller base_model= fits, or cards with more memory"


def gpu_notes(of: Callable[..., Memory], ways: Ways, gpus: list[int], check: bool) -> list[str]:
    """Returns the estimate, and where it exceeds the smallest GPU a warning with what fits; with `check` it raises
    BadInput when the states alone do. Without a GPU here it is held against CARD, and told.
    """
    memory, card = of(), min(gpus, default=CARD)
    if memory.states + memory.activations <= card:
        return [memory.note()]
    told = f"the smallest GPU has {card / GIB:.0f} GiB" if gpus else f"a GPU of {card / GIB:.0f} GiB is too small"
    told += f"; {what_fits(of, ways, card)}"
    if check and gpus and memory.states > card:
        raise BadInput(f"{memory.note()}, and {told}")
    return [memory.note(), f"WARNING: {told}"]


def checkpoint_bytes(model: Shape, optimizer: bool, weight_bytes: int) -> int:
    """Returns the size of one checkpoint: weights, and with `optimizer` AdamW's fp32 copy of what is not fp32."""
    states = 8 + (4 if weight_bytes == 2 else 0)
    return model.parameters * (weight_bytes + (states if optimizer else 0))


def check_disk(folder: Path, needed: float, key: str, check: bool) -> str:
    """Returns a line with the disk a run takes and what is free; with `check` BadInput when it cannot fit."""
    while not folder.exists():
        folder = folder.resolve().parent
    free = shutil.disk_usage(folder).free
    if check and needed > free:
        raise BadInput(
            f"{folder}: {_size(free)} are free, and the checkpoints take about {_size(needed)}; keep fewer ({key}), "
            "save more rarely, or free the disk"
        )
    return f"disk: checkpoints and model take about {_size(needed)}, {_size(free)} are free"


def _size(number: float) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.1f} MiB"


def for_sft(config, model: str, steps: int | None, longest: int, check: bool) -> list[str]:
    """Returns what an SFT run takes of GPUs and disk; with `check` it is held against this machine (BadInput)."""
    model_shape = shape(model)
    if model_shape is None:
        return []
    lora, notes = config.finetuning_type != "full", []
    if not config.get("use_cpu"):
        zero, fused = zero_stage(config.get("deepspeed")), bool(config.get("enable_liger_kernel"))
        rows, world = config.per_device_train_batch_size, config.cards * config.nodes

        def of(rows: int = rows, world: int = world, lora: bool = lora) -> Memory:
            return sft_memory(model_shape, rows * longest, world, zero or 3 * (world > 1), lora, fused)

        ways = Ways("per_device_train_batch_size", rows, world, "finetuning_type=lora lora_rank=64")
        notes += gpu_notes(of, ways, gpu_memory(), check)
    width = 2 if config.get("bf16") else 4
    needed = width * model_shape.parameters  # the model; an adapter's checkpoints are below 1 % of it
    if not lora:
        per_epoch = config.get("save_strategy", "steps") == "epoch"
        saves = ceil(config.get("num_train_epochs", 3.0)) if per_epoch else (steps or 0) // config.save_steps + 1
        kept = min(saves, (config.get("save_total_limit") or saves)) + 1  # one more while it is written
        needed += kept * checkpoint_bytes(model_shape, not config.get("save_only_model"), width)
    notes.append(check_disk(Path(config.output_dir), needed, "save_total_limit=1, or save_only_model=true", check))
    if not config.get("use_cpu"):
        notes.append(host_note(model_shape, 8 if lora else 4, config.cards))
    return notes


def for_grpo(config, model: str, steps: int | None, longest: int, check: bool) -> list[str]:
    """As `for_sft`, for verl; `longest` is the longest prompt with its response, in tokens."""
    model_shape = shape(model)
    if model_shape is None:
        return []
    actor, notes = config.actor_rollout_ref.actor, []
    lora = config.actor_rollout_ref.model.lora_rank > 0
    if config.trainer.device == "cuda":
        world = config.trainer.n_gpus_per_node * config.trainer.nnodes
        described, rows = config.actor_rollout_ref.model, actor.ppo_micro_batch_size_per_gpu
        attention = described.override_config.get("attn_implementation", "flash_attention_2")
        tokens = partial(
            grpo_memory,
            model_shape,
            logit_bytes=grpo_logit_bytes(described.use_fused_kernels),
            dense_mask=described.use_remove_padding and not attention.startswith("flash"),
        )

        def of(rows: int = rows, world: int = world, lora: bool = lora) -> Memory:
            most = actor.ppo_max_token_len_per_gpu if actor.use_dynamic_bsz else rows * longest
            return tokens(tokens=most, world=world, lora=lora)

        key = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
        ways = Ways("" if actor.use_dynamic_bsz else key, rows, world, "actor_rollout_ref.model.lora_rank=64")
        gpus = gpu_memory()
        notes += gpu_notes(of, ways, gpus, check)
        fitting = most_tokens(partial(tokens, world=world, lora=lora), card := min(gpus, default=CARD))
        if not actor.use_dynamic_bsz and 0 < fitting < rows * longest:
            notes.append(
                f"{key}={rows}: on {card / GIB:.0f} GiB it stands only while its rows have at most {fitting // rows} "
                f"tokens in the mean, of {longest} at most; recipe=psyche_r1_fast fills micro batches by tokens"
            )
    saves = (steps or 0) // config.trainer.save_freq + 1 if config.trainer.save_freq > 0 else 1
    kept = min(saves, config.trainer.max_actor_ckpt_to_keep or saves) + 1
    needed = kept * checkpoint_bytes(model_shape, not lora, 4) + 2 * model_shape.parameters  # and the merged model
    folder = Path(config.trainer.default_local_dir)
    notes.append(check_disk(folder, needed, "trainer.max_actor_ckpt_to_keep=1", check))
    if config.trainer.device == "cuda":  # weights while they are loaded, the reference, and all states of one card
        offloaded = 16 if config.trainer.n_gpus_per_node * config.trainer.nnodes == 1 and not lora else 0
        notes.append(host_note(model_shape, 8 + offloaded, config.trainer.n_gpus_per_node))
    return notes


def host_note(model: Shape, bytes_a_parameter: int, processes: int) -> str:
    """Returns a line on the memory of each machine: what of the model passes through it, and 6 GiB a process (ours)."""
    needed = bytes_a_parameter * model.parameters + 6 * GIB * processes
    return (
        f"memory of each machine, estimated: {needed / GIB:.0f} GiB = {bytes_a_parameter} bytes a parameter + 6 GiB "
        f"for each of {processes} processes; launch.merge takes {12 * model.parameters / GIB:.0f} GiB"
    )
