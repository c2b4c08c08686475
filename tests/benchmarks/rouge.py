"""How fast ROUGE and BLEU are, beside rouge-chinese with jieba and nltk in the same run, on the same pairs.

python -m tests.benchmarks.rouge [PCEB_FOLDER]
"""

import logging
import sys
import time
from pathlib import Path

import jieba
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from data_pipeline.records import Question
from data_pipeline.sources import pceb
from eval.text_metrics import _matches, _prepare, _rouge, score_texts
from tests.conftest import DATA

PAIRS = 300
BAR = 20  # times as fast as rouge-chinese with jieba


def peer_rouge(response: str, reference: str) -> None:
    Rouge().get_scores(" ".join(jieba.cut(response)), " ".join(jieba.cut(reference)))


def peer_bleu(response: str, reference: str) -> None:
    smoothing = SmoothingFunction()
    sentence_bleu([list(reference)], list(response), smoothing_function=smoothing.method3)
    sentence_bleu([jieba.lcut(reference)], jieba.lcut(response), smoothing_function=smoothing.method1)


def our_rouge(response: str, reference: str) -> None:
    numbers: dict[str, str] = {}
    a, b = _prepare(response, numbers), _prepare(reference, numbers)
    _rouge(a, b, _matches(a.words, b.words, longest=2))


def ours(response: str, reference: str) -> None:
    score_texts([response], [reference])  # pair by pair, so that no text's words are kept for the next


def seconds(function, pairs: list[tuple[str, str]], rounds: int) -> float:
    """Returns the shortest of `rounds` durations over all pairs."""
    durations = []
    for _ in range(rounds):
        started = time.perf_counter()
        for pair in pairs:
            function(*pair)
        durations.append(time.perf_counter() - started)
    return min(durations)


def compare(name: str, pairs: list[tuple[str, str]]) -> float:
    """Prints the speeds on `pairs` and returns the ratio of ROUGE alone."""
    rouge, all_of_it = seconds(our_rouge, pairs, 5), seconds(ours, pairs, 5)
    theirs, bleu = seconds(peer_rouge, pairs, 2), seconds(peer_bleu, pairs, 2)
    length = sum(len(r) + len(g) for r, g in pairs) / 2 / len(pairs)
    print(f"{name}: {len(pairs)} pairs of {length:.0f} characters")
    print(f"  ROUGE: ours {len(pairs) / rouge:,.0f} pairs/s, rouge-chinese and jieba {len(pairs) / theirs:,.0f}")
    print(f"  with both BLEU-4: ours {len(pairs) / all_of_it:,.0f}, theirs {len(pairs) / (theirs + bleu):,.0f} (nltk)")
    print(f"  ratio: ROUGE {theirs / rouge:.1f} (bar: {BAR}), with BLEU {(theirs + bleu) / all_of_it:.1f}")
    return theirs / rouge


def main(folder: Path) -> None:
    questions = [q for q in pceb.read(folder) if isinstance(q, Question)]
    essays = [q.reference for q in questions if q.reference]
    rationales = [q.rationale for q in questions if q.rationale]
    ours("词典", "词典")  # both dictionaries are loaded before the clock runs
    jieba.setLogLevel(logging.WARNING)
    jieba.lcut("词典")
    # model answers of PCEB's case questions are what PCEB's ROUGE is about; rationales are shorter
    ratio = compare("case answers", [(essays[i - k], essays[i]) for k in (1, 2, 3) for i in range(len(essays))][:PAIRS])
    compare("rationales", list(zip(rationales[PAIRS : 2 * PAIRS], rationales[:PAIRS], strict=True)))
    sys.exit(ratio < BAR)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "pceb")
