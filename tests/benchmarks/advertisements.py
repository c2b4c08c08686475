"""How well advertisements are told from the language of therapy (bars: precision >= 0.95, recall >= 0.80).

    python -m tests.benchmarks.advertisements                       # each group of examples by weights of the others
    python -m tests.benchmarks.advertisements fit                   # fits to all, writes advertisement_weights.tsv
    python -m tests.benchmarks.advertisements FILE                  # the weights that are there on other examples

Examples are lines, "+ " before an advertisement and "- " before a look-alike; groups, parted by an empty line, were
written one after the other. SMILECHAT, CPsyCoun, PsyGUARD, CPsyExam and PCEB are further texts that sell nothing, but
for two turns that ask to follow a channel; they are needed for fitting alone.
"""

import json
import random
import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path

from data_pipeline.records import Dialogue, Question
from data_pipeline.safety import advertisements
from data_pipeline.safety.advertisements import BIAS, SHORT, find_advertisements, grams
from data_pipeline.sources import read
from tests.conftest import DATA

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "data_pipeline" / "safety" / "advertisement_examples.txt"
WEIGHTS = Path(advertisements.__file__).parent / "advertisement_weights.tsv"
PENALTY = 2e-5  # on the squares of the weights; by the groups
LEAN = 0.1  # added to the log-odds: recall against precision, by the groups; ours
FEW, ROUNDS = 6000, 2  # texts that are none in every fit; those that a fit takes for advertisements join the next
KEPT = 0.15  # weights below are left out

Example = tuple[bool, str]


def groups(file: Path) -> list[list[Example]]:
    parts = file.read_text(encoding="utf-8").strip().split("\n\n")
    return [[(line[0] == "+", line[2:]) for line in part.splitlines()] for part in parts]


def therapy() -> list[str]:
    """Returns sentences and turns of dialogues, posts and exams that sell nothing, in an order drawn at random."""
    texts = [turn["content"] for file in (DATA / "smile").glob("*.json") for turn in json.loads(file.read_bytes())]
    texts += [row["text"] for row in json.loads((DATA / "psysuicide" / "valid.json").read_bytes())]
    folders = [("cpsycoun", "cpsycoun/CPsyCounD"), ("cpsycoun", "cpsycoun/CPsyCounE"), ("pceb", "pceb")]
    for name, folder in [*folders, ("cpsyexam", "cpsyexam")]:
        for record in read(name, DATA / folder):
            if isinstance(record, Dialogue):
                texts += [turn.content for turn in record.turns]
            elif isinstance(record, Question):
                texts += [record.context, record.stem, record.rationale, record.reference, *record.options]
    texts += (HERE.parent / "data_pipeline" / "steps" / "clean_texts.txt").read_text(encoding="utf-8").splitlines()
    texts = sorted({text for text in texts if len(text) > 8 and "微信公众号" not in text})
    random.Random(0).shuffle(texts)
    return texts


def fit(examples: list[Example], others: list[str]) -> dict[str, float]:
    """Returns the weights of a logistic regression on the examples and texts that are none."""
    import torch

    rows = [(*example, 3.0) for example in examples] + [(False, text, 0.3) for text in others]
    weighed = [grams(text) for _, text, _ in rows]
    place = {gram: number for number, gram in enumerate(sorted(set().union(*weighed)))}
    index = torch.tensor([place[gram] for one in weighed for gram in sorted(one)])
    share = torch.tensor([1 / sqrt(max(SHORT, len(one))) for one in weighed for _ in one])
    starts = torch.tensor([0, *(len(one) for one in weighed)]).cumsum(0)[:-1]
    target = torch.tensor([float(is_ad) for is_ad, *_ in rows])
    counts = torch.tensor([count for *_, count in rows])
    weights, bias = torch.zeros(len(place), 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        bags = torch.nn.functional.embedding_bag(index, weights, starts, mode="sum", per_sample_weights=share)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(bags[:, 0] + bias, target, reduction="none")
        loss = (loss * counts).sum() / counts.sum() + PENALTY * (weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  (a tensor is what it takes)
    learned = dict(zip(place, weights[:, 0].tolist(), strict=True))
    kept = {gram: weight for gram, weight in learned.items() if abs(weight) >= KEPT and gram.isprintable()}
    return {BIAS: bias.item() + LEAN} | kept


def fitted(examples: list[Example], texts: list[str]) -> dict[str, float]:
    """Returns weights by which hardly one of `texts` is an advertisement."""
    taken: set[str] = set()
    for _ in range(ROUNDS):
        use(fit([*examples, *((False, text) for text in sorted(taken))], texts[:FEW]))
        taken |= {span.text for text in texts for span in find_advertisements(text)}
    return fit([*examples, *((False, text) for text in sorted(taken))], texts[:FEW])


def use(weights: dict[str, float]) -> None:
    """Puts weights in the place of those that the module reads."""
    advertisements._weights.cache_clear()
    advertisements._weights = lambda weights=weights: weights  # pyright: ignore[reportAttributeAccessIssue]
    advertisements._weights.cache_clear = lambda: None


def tell(name: str, examples: list[Example], finds: Callable[[str], object]) -> tuple[int, int, int]:
    """Prints precision and recall, and what was missed and mistaken; returns (right, mistaken, advertisements)."""
    right = sum(bool(finds(text)) for is_ad, text in examples if is_ad)
    wrong = [text for is_ad, text in examples if not is_ad and finds(text)]
    total = sum(is_ad for is_ad, _ in examples)
    for text in [text for is_ad, text in examples if is_ad and not finds(text)]:
        print(f"  missed: {text}")
    for text in wrong:
        print(f"  mistaken: {text}")
    precision = right / (right + len(wrong)) if right + len(wrong) else 1
    print(f"{name}: precision {precision:.3f}, recall {right / total:.3f} of {total}", flush=True)
    return right, len(wrong), total


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] != "fit":
        tell(arguments[0], sum(groups(Path(arguments[0])), []), find_advertisements)
        return
    parts, texts = groups(EXAMPLES), therapy()
    if arguments:
        weights = fitted(sum(parts, []), texts)
        lines = [f"{gram}\t{weight:.3f}\n" for gram, weight in sorted(weights.items())]
        WEIGHTS.write_text("".join(lines), encoding="utf-8")
        print(f"{len(lines)} weights in {WEIGHTS}")
        return
    counts = []
    for number, part in enumerate(parts):
        use(fitted(sum((other for other in parts if other is not part), []), texts))
        counts.append(tell(f"group {number + 1}", part, find_advertisements))
        print(f"  of {len(texts)} texts that are none: {sum(bool(find_advertisements(text)) for text in texts)}")
    right, wrong, total = map(sum, zip(*counts, strict=True))
    print(f"all groups: precision {right / (right + wrong):.3f}, recall {right / total:.3f} of {total}")


if __name__ == "__main__":
    main(sys.argv[1:])
