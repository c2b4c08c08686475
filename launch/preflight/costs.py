"""What a run costs in hours, from the model's shape, the recipe and the cards: before data, model or GPU is there.

Arithmetic and memory traffic, divided by what a card can do and by the share of it that is reached. That share is what
check_gpu has measured here, else ours; docs/training.md has the formulas.
"""

import json
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import yaml

from data_pipeline.errors import BadInput
from launch.cli.arguments import RECIPES, SFT, parse
from launch.cli.configuration import compose_stage
from launch.preflight import gpu, memory
from launch.preflight.batch_plan import GrpoPlan, SftPlan
from launch.preflight.memory import Shape

MEASURED = Path("runs/check_gpu/summary.json")
ASSUMED_CARD = "H100"
MFU = 0.2  # model FLOPs utilisation: short rows, a few at a time, weights gathered for each; ours
MFU_PACKED = 0.35  # with full micro batches; ours
BANDWIDTH = 0.6  # share of the memory's bandwidth that decoding reaches; ours
STEP_SECONDS = 15  # of a GRPO step beside arithmetic: weights to vLLM, its sleep and waking, the reward; ours
POLL_SECONDS = 2  # verl's, for each round of validation
TRANSFORMERS_STEP = 0.025  # seconds of a decoded token in this process, whatever the model; ours
BYTES_PER_TOKEN = 4  # of UTF-8; ours
TOKENS_PER_S = 1000  # of a server of many requests, prompts and replies; ours
REPLY = 0.5  # share of the longest response that the mean one has; ours


@dataclass(frozen=True)
class Machine:
    cards: int
    name: str  # of the card
    flops: float
    bandwidth: float
    doubt: str  # why the card is not the one that is here
    mfu: float | None  # measured

    def told(self) -> str:
        return f"{self.cards} x {self.name}{self.doubt}"

    def share(self, packed: bool) -> tuple[float, str]:
        """Returns the MFU to count with, and where it comes from."""
        if self.mfu:
            return self.mfu, f"measured, {MEASURED}"
        return (MFU_PACKED if packed else MFU), "ours"


def machine(cards: int) -> Machine:
    """Returns the cards that are asked for: of the kind that is here, else of ASSUMED_CARD."""
    known = yaml.safe_load((RECIPES / "published" / "cards.yaml").read_text(encoding="utf-8"))
    seen = gpu.ask_nvidia_smi("name")
    here = next((name for name in known if seen and re.search(rf"\b{re.escape(name)}\b", seen[0])), None)
    name = here or ASSUMED_CARD
    card = known[name]
    doubt = f" (assumed: of {seen[0]} we know no figures)" if seen else " (assumed: no card is here)"
    of_card = measured()
    mfu = (of_card.get("sft") or {}).get("mfu") if here and here in str(of_card.get("card")) else None
    return Machine(cards, name, card["tflops"] * 1e12, card["gb_s"] * 1e9, "" if here else doubt, mfu)


def measured() -> dict:
    """Returns what check_gpu has measured here, {} where it has not run; raises BadInput for a broken file."""
    if not MEASURED.is_file():
        return {}
    try:
        return json.loads(MEASURED.read_text(encoding="utf-8"))
    except ValueError:
        raise BadInput(f"{MEASURED}: not what check_gpu writes; delete it, or run check_gpu again") from None


def tokens_per_second(given: float | None) -> tuple[float, str]:
    """Returns (tokens a second of one server, whence): what is given, else measured, else ours."""
    if given:
        return given, "tokens_per_s="
    if found := (measured().get("eval") or {}).get("tokens_per_s"):
        return found, f"{MEASURED}: ten at once, of a small model; tokens_per_s=N states yours"
    return TOKENS_PER_S, "ours; python -m launch.check_gpu measures it, tokens_per_s=N states it"


def seconds_of(operations: int, shape: Shape, tokens: float, of: Machine, mfu: float) -> float:
    """Returns the seconds of so many operations for each parameter and token: 6 train, 4 train an adapter, 2 read."""
    return operations * shape.parameters * tokens / (of.cards * of.flops * mfu)


def decode_seconds(shape: Shape, tokens: int, rows: float, context: float, bandwidth: float) -> float:
    """Returns the seconds in which a card writes `tokens` to each of `rows` answers: all weights, and the keys and
    values of their contexts, are read for each token.
    """
    head = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    cache = 4 * shape.num_hidden_layers * shape.num_key_value_heads * head  # bytes a token: two of bf16
    return tokens * (2 * shape.parameters + rows * context * cache) / (BANDWIDTH * bandwidth)


def for_sft(config, shape: Shape | None, plan: SftPlan, tokens: float) -> list[str]:
    """Returns lines on the hours of SFT; `tokens` are a row's in the mean."""
    if shape is None or config.get("use_cpu") or plan.steps is None:
        return []
    of = machine(plan.world_size)
    mfu, source = of.share(bool(config.get("packing")))
    rows = plan.max_steps * plan.effective_batch if plan.max_steps > 0 else (plan.rows or 0) * plan.epochs
    seconds = seconds_of(6 if config.finetuning_type == "full" else 4, shape, rows * tokens, of, mfu)
    return [
        f"time on {of.told()}, estimated: {hours(seconds)} = {rows:,.0f} rows x {tokens:,.0f} tokens x "
        f"{shape.parameters / 1e9:.1f}B parameters at MFU {mfu:.2f} ({source})"
    ]


