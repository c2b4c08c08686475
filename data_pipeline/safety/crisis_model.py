"""A linear model over the n-grams of a sentence, for what speaks of a crisis without a word that rules could name.

A unit is a Chinese character, a Latin word or a sign; an n-gram is one to four of them. The weights,
`crisis_model.npz`, are made by `train_crisis_model.py`, which says of what.
"""

import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.errors import BadInput

VERSION, LONGEST, BITS = 3, 4, 22  # of the n-grams; units of one; bits of its place in the table, which a few share
FILE = Path(__file__).parent / "crisis_model.npz"
_WORDS = re.compile(r"[a-z']{2,}|[0-9]{2,}")
_ENDS, _END = ("。", "!", "?", ";"), 10  # a new line is what each of them counts as
_PRIVATE, _MANY = 0xF0000, 0x1FFF0  # code points that stand for words, and how many
_TEXT = 160  # characters of a text that is read as one, besides its sentences
_MIX, _SPREAD = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)
Model = tuple[np.ndarray, float, float, float]  # the weight of each place, what it counts, bias, threshold


def _sign(word: re.Match) -> str:
    return chr(_PRIVATE + zlib.crc32(word[0].encode()) % _MANY)


def ngrams(text: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns (a number for each unit of a text in plain spelling, 10 for an end of a sentence, also before and behind
    it; for each length of n-grams the places of those that begin at each unit).
    """
    text = _WORDS.sub(_sign, text).replace(" ", "")
    for end in _ENDS:
        text = text.replace(end, "\n")
    numbers = np.frombuffer(f"\n{text}\n".encode("utf-32-le"), np.uint32)
    keys, places = numbers * _MIX, []
    for length in range(1, min(LONGEST, len(numbers)) + 1):
        if length > 1:
            keys = (keys[:-1] ^ (keys[:-1] >> np.uint32(15))) * _MIX + numbers[length - 1 :]
        places.append((keys * _SPREAD) >> np.uint32(32 - BITS))
    return numbers, places


@lru_cache(1)
def _weights() -> Model:
    """Returns the model; raises BadInput for weights of another version."""
    try:
        with np.load(FILE) as data:
            if int(data["version"]) != VERSION:
                raise ValueError(f"version {int(data['version'])}, and this code reads {VERSION}")
            table = np.zeros(1 << BITS, np.int8)
            table[data["places"]] = data["weights"]
            return table, float(data["scale"]), float(data["bias"]), float(data["threshold"])
    except (OSError, KeyError, ValueError) as error:
        cure = f"git checkout data_pipeline/safety/{FILE.name}, or make it: data_pipeline/safety/train_crisis_model.py"
        raise BadInput(f"{FILE.name}: {error}; {cure}") from None


def scores(text: str, model: Model) -> list[float]:
    """Returns the score of each sentence of a text in plain spelling, and at last of the whole if that is short."""
    table, scale, bias, _ = model
    numbers, grams = ngrams(text)
    weights = np.zeros((LONGEST, len(numbers)), np.int32)
    for length, places in enumerate(grams):
        weights[length, : len(places)] = table[places]
    whole = weights.sum() if len(text) <= _TEXT else None
    ends = np.flatnonzero(numbers == _END)
    sizes = np.diff(ends)  # of sentences, each with the end before it; n-grams reach up to the end behind it
    left = np.repeat(ends[1:], sizes) - np.arange(len(numbers) - 1)  # units up to that end
    for length in range(2, LONGEST):
        weights[length, :-1][left < length] = 0
    total = np.add.reduceat(weights[:, :-1].sum(0), ends[:-1])
    if whole is not None:
        total, sizes = np.append(total, whole), np.append(sizes, len(numbers))
    count = 2 * sizes + np.maximum(sizes - 1, 0) + np.maximum(sizes - 2, 0)  # of n-grams
    return list(total * scale / np.sqrt(count) + bias)


def risky_sentences(text: str) -> list[tuple[int, int]]:
    """Returns start and end of the sentences of a text in plain spelling that the model marks, or of the whole text."""
    model = _weights()
    found = scores(text, model)
    if max(found) < model[3]:
        return []
    bounds = [match.span() for match in re.finditer(r"[^。!?;\n]*[。!?;\n]|[^。!?;\n]+$", text)]
    marked = [bounds[place] for place, score in enumerate(found[: len(bounds)]) if score >= model[3]]
    return marked or [(0, len(text))]
