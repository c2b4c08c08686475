"""ROUGE and BLEU of Chinese texts, under both ways of counting that the field uses. Everything is 0 to 100.

Two numbers called ROUGE-1 may differ by a third, so every name says how it counts:

- `rouge_1_set`, `rouge_2_set`, `rouge_l_set`: F of the `rouge-chinese` package, which LLaMA-Factory's SFT metric
  (`train/sft/metric.py`) prints. Words of jieba, *sets* of n-grams (a repeated word counts once), 1e-8 in the
  denominator. Its ROUGE-L is one LCS over all words, without sets; but a blank line counts as an empty word, in all
  three.
- `rouge_1_count`, `rouge_2_count`, `rouge_l_count`: F of ROUGE as defined (Lin 2004): clipped counts, plain LCS, the
  same words.
- `bleu_4_char`: LLaMA-Factory's BLEU-4: nltk's sentence BLEU over all characters, blanks too, smoothing method3.
- `bleu_4_word`: EmoLLM's BLEU-4 (`evaluate/metric.py`): nltk's sentence BLEU over jieba's words of the text without
  its spaces, smoothing method1 (epsilon 0.1).

Which of them PCEB's published table used is not known: its tokenisation is unpublished. A set of texts scores the
mean of its pairs.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NAMES = (
    "rouge_1_set", "rouge_2_set", "rouge_l_set", "rouge_1_count", "rouge_2_count", "rouge_l_count",
    "bleu_4_char", "bleu_4_word",
)  # fmt: skip

# rjieba keeps "SCL-90" and "A.Ellis" in one word, jieba does not: jieba's own pattern takes them apart.
_JOINED = re.compile(r"[a-zA-Z0-9][-_.]|[-_.][a-zA-Z0-9]")
_JIEBA_PIECE = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")

# Where rouge-chinese breaks a text into lines (`Rouge.cut_sent`), in its order.
_BREAKS = [
    re.compile(pattern)
    for pattern in ("([。！？?])([^”’])", r"(\.{6})([^”’])", "(…{2})([^”’])", "([。！？?][”’])([^，。！？?])")
]


def words(text: str) -> list[str]:
    """Returns the words of `text` as `jieba.lcut(text)` does, blanks among them."""
    import rjieba

    cut = rjieba.cut(text)
    if not _JOINED.search(text):
        return cut
    return [piece for word in cut for piece in (_pieces(word) if _JOINED.search(word) else (word,))]


def _pieces(word: str) -> list[str]:
    return [piece for piece in _JIEBA_PIECE.split(word) if piece]


def score_texts(responses: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
    """Returns one {name: 0 to 100} per pair, with the NAMES above; an empty or blank text scores 0 in all.

    The means of these are the figures that LLaMA-Factory (its `rouge-*` and `bleu-4`) and EmoLLM (`bleu_4`) print.
    Raises ValueError when the two lists differ in length.
    """
    numbers: dict[str, str] = {}
    prepared: dict[str, _Text] = {}  # a reference often stands beside several samples of a response
    scores = []
    for response, reference in zip(responses, references, strict=True):
        for text in (response, reference):
            if text not in prepared:
                prepared[text] = _prepare(text, numbers)
        scores.append(_score(prepared[response], prepared[reference]))
    return scores


@dataclass(slots=True)
class _Text:
    """A text and its words, one character for each word: n-grams and LCS of strings are the fastest there are."""

    chars: str
    words: str
    unspaced: str  # words of the text without its spaces, as EmoLLM takes them
    quirky: str  # words and empty words as rouge-chinese takes them
    kinds: tuple[int, int]  # how many different 1-grams and 2-grams are in `quirky`


def _prepare(text: str, numbers: dict[str, str]) -> _Text:
    def as_string(cut: list[str]) -> str:
        return "".join([numbers.get(w) or numbers.setdefault(w, chr(0xE000 + len(numbers))) for w in cut])

    cut = words(text)
    plain = [w for w in cut if not w.isspace()]
    string = as_string(plain)
    # Without blanks every line has a word; jieba's words hold none of 。！？…, so only dots break one in two.
    usual = len(plain) == len(cut) and "......" not in text
    quirky = string if usual else as_string(_rouge_chinese_words(cut))
    unspaced = as_string(words(text.replace(" ", ""))) if len(plain) < len(cut) else string
    kinds = len(set(quirky)), len({quirky[i : i + 2] for i in range(len(quirky) - 1)})
    return _Text(text, string, unspaced, quirky, kinds)


def _rouge_chinese_words(cut: list[str]) -> list[str]:
    text = " ".join(cut)
    for pattern in _BREAKS:
        text = pattern.sub(r"\1\n\2", text)
    lines = (line for line in text.rstrip().split("\n") if line)
    return [word for line in lines for word in (line.split() or [""])]


def _score(a: _Text, b: _Text) -> dict[str, float]:
    if not a.words or not b.words:
        return dict.fromkeys(NAMES, 0.0)
    matches = _matches(a.words, b.words)
    usual = a.unspaced == a.words and b.unspaced == b.words
    unspaced = matches if usual else _matches(a.unspaced, b.unspaced)
    return {
        **_rouge(a, b, matches),
        "bleu_4_char": _sentence_bleu(_matches(a.chars, b.chars), len(a.chars), len(b.chars), method=3),
        "bleu_4_word": _sentence_bleu(unspaced, len(a.unspaced), len(b.unspaced), method=1),
    }


def _rouge(a: _Text, b: _Text, matches: list[tuple[int, int]]) -> dict[str, float]:
    from rapidfuzz.distance import LCSseq

    lcs = LCSseq.similarity(a.words, b.words)
    quirky, quirky_lcs = matches, lcs
    if a.quirky != a.words or b.quirky != b.words:
        quirky, quirky_lcs = _matches(a.quirky, b.quirky, longest=2), LCSseq.similarity(a.quirky, b.quirky)
    n, m = len(a.words), len(b.words)
    return {
        "rouge_1_set": _f(quirky[0][1], a.kinds[0], b.kinds[0], epsilon=1e-8),
        "rouge_2_set": _f(quirky[1][1], a.kinds[1], b.kinds[1], epsilon=1e-8),
        "rouge_l_set": _f(quirky_lcs, len(a.quirky), len(b.quirky), epsilon=1e-8),
        "rouge_1_count": _f(matches[0][0], n, m),
        "rouge_2_count": _f(matches[1][0], n - 1, m - 1),
        "rouge_l_count": _f(lcs, n, m),
    }


def _f(overlap: int, of_response: int, of_reference: int, epsilon: float = 0.0) -> float:
    if not overlap:
        return 0.0
    precision, recall = overlap / of_response, overlap / of_reference
    return 100 * 2 * precision * recall / (precision + recall + epsilon)


def _matches(a: str, b: str, longest: int = 4) -> list[tuple[int, int]]:
    """Returns for n = 1 to `longest` how many n-grams both texts have: (clipped count, different ones)."""
    at_a, at_b = range(len(a)), range(len(b))
    a, b = a + "\0", b + "\1"  # unequal ends, so that no gram reaches over them
    common_grams = []
    for n in range(1, longest + 1):
        grams_a, grams_b = [a[i : i + n] for i in at_a], [b[i : i + n] for i in at_b]
        common = set(grams_a).intersection(grams_b)
        # only what begins with a common n-gram can begin a common one that is longer
        at_a = [i for i, gram in zip(at_a, grams_a, strict=True) if gram in common]
        at_b = [i for i, gram in zip(at_b, grams_b, strict=True) if gram in common]
        clipped = different = len(common)
        if len(at_a) > different and len(at_b) > different:  # repeated in both
            counts, counts_b = Counter([a[i : i + n] for i in at_a]), Counter([b[i : i + n] for i in at_b])
            clipped = sum([min(count, counts_b[gram]) for gram, count in counts.items()])
        common_grams.append((clipped, different))
    return common_grams


def _sentence_bleu(matches: list[tuple[int, int]], length: int, of_reference: int, method: int) -> float:
    """Returns nltk's `sentence_bleu` times 100, with its smoothing method1 or method3 (Chen and Cherry 2014)."""
    if not matches[0][0]:
        return 0.0
    logs, misses = 0.0, 0
    for n, (clipped, _) in enumerate(matches):
        if not clipped:
            misses += 1
            clipped = 0.1 if method == 1 else 0.5**misses
        logs += math.log(clipped / max(1, length - n)) / 4
    shorter = 1 - of_reference / length if length <= of_reference else 0.0
    return 100 * math.exp(shorter + logs)
