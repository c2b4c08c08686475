"""How well advertisements are told from the language of therapy (bars: precision >= 0.95, recall >= 0.80).

    python -m tests.benchmarks.advertisements                       # each file of examples by weights of the others
    python -m tests.benchmarks.advertisements fit                   # fits to all, writes advertisement_weights.tsv
    python -m tests.benchmarks.advertisements FILE                  # the weights that are there on other examples

Examples are lines, "+ " before an advertisement and "- " before a look-alike. They come from several hands: examples;
three sets that were blind when they were scored (2026-11-29, by the weights of then: precision 0.989, 0.966 and 1.000,
recall 0.593, 0.753 and 0.790) and are for development since; and patterns from which many are made. A fourth,
advertisements_blind_fourth.txt, is fitted to by nothing (scored once, 2026-11-29: precision 0.993, recall 0.980).
SMILECHAT, CPsyCoun, PsyGUARD, CPsyExam and PCEB are further texts that sell nothing, but for two turns that ask to
follow a channel, and our own samples and documents; they are needed for fitting alone.
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from math import sqrt
from pathlib import Path

from data_pipeline.records import Dialogue, Question
from data_pipeline.safety import advertisements
from data_pipeline.safety.advertisements import ADDRESS, BIAS, NUMBER, SHORT, SIGNS, WEIGHTS, find_advertisements, grams
from data_pipeline.sources import read
from tests.conftest import DATA, REPOSITORY

HERE = Path(__file__).parent
FOLDER = HERE.parent / "data_pipeline" / "safety"
FILES = [FOLDER / f"advertisement{name}.txt" for name in ("_examples", "s_blind", "s_blind_second", "s_blind_third")]
SAMPLES = REPOSITORY / "data_pipeline" / "samples"
PATTERNS, EACH = FOLDER / "advertisement_patterns.txt", 12  # texts made of a pattern
OFTEN, SEEN = 20, 2  # times as often in advertisements as elsewhere, and advertisements with it: a sign; ours
PENALTY = 5e-6  # on the squares of the weights; by the groups
LEAN = 0.5  # added to the log-odds: recall against precision; ours
FEW, ROUNDS = 6000, 3  # texts that are none in every fit; those that a fit takes for advertisements join the next
KEPT = 0.15  # weights below are left out

_PART = re.compile(r"\[([a-z]+)\]|\{([^{}]*)\}")

Example = tuple[bool, str]


def examples(file: Path) -> list[Example]:
    lines = filter(None, file.read_text(encoding="utf-8").splitlines())
    return [(line[0] == "+", line[2:]) for line in lines]


def made(file: Path) -> list[Example]:
    """Returns EACH texts of every pattern, drawn at random."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and line[0] in "=+-"]
    parts = {name: words.split("|") for name, words in (line[2:].split(" ", 1) for line in lines if line[0] == "=")}
    draw, texts = random.Random(0), set()

    def filled(text: str) -> str:
        while (
            new := _PART.sub(lambda part: draw.choice(parts[part[1]]) if part[1] else _choice(part[2]), text)
        ) != text:
            text = new
        return text

    def _choice(words: str) -> str:
        return draw.choice(words.split("|"))

    for line in lines:
        texts |= {(line[0] == "+", filled(line[2:])) for _ in range(EACH if line[0] != "=" else 0)}
    return sorted(texts)


def therapy() -> list[str]:
    """Returns sentences and turns of dialogues, posts, exams and documents that sell nothing, in an order drawn at
    random.
    """
    texts = [turn["content"] for file in (DATA / "smile").glob("*.json") for turn in json.loads(file.read_bytes())]
    texts += [row["text"] for row in json.loads((DATA / "psysuicide" / "valid.json").read_bytes())]
    folders = [("cpsycoun", "cpsycoun/CPsyCounD"), ("cpsycoun", "cpsycoun/CPsyCounE"), ("pceb", "pceb")]
    for name, folder in [*folders, ("cpsyexam", "cpsyexam")]:
        for record in read(name, DATA / folder):
            if isinstance(record, Dialogue):
                texts += [turn.content for turn in record.turns]
            elif isinstance(record, Question):
                texts += [record.context, record.stem, record.rationale, record.reference, *record.options]
    for record in [
        *read("table", SAMPLES / "questions.jsonl", clean=False),
        *read("messages", SAMPLES / "corpus/dialogues.jsonl"),
    ]:
        texts += [turn.content for turn in record.turns] if isinstance(record, Dialogue) else []
        texts += [record.stem, record.rationale, *record.options] if isinstance(record, Question) else []
    corpus = [*SAMPLES.glob("corpus/replies/*.jsonl"), *SAMPLES.glob("corpus/passages/*/*.*")]
    written = [*corpus, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    for file in [*written, HERE.parent / "data_pipeline" / "steps" / "clean_texts.txt"]:
        texts += re.split(r"\\?[\"\n{}]+", file.read_text(encoding="utf-8"))
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


def fitted(examples: list[Example], texts: list[str]) -> None:
    """Writes signs and weights by which hardly one of `texts` is an advertisement."""
    SIGNS.write_text("".join(f"{sign}\n" for sign in signs(examples, texts)), encoding="utf-8")
    taken: set[str] = set()
    for _ in range(ROUNDS + 1):
        weights = fit([*examples, *((False, text) for text in sorted(taken))], texts[:FEW])
        WEIGHTS.write_text("".join(f"{gram}\t{weight:.3f}\n" for gram, weight in sorted(weights.items())), "utf-8")
        advertisements._weights.cache_clear()
        advertisements._automaton.cache_clear()
        taken |= {span.text for text in texts for span in find_advertisements(text)}


def signs(examples: list[Example], texts: list[str]) -> list[str]:
    """Returns the words and pairs of words that stand OFTEN times as often in advertisements as in `texts`, and twice
    as often as in look-alikes.
    """
    sold = Counter(gram for is_ad, text in examples if is_ad for gram in grams(text))
    alike = Counter(gram for is_ad, text in examples if not is_ad for gram in grams(text))
    told = Counter(gram for text in texts for gram in grams(text))
    share = len(texts) / sum(is_ad for is_ad, _ in examples)
    found = [gram for gram, count in sold.items() if count >= max(SEEN, 2 * alike[gram])]
    found = [gram for gram in found if sold[gram] * share >= OFTEN * (told[gram] + 0.5)]
    alone = (ADDRESS, NUMBER)
    return sorted(gram for gram in found if ADDRESS not in gram.split(" ") and gram not in alone and len(gram) > 1)


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
        tell(arguments[0], examples(Path(arguments[0])), find_advertisements)
        return
    parts, texts = [examples(file) for file in FILES], therapy()
    if not arguments:
        kept = SIGNS.read_bytes(), WEIGHTS.read_bytes()
        try:
            for file, part in zip(FILES, parts, strict=True):
                fitted(sum((other for other in parts if other is not part), made(PATTERNS)), texts)
                tell(file.name, part, find_advertisements)
                print(
                    f"  of {len(texts)} texts that are none: {sum(bool(find_advertisements(text)) for text in texts)}"
                )
        finally:
            SIGNS.write_bytes(kept[0])
            WEIGHTS.write_bytes(kept[1])
        return
    fitted(sum(parts, made(PATTERNS)), texts)
    for file in (SIGNS, WEIGHTS):
        print(f"{len(file.read_text(encoding='utf-8').splitlines())} lines in {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
