"""Advertisements in posts and replies: sentences that sell something to whoever reads.

No word decides: therapy and trade share attend, scan, free, course, contact, and people tell of what they bought. A
sentence in which a sign of trade stands (`advertisement_signs.txt`: words, and pairs of them, that stand in
advertisements far more often than elsewhere) is weighed by a linear model of words and pairs of words; of Chinese each
character is a word; numbers are one, and so are addresses. Signs and weights (`advertisement_weights.tsv`) are learned
from written examples, in Chinese and English, by `python -m tests.benchmarks.advertisements fit`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from math import sqrt
from pathlib import Path

from data_pipeline.safety.screening import Span

HERE = Path(__file__).parent
SIGNS, WEIGHTS = HERE / "advertisement_signs.txt", HERE / "advertisement_weights.tsv"

BIAS = "bias"  # the row of the weights that is no gram
SHORT = 30  # grams below which a text tells less for being shorter; ours
SHORTEST = 7  # characters of an advertisement; ours
LEAST = 2  # signs of an advertisement; ours
ADDRESS, NUMBER = "@", "0"  # stand for all of them
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]+@[\w.-]+|[a-z_]+-?\d[\w-]*|\d[\d -]{3,}\d", re.ASCII)
_LATIN = re.compile("[a-z0-9'_@]")  # without one of them each character is a word, and nothing an address
_DIGITS = "一二两三四五六七八九十百千万几半"
_NUMBER = re.compile(rf"\d+(?:[.,]\d+)*|[{_DIGITS}]+")
_WORD = re.compile(r"[a-z']+|\S")
_QUOTED = re.compile(r"\"[^\"\n]*\"|[“「『][^“”「」『』\n]*[”」』]")
_CLAUSES = re.compile(r"[，,。！!？?；;]")
_END = re.compile(r"[。！？!?\n；;…]+|\.(?!\S) *")


@lru_cache(1)
def _weights() -> dict[str, float]:
    lines = WEIGHTS.read_text(encoding="utf-8").splitlines()
    return {gram: float(weight) for gram, weight in (line.rsplit("\t", 1) for line in lines)}


@lru_cache(1)
def _automaton() -> tuple[Callable[..., list[tuple[int, int, int]]], list[int]]:
    """Returns what finds words in a text, and the sign of each word; one with a number has a word for each digit."""
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    words, sign_of = [], []
    for number, sign in enumerate(SIGNS.read_text(encoding="utf-8").splitlines()):
        parts = sign.split(" ")
        digits = f"{_DIGITS}0123456789" if NUMBER in parts else NUMBER
        spelled = [_joined([digit if part == NUMBER else part for part in parts]) for digit in digits]
        words += dict.fromkeys(word.encode() for word in spelled)
        sign_of += [number] * (len(words) - len(sign_of))
    return BytesAhoCorasick(words, implementation=Implementation.DFA).find_matches_as_indexes, sign_of


def signs_in(text: str) -> set[tuple[int, int]]:
    """Returns (sign, its place) of the signs of trade in `text`; with fewer than LEAST it has no advertisement."""
    find, sign_of = _automaton()
    content = text.encode("utf-8", "replace").lower()  # of half a character, as broken JSON escapes leave it, one byte
    found = find(content, overlapping=True)  # in bytes, without a table of the places of characters
    if len(found) < LEAST:
        return set()
    place, at, places = 0, 0, {}
    for start in sorted({start for _, start, _ in found}):
        place += len(content[at:start].decode())
        at, places[start] = start, place
    return {(sign_of[word], places[start]) for word, start, _ in found}


def _joined(words: list[str]) -> str:
    """Returns the words with a blank between two of Latin letters."""
    text = words[0]
    for word in words[1:]:
        latin = text[-1].isascii() and text[-1].isalpha() and word[0].isascii() and word[0].isalpha()
        text += f" {word}" if latin else word
    return text


def grams(text: str) -> set[str]:
    """Returns what the model weighs in `text`: words, and pairs of words that stand side by side."""
    text = text.lower()
    latin = _LATIN.search(text)
    text = _NUMBER.sub(NUMBER, _ADDRESS.sub(f" {ADDRESS} ", text) if latin else text)
    words = _WORD.findall(text) if latin else list("".join(text.split()))
    return {*words, *map(" ".join, zip(words, words[1:], strict=False))}


def score(text: str) -> float:
    """Returns the log-odds that the whole of `text` is an advertisement."""
    return _evidence(text) / _size(len(grams(text)))


def _size(count: int) -> float:
    return sqrt(max(SHORT, count))


def _evidence(sentence: str) -> float:
    """Returns what a sentence adds to a run of sentences."""
    weights, weighed = _weights(), grams(sentence)
    return sum([weights[gram] for gram in weighed if gram in weights]) + weights[BIAS] * _size(len(weighed))


def find_advertisements(text: str) -> list[Span]:
    """Returns the advertisements in `text` in order, each a run of whole sentences that begins and ends with one that
    holds a sign of trade.
    """
    signs = signs_in(text)
    if len(signs) < LEAST:
        return []
    whole, text = text, _QUOTED.sub(_unless_told, text)
    if text != whole and len(signs := signs_in(text)) < LEAST:
        return []
    ends = [match.end() for match in _END.finditer(text)]
    ends += [len(text)] if not ends or ends[-1] < len(text) else []
    sentences = list(zip([0, *ends], ends, strict=False))
    trading = {bisect_right(ends, place) for _, place in signs}
    sold = {number: _evidence(text[slice(*sentences[number])]) for number in trading}
    if max(sold.values()) <= 0:
        return []
    first, last = min(trading), max(trading)
    sentences = sentences[first : last + 1]  # of others none is part of a run
    evidence = [
        sold[n] if n in sold else _evidence(text[slice(*sentence)]) for n, sentence in enumerate(sentences, first)
    ]
    runs = _runs(evidence, [n in trading for n in range(first, last + 1)])
    spans = []
    for first, last in runs:
        start, end = sentences[first][0], sentences[last][1]
        held = {sign for sign, place in signs if start <= place < end}
        if end - start >= SHORTEST and len(held) >= LEAST and (first == last or score(text[start:end]) > 0):
            spans.append(Span(start, end, "ad", whole[start:end], "advertisement"))
    return spans


def _unless_told(quoted: re.Match) -> str:
    """Returns blanks for what is quoted behind words that tell of it, if it is more than a name: with that nobody sells
    to whoever reads. Any other as it stands.
    """
    told = quoted.string[: quoted.start()].rstrip()[-1:].isalnum() and _CLAUSES.search(quoted[0])
    return " " * len(quoted[0]) if told else quoted[0]


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
