"""Advertisements in posts and replies: sentences that sell something to whoever reads.

No word decides: therapy and trade share attend, scan, free, course, contact, and people tell of what they bought. What
holds a word of trade (`advertisements.yaml`) is weighed by a linear model of characters, pairs of characters and first
characters of clauses, all numbers as one, and the number of those words.
Its weights (`advertisement_weights.tsv`) are learned from written examples, and measured on those of another hand than
it was fitted to, by `python -m tests.benchmarks.advertisements`.
"""

import re
from functools import lru_cache
from itertools import accumulate
from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.safety.screening import Span

HERE = Path(__file__).parent

BIAS = "bias"  # the row of the weights that is no gram
SHORT = 30  # grams below which a text tells less for being shorter; ours
SHORTEST = 10  # characters of an advertisement; ours
MOST = 4  # words of trade of a text that are counted; ours
_NUMBER = re.compile(r"\d+(?:\.\d+)?|[一二两三四五六七八九十百千万几半]+")
_FIRST = re.compile(r"(?:^|[，。！？、,!?\s])([^，。！？、,!?\s])")
_SENTENCE = re.compile(r"[^。！？!?\n；;…]*[。！？!?\n；;…]*")


def advertisement_needs() -> list[str]:
    """Returns patterns for `screen`: a text without any of them has no advertisement."""
    lines = yaml.safe_load((HERE / "advertisements.yaml").read_text(encoding="utf-8"))["words"].split("\n")
    return ["|".join(lines)]


@lru_cache(1)
def _words() -> Any:
    """Returns the pattern of the words of trade, RE2's."""
    import re2

    options = re2.Options()
    options.case_sensitive = False
    return re2.compile(advertisement_needs()[0], options)


@lru_cache(1)
def _weights() -> dict[str, float]:
    lines = (HERE / "advertisement_weights.tsv").read_text(encoding="utf-8").splitlines()
    return {gram: float(weight) for gram, weight in (line.rsplit("\t", 1) for line in lines)}


def grams(text: str) -> set[str]:
    """Returns what the model weighs in `text`: characters, pairs of them, the first of each clause with a ^, and words
    of trade as counts, #1 to #4.
    """
    trade = len(set(_words().findall(text)))
    text = _NUMBER.sub("0", text.lower())
    weighed = {*text, *map("".join, zip(text, text[1:], strict=False)), *(f"^{char}" for char in _FIRST.findall(text))}
    return weighed.union(f"#{count}" for count in range(1, min(trade, MOST) + 1))


def score(text: str) -> float:
    """Returns the log-odds that the whole of `text` is an advertisement."""
    return _evidence(text) / _size(len(grams(text)))


def _size(count: int) -> float:
    return sqrt(max(SHORT, count))


def _evidence(sentence: str) -> float:
    """Returns what a sentence adds to a run of sentences."""
    weights, weighed = _weights(), grams(sentence)
    return sum([weights[gram] for gram in weighed & weights.keys()]) + weights[BIAS] * _size(len(weighed))


def find_advertisements(text: str) -> list[Span]:
    """Returns the advertisements in `text` in order, each a run of whole sentences that begins and ends with one that
    holds a word of trade.
    """
    given, text = text, text.encode("utf-8", "replace").decode()  # halves of a character, as broken JSON leaves them
    places = [match.start() for match in _words().finditer(text)]
    if not places:
        return []
    sentences = [match.span() for match in _SENTENCE.finditer(text) if match[0]]
    trading = [any(start <= place < end for place in places) for start, end in sentences]
    sold = {number: _evidence(text[slice(*sentences[number])]) for number, trades in enumerate(trading) if trades}
    if max(sold.values()) <= 0:
        return []
    evidence = [sold[n] if n in sold else _evidence(text[slice(*sentence)]) for n, sentence in enumerate(sentences)]
    runs = _runs(evidence, trading)
    spans = [(sentences[first][0], sentences[last][1]) for first, last in runs]
    spans = [(start, end) for start, end in spans if end - start >= SHORTEST and score(text[start:end]) > 0]
    return [Span(start, end, "ad", given[start:end], "advertisement") for start, end in spans]


def _runs(evidence: list[float], trading: list[bool], at: int = 0) -> list[tuple[int, int]]:
    """Returns (first, last) sentence, counted from `at`, of the run with most evidence and of those beside it."""
    if not evidence or max(evidence) <= 0:
        return []
    sums = [0.0, *accumulate(evidence)]
    lowest = list(accumulate(range(len(sums)), lambda least, to: to if sums[to] < sums[least] else least))
    last = max(range(1, len(sums)), key=lambda to: sums[to] - sums[lowest[to - 1]])
    first = lowest[last - 1]
    traded = [number for number in range(first, last) if trading[number]]
    run = [(at + traded[0], at + traded[-1])] if traded else []
    before = _runs(evidence[:first], trading[:first], at)
    return [*before, *run, *_runs(evidence[last:], trading[last:], at + last)]