def for_grpo(config, shape: Shape | None, plan: GrpoPlan, prompt_tokens: float) -> list[str]:
    """Returns lines on the hours of GRPO and of its steps' parts."""
    if shape is None or config.trainer.device != "cuda" or plan.steps is None:
        return []
    of, longest = machine(plan.world_size), config.data.max_response_length
    mfu, source = of.share(config.actor_rollout_ref.actor.use_dynamic_bsz)
    reply = REPLY * longest
    rows = plan.responses / plan.world_size
    engine = rows * config.actor_rollout_ref.rollout.tensor_model_parallel_size
    written = decode_seconds(shape, longest, engine, prompt_tokens + reply / 2, of.bandwidth)
    operations = 4 if config.actor_rollout_ref.model.lora_rank > 0 else 6
    operations += 2 * (2 if config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward else 1)
    trained = seconds_of(operations, shape, plan.responses * (prompt_tokens + reply), of, mfu)
    step = written + trained + STEP_SECONDS
    validated = validation_seconds(config, shape, of, plan.steps)
    return [
        f"time on {of.told()}, estimated: {hours(plan.steps * step + validated)} = {plan.steps} steps x {step:.0f} s "
        f"({written:.0f} rollout, {trained:.0f} training at MFU {mfu:.2f} ({source}), {STEP_SECONDS} beside it) + "
        f"{hours(validated)} validation; answers of {reply:.0f} tokens in the mean (ours)"
    ]


def validation_seconds(config, shape: Shape, of: Machine, steps: int) -> float:
    """Returns the seconds of all validations: rounds of val_batch_size prompts, or one of all."""
    every, file = config.trainer.test_freq, Path(config.data.val_files)
    times = bool(config.trainer.val_before_train) + (ceil(steps / every) if every > 0 else 0)
    if file.is_file():
        import pyarrow.parquet  # here, so that a dry run stays quick

        rows = pyarrow.parquet.read_metadata(file).num_rows
    else:
        rows = config.psyforge.expected_validation or 0
    batch = config.data.val_batch_size or rows or 1
    longest = config.data.max_response_length
    one = decode_seconds(shape, longest, batch / of.cards, longest / 2, of.bandwidth) + POLL_SECONDS
    return times * ceil(rows / batch) * one


def for_eval(config, words: dict[str, str], asked: dict[str, int], unknown: list[str]) -> list[str]:
    """Returns lines on what evaluating one checkpoint costs on GPUs; `asked` are the responses to each set, `words` the
    command's. The model is the one given, else that of the recipe's SFT; the cards are those of the hardware.
    """
    if not all(
        (RECIPES / place / "sft.yaml").is_file() for place in (words["recipe"], f"hardware/{words['hardware']}")
    ):
        return unknown
    sft = compose_stage(SFT, parse(SFT, [f"recipe={words['recipe']}", f"hardware={words['hardware']}"]))
    shape, cards = memory.shape(config.base_model or sft.model_name_or_path), 0 if sft.get("use_cpu") else sft.cards
    if shape is None or not cards or not asked:
        return unknown
    rows, of, longest, batch = sum(asked.values()), machine(cards), config.max_new_tokens, config.batch_size
    if config.get("engine", "transformers") == "transformers":
        rounds = ceil(rows / batch)
        one = longest * TRANSFORMERS_STEP + decode_seconds(shape, longest, batch, longest / 2, of.bandwidth)
        how = f"batches of {batch} in this process, on one card"
    else:
        rounds = ceil(rows / (batch * cards))
        one = decode_seconds(shape, longest, batch, longest / 2, of.bandwidth)
        how = f"vLLM with {batch} at once on each card"
    told = ", ".join(f"{name} {count:,}" for name, count in asked.items())
    weights = 2 * shape.parameters
    return [
        f"time on {of.told()}, estimated: {hours(rounds * one)} a checkpoint = {rounds} x {one:.0f} s of at most "
        f"{longest} tokens, {how}; responses: {told}",
        f"memory, estimated: {weights / 2**30:.0f} GiB of weights on each card, and of the machine while they are "
        f"loaded; disk: {rows * REPLY * longest * BYTES_PER_TOKEN / 2**20:.0f} MiB of responses a checkpoint",
        *unknown,
    ]


def responses(data: Path, sets: dict) -> tuple[dict[str, int], list[str]]:
    """Returns {set: responses} of an evaluation, files counted and benchmarks as they are published; and what is not
    counted. `sets` are those of eval/settings.py.
    """
    asked, unknown = {}, []
    for name, one in sets.items():
        place, items = one.place(data), None
        if one.file is not None:
            items = sum(1 for _ in place.open("rb")) if place.is_file() else None
        elif (file := RECIPES / "published" / f"{one.benchmark}.yaml").is_file():
            known, options = (
                yaml.load(file.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)),
                one.options or {},
            )
            items = known.get("items")
            items = items.get("qa" if options.get("qa") else options.get("split")) if isinstance(items, dict) else items
        if items:
            asked[name] = items * one.samples
        else:
            unknown.append(f"{name}: not counted in the time, since {place} is not there")
    return asked, unknown


def hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
