"""A linear model over the n-grams of a sentence, for what speaks of a crisis without a word that rules could name.

A unit is a Chinese character, a Latin word or a sign; an n-gram is one to four of them. The weights,
`crisis_model.npz`, are made by `train_crisis_model.py`, which says of what.
"""

import re
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.errors import BadInput

VERSION, LONGEST, BITS = 3, 4, 22  # of the n-grams; units of one; bits of its place in the table, which a few share
FILE = Path(__file__).parent / "crisis_model.npz"
_WORDS = re.compile(r"[a-z'0-9](?:(?<=[a-z'])[a-z']+|(?<=[0-9])[0-9]+)")  # two of a kind or more
_ENDS, _END = ("。", "!", "?", ";"), 10  # a new line is what each of them counts as
_PRIVATE, _MANY = 0xF0000, 0x1FFF0  # code points that stand for words, and how many
_TEXT = 160  # characters of a text that is read as one, besides its sentences
_MIX, _SPREAD = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)
Model = tuple[np.ndarray, float, float, float]  # the weight of each place, what it counts, bias, threshold


def _sign(word: re.Match) -> str:
    return chr(_PRIVATE + zlib.crc32(word[0].encode()) % _MANY)


def ngrams(texts: Iterable[str]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Returns (a number for each unit of texts in plain spelling, 10 for an end of a sentence and around each text; for
    each length of n-grams the places of those that begin at each unit; where each text begins, and the last ends).
    """
    text = _WORDS.sub(_sign, "\0".join(["", *texts, ""])).replace(" ", "")
    for end in _ENDS:
        text = text.replace(end, "\n")
    numbers = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    borders, numbers = np.flatnonzero(numbers == 0), np.maximum(numbers, _END)
    keys, places = numbers * _MIX, []
    for length in range(1, LONGEST + 1):
        if length > 1:
            keys = (keys[:-1] ^ (keys[:-1] >> np.uint32(15))) * _MIX + numbers[length - 1 :]
        places.append((keys * _SPREAD) >> np.uint32(32 - BITS))
    return numbers, places, borders


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


def scores(texts: list[str], model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (the best score of each text in plain spelling, its sentences' or, of a short one, its own; the scores of
    all sentences; the place of the first of each text among them).
    """
    numbers, grams, borders = ngrams(texts)
    weights = np.zeros((LONGEST, len(numbers)), np.int16)
    for length, places in enumerate(grams):
        weights[length, : len(places)] = model[0][places]
    ends = np.flatnonzero(numbers == _END)
    of_sentences = _score(_sums(weights, ends), np.diff(ends), model)
    whole = _score(_sums(weights, borders) + weights[0, borders[1:]], np.diff(borders) + 1, model)
    first = np.searchsorted(ends, borders[:-1])
    whole[np.fromiter(map(len, texts), int) > _TEXT] = -np.inf
    return np.maximum(np.maximum.reduceat(of_sentences, first), whole), of_sentences, first


def _sums(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the sum of weights between each two ends, the first of them included; n-grams reach up to the second."""
    left = np.repeat(ends[1:], np.diff(ends)) - np.arange(ends[-1])  # units up to that end
    inside = [np.where(left < length, 0, weights[length, : ends[-1]]) for length in range(2, LONGEST)]
    return np.add.reduceat(sum(inside, weights[0, : ends[-1]] + weights[1, : ends[-1]]), ends[:-1], dtype=np.int64)


def _score(total: np.ndarray, sizes: np.ndarray, model: Model) -> np.ndarray:
    count = 2 * sizes + np.maximum(sizes - 1, 0) + np.maximum(sizes - 2, 0)  # of n-grams of so many units
    return total * model[1] / np.sqrt(count) + model[2]


def risky_sentences(texts: list[str]) -> list[list[tuple[int, int]]]:
    """Returns start and end of the sentences of each text in plain spelling that the model marks, or of the whole."""
    marked: list[list[tuple[int, int]]] = [[] for _ in texts]
    best, of_sentences, first = scores(texts, _weights()) if texts else ([], [], [])
    for place in np.flatnonzero(np.asarray(best) >= _weights()[3]):
        bounds = [match.span() for match in re.finditer(r"[^。!?;\n]*[。!?;\n]|[^。!?;\n]+$", texts[place])]
        found = zip(bounds, of_sentences[first[place] :], strict=False)
        marked[place] = [span for span, score in found if score >= _weights()[3]] or [(0, len(texts[place]))]
    return marked
