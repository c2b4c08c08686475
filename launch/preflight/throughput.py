"""How fast and how full a training is, as `launch.check_gpu` measures it: tokens a second, MFU, peak memory."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import yaml

from data_pipeline.errors import BadInput
from launch.cli.arguments import RECIPES
from launch.frameworks import llama_factory
from launch.preflight import gpu, memory
from launch.running.folder import read_manifest

GIB = 2**30


@dataclass
class Watch:
    """What is seen of a part while it runs: the memory in use on each card, and when each step of SFT was done."""

    trained: Path | None = None  # the folder of SFT's model
    cards: dict[int, int] = field(default_factory=dict)  # {card: peak in bytes}
    steps: list[tuple[float, int]] = field(default_factory=list)  # (seconds, steps done)
    asked: float = 0.0

    def look(self) -> None:
        if self.trained:
            done = llama_factory.progress(self.trained)[0]
            if done > (self.steps[-1][1] if self.steps else 0):
                self.steps.append((monotonic(), done))
        if monotonic() - self.asked >= 1:
            for card, used in enumerate(gpu.ask_nvidia_smi("memory.used")):
                self.cards[card] = max(self.cards.get(card, 0), int(used) * 2**20 if used.isdigit() else 0)
            self.asked = monotonic()

    def peak(self, process: int) -> float:
        """Returns the peak in GiB, of the fullest card, or of the process tree where there is no card."""
        return round(max(self.cards.values(), default=process) / GIB, 2)


def peak_flops(card: str) -> float | None:
    """Returns a card's dense bf16 FLOP/s, None for one that is not in recipes/published/cards.yaml."""
    known = yaml.safe_load((RECIPES / "published" / "cards.yaml").read_text(encoding="utf-8"))
    return next((1e12 * of["tflops"] for name, of in known.items() if re.search(rf"\b{re.escape(name)}\b", card)), None)


def flops_per_token(model: memory.Shape, tokens: float) -> float:
    """Returns what training takes for each token of rows of `tokens`: 6 for each weight of a matrix product, and
    attention (PaLM's appendix B), recomputation not counted.
    """
    weights = model.parameters - (0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size)
    return 6 * weights + 6 * model.num_hidden_layers * model.hidden_size * tokens  # causal: half of 12


def sft(run: str, watch: Watch, rows_a_step: int, cards: list[str]) -> dict:
    """Returns {"tokens_per_s", "step_s", "loss_first", "loss_last", "mfu"}; without MFU where the card is unknown."""
    manifest = read_manifest(run, "sft") or {}
    counts = manifest["counts"]
    (began, first), (ended, last) = watch.steps[0], watch.steps[-1]
    if last == first:
        raise BadInput("sft: no two steps were seen to end, so that nothing is measured")
    step = (ended - began) / (last - first)  # the first step, which warms up, is left out
    tokens = counts["tokens_mean"] * rows_a_step / step
    found = {"tokens_per_s": round(tokens, 1), "step_s": round(step, 3)}
    found |= {name: round(counts[name], 3) for name in ("loss_first", "loss_last")}
    shape, peaks = memory.shape(manifest["base_model"]), [peak_flops(card) for card in cards]
    if shape and peaks and None not in peaks:
        used = flops_per_token(shape, counts["tokens_mean"]) * tokens
        found["mfu"] = round(used / sum(peak for peak in peaks if peak), 4)
    return found
