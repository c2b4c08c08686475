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

VERSION, LONGEST, BITS = 2, 4, 22  # of the n-grams; units of one; bits of its place in the table, which a few share
FILE = Path(__file__).parent / "crisis_model.npz"
_UNIT = re.compile(r"[a-z']+|[0-9]+|\n|[^\s]")
_END = frozenset("。!?;\n")
_TEXT = 160  # characters of a text that is read as one, besides its sentences
_MIX = np.uint64(0x9E3779B97F4A7C15)
Model = tuple[np.ndarray, float, float, float]  # the weight of each place, what it counts, bias, threshold


@lru_cache(1 << 16)
def _number(unit: str) -> int:
    return 10 if unit in _END else ord(unit) if len(unit) == 1 else zlib.crc32(unit.encode()) + 0x200000


def ngrams(text: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns (a number for each unit of a text in plain spelling, 10 for an end of a sentence, also before and behind
    it; for each length of n-grams the places of those that begin at each unit).
    """
    numbers = np.array([10, *map(_number, _UNIT.findall(text)), 10], np.uint64)
    keys, made = numbers * _MIX, []
    for length in range(1, min(LONGEST, len(numbers)) + 1):
        if length > 1:
            keys = (keys[:-1] ^ (keys[:-1] >> np.uint64(29))) * _MIX + numbers[length - 1 :]
        made.append((keys ^ (keys >> np.uint64(31))) & np.uint64((1 << BITS) - 1))
    return numbers, made


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
    ends = np.flatnonzero(numbers == 10)
    starts, ends = ends[:-1], ends[1:] + 1  # an end belongs to both sentences
    if len(ends) > 1 and len(text) <= _TEXT:
        starts, ends = np.append(starts, 0), np.append(ends, len(numbers))
    total, count = np.zeros(len(ends)), np.zeros(len(ends))
    for length, places in enumerate(grams):
        sums = np.concatenate([[0], np.cumsum(table[places], dtype=np.float64)])
        first = np.minimum(starts, len(places))
        last = np.maximum(ends - length, first)
        total += sums[last] - sums[first]
        count += last - first
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
