"""Makes the weights of `crisis_model.py`, in a minute on one core, and says how good they are:

    python -m data_pipeline.safety.train_crisis_model TEXTS.tsv ... valid.json SMILECHAT DEMO.jsonl ... [figures]

TEXTS.tsv: a class and a text a line, as in tests/data_pipeline/safety; `{a|b}` in a text stands for one of several
words, and a line with it makes twelve texts. valid.json: PsyGUARD's labelled posts (MIT), those about suicide and
self-harm, and those about neither. SMILECHAT (CC0) and the demo count as neither. It learns from what no rule flags.
Figures are of a model that has not seen the text, nor another of its template; `figures` alone writes nothing.
"""

import json
import random
import re
import sys
import zlib
from pathlib import Path

import numpy as np

from data_pipeline.errors import BadInput
from data_pipeline.safety.crisis import tried
from data_pipeline.safety.crisis_model import BITS, FILE, VERSION, Model, ngrams, scores
from data_pipeline.safety.normalise import normalised

HARMLESS = {"pass", "negation", "figure", "title", "study", "ordinary"}
EPOCHS, RATE, DECAY, FOLDS, SENTENCES = 12, 0.5, 1e-5, 5, 16_000  # the last: at most, of a set of dialogues
FALSE, RARE = 0.08, 0.005  # shares that may be marked of harmless texts, hard ones, and of sentences of dialogues
Text = tuple[str, str, bool, str]  # where it is of and its class, the text, whether it is about a crisis, its template


def read_texts(file: Path) -> list[Text]:
    """Returns the texts of a table, or of valid.json; raises BadInput for a line that is neither."""
    if file.suffix == ".json":
        rows = [(",".join(row["labels"]), row["text"]) for row in json.loads(file.read_text("utf-8"))]
        kept = [row for row in rows if re.search("无关|自杀(?!的探索)|自伤", row[0]) and "探索" not in row[0]]
        return [(f"valid {label}", text, "无关" not in label, text) for label, text in kept]
    draw, texts = random.Random(0), []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not tab:
            raise BadInput(f"{file} line {number}: {line[:60]!r}; write CLASS, a tab and the text")
        for _ in range(12 if "{" in text else 1):
            said = re.sub(r"\{([^{}]*)\}", lambda words: draw.choice(words[1].split("|")), text)
            texts.append((f"{file.stem} {name}", said.replace("\\n", "\n"), name not in HARMLESS, text))
    return list(dict.fromkeys(texts))


def read_dialogues(path: Path) -> list[Text]:
    """Returns sentences and turns that no rule flags, of every other dialogue of SMILECHAT or of all of a demo file."""
    if path.is_dir():
        dialogues = [json.loads(file.read_bytes()) for file in sorted(path.glob("*.json"))[::2]]
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        dialogues = [row.get("messages") or [{"content": row["text"]}] for row in rows]
        dialogues += [[{"content": text} for text in (row["title"], *row["replies"])] for row in rows if "title" in row]
    said = [turn["content"] for dialogue in dialogues for turn in dialogue]
    sentences = list(dict.fromkeys(re.findall(r"[^。！？!?\n]{3,}[。！？!?]?", "\n".join(said)) + said))
    random.Random(0).shuffle(sentences)
    return [(path.stem, each, False, each) for each in sentences[:SENTENCES] if not tried(normalised(each))[0]]


def train(reads: list[str], about: np.ndarray) -> Model:
    """Returns a logistic regression of texts in plain spelling, which has no threshold yet."""
    known = [np.concatenate(ngrams([read])[1]) for read in reads]
    often = np.bincount(np.concatenate([np.unique(places) for places in known]).astype(np.int64), minlength=1 << BITS)
    weights, squares = np.zeros(1 << BITS), np.full(1 << BITS, 1e-2)
    bias, order, draw = 0.0, np.arange(len(reads)), np.random.default_rng(0)
    for _ in range(EPOCHS):
        draw.shuffle(order)
        for row in order:
            size = 1 / np.sqrt(len(known[row]))
            at = known[row][often[known[row]] > 1]  # what stands in one text alone teaches nothing
            slope = 1 / (1 + np.exp(-weights[at].sum() * size - bias)) - about[row]
            step = slope * size + DECAY * weights[at]
            squares[at] += step**2
            weights[at] -= RATE * step / np.sqrt(squares[at])
            bias -= 0.02 * slope
    scale = np.abs(weights).max() / 127
    return np.round(weights / scale).astype(np.int8), float(scale), float(bias), 0.0


def out_of_fold(reads: list[str], about: np.ndarray, learnt: np.ndarray, templates: list[str]) -> np.ndarray:
    """Returns the score of each text by a model that has not seen it, nor another of its template."""
    fold, found = np.array([zlib.crc32(template.encode()) % FOLDS for template in templates]), np.zeros(len(reads))
    for each in range(FOLDS):
        rows = np.flatnonzero(learnt & (fold != each))
        model = train([reads[row] for row in rows], about[rows])
        for row in np.flatnonzero(fold == each):
            found[row] = scores([reads[row]], model)[0][0]
    return found


def main(paths: list[Path], write: bool) -> None:
    texts = [
        text for path in paths for text in (read_texts if path.suffix in (".tsv", ".json") else read_dialogues)(path)
    ]
    about, names = np.array([text[2] for text in texts]), np.array([text[0] for text in texts])
    matches, reads = zip(*(tried(normalised(text[1])) for text in texts), strict=True)
    ruled = np.array(list(map(bool, matches)))
    found = out_of_fold(list(reads), about, ~ruled, [text[3] for text in texts])
    talk = np.isin(names, [path.stem for path in paths if path.suffix not in (".tsv", ".json")])
    threshold = max(np.quantile(found[of & ~about & ~ruled], 1 - false) for of, false in ((~talk, FALSE), (talk, RARE)))
    for name in dict.fromkeys(names):
        rules, both = ruled[names == name], (ruled | (found >= threshold))[names == name]
        print(f"{name}: {len(both)} texts, {rules.mean():.3f} by rules, {both.mean():.3f} with the model out of fold")
    if write:
        rows = np.flatnonzero(~ruled)
        table, scale, bias, _ = train([reads[row] for row in rows], about[rows])
        places = np.flatnonzero(table).astype(np.uint32)
        values = {"scale": scale, "bias": bias, "threshold": float(threshold), "version": VERSION}
        np.savez_compressed(FILE, places=places, weights=table[places], **values)
        print(f"{FILE.name}: {len(places):,} n-grams, {FILE.stat().st_size:,} bytes, threshold {threshold:.3f}")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:] if word != "figures"], write="figures" not in sys.argv)
