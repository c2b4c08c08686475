"""ROUGE and BLEU equal the packages that the papers used, on real texts and on odd ones."""

import logging
import random
import time
from typing import Any

import jieba
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from data_pipeline.records import Question
from data_pipeline.sources import cpsyexam as released
from data_pipeline.sources import pceb as benchmark
from eval.text_metrics import NAMES, score_texts, words

jieba.setLogLevel(logging.WARNING)

OWN = [
    ("先倾听来访者，再确认他的感受。", "先确认来访者的感受，再倾听。"),
    ("他说：“我睡不好！”然后沉默了很久……咨询师等着。", "他沉默了很久……后来说：“我睡不好！”咨询师等着。"),
    ("第一，安全。\n\n第二，信任。\n\n第三，边界？对！", "第一，信任。\n\n第二，安全。\n第三，边界？"),
    ("睡眠 日记，睡眠，睡眠，睡眠", "睡眠日记"),
    ("SCL-90 的 A.Ellis 用 3.5% 与 GPT-4o_mini......好", "SCL-90 与 A.Ellis，3.5%......不好"),
    ("The client sleeps badly, and worries.", "The client worries and sleeps badly."),
    ("好", "好"),
    ("好", "坏"),
    ("。。。", "。！"),
    ("焦虑", "他焦虑"),
    ("一二三", "一二三"),
]


def peers(response: str, reference: str) -> dict[str, Any]:
    """What LLaMA-Factory's ComputeSimilarity and EmoLLM's compute_metrics do with one pair, without rounding."""
    cut, cut_ref = " ".join(jieba.cut(response)), " ".join(jieba.cut(reference))
    rouge: Any = Rouge().get_scores(cut, cut_ref)[0]
    smoothing = SmoothingFunction()
    unspaced, unspaced_ref = (" ".join(jieba.cut(t.replace(" ", ""))).split(" ") for t in (response, reference))
    return {
        "rouge_1_set": 100 * rouge["rouge-1"]["f"],
        "rouge_2_set": 100 * rouge["rouge-2"]["f"],
        "rouge_l_set": 100 * rouge["rouge-l"]["f"],
        "bleu_4_char": 100 * sentence_bleu([list(reference)], list(response), smoothing_function=smoothing.method3),
        "bleu_4_word": 100 * sentence_bleu([unspaced_ref], unspaced, smoothing_function=smoothing.method1),
    }


def counted(response: str, reference: str) -> dict[str, float]:
    """ROUGE by its definition, slowly: list the n-grams, cross out what is matched, fill the LCS table."""
    a, b = ([w for w in jieba.lcut(t) if w.strip()] for t in (response, reference))
    scores = {}
    for n in (1, 2):
        grams, left = [a[i : i + n] for i in range(len(a) - n + 1)], [b[i : i + n] for i in range(len(b) - n + 1)]
        total, hits = len(left), 0
        for gram in grams:
            if gram in left:
                left.remove(gram)
                hits += 1
        scores[f"rouge_{n}_count"] = 200 * hits / (len(grams) + total) if hits else 0.0
    row = [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    scores["rouge_l_count"] = 200 * row[-1] / (len(a) + len(b))
    return scores


def assert_equal_to_peers(pairs: list[tuple[str, str]]) -> None:
    responses, references = zip(*pairs, strict=True)
    for (response, reference), ours in zip(pairs, score_texts(responses, references), strict=True):
        assert words(response) == jieba.lcut(response)
        assert tuple(ours) == NAMES
        assert all(0 <= value <= 100 + 1e-9 for value in ours.values())
        expected = {**peers(response, reference), **counted(response, reference)}
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, abs=1e-6), (name, response, reference)


def real_pairs(pceb, cpsyexam) -> list[tuple[str, str]]:
    """500 pairs: answers and rationales beside another question's, their own beginning, and their own, disturbed."""
    questions = [q for q in (*benchmark.read(pceb), *released.read(cpsyexam)) if isinstance(q, Question)]
    draw = random.Random(7)
    essays = [q.reference for q in questions if q.reference]
    others = [q.rationale for q in questions if q.rationale]
    texts = essays[:60] + draw.sample(others, 440)

    def disturbed(text: str) -> str:
        return "".join(c for c in text for _ in range(draw.choice((0, 1, 1, 1, 1, 2))) if c)

    pairs = []
    for i, text in enumerate(texts):
        kinds = (texts[i - 1], text[: max(1, len(text) // 2)], disturbed(text), f"一、{text[-40:]}\n\n二、{text[:80]}")
        pairs.append((kinds[i % 4] or text, text))
    return pairs


def test_own_pairs_equal_the_peers():
    assert_equal_to_peers(OWN)


def test_500_real_pairs_equal_the_peers(pceb, cpsyexam):
    pairs = real_pairs(pceb, cpsyexam)
    assert len(pairs) == 500
    assert_equal_to_peers(pairs)


def test_words_are_jiebas_on_real_texts(pceb, cpsyexam):
    questions = [q for q in (*benchmark.read(pceb), *released.read(cpsyexam)) if isinstance(q, Question)]
    joined = [q.rationale for q in questions if set(q.rationale) & set("-_.")][:300]  # where rjieba itself differs
    assert len(joined) == 300
    for text in joined:
        assert words(text) == jieba.lcut(text)


def test_sets_and_counts_are_different_numbers():
    scores = score_texts(["睡眠睡眠睡眠日记"], ["睡眠日记"])[0]
    assert scores["rouge_1_set"] == pytest.approx(100)
    assert scores["rouge_1_count"] == pytest.approx(100 * 2 * 0.5 / 1.5)


def test_a_blank_line_is_a_word_to_rouge_chinese_only():
    scores = score_texts(["甲\n\n\n乙"], ["丙\n\n\n丁"])[0]
    assert scores["rouge_1_count"] == 0
    assert scores["rouge_1_set"] > 0


@pytest.mark.parametrize(("response", "reference"), [("", "好"), ("好", ""), ("", ""), (" \n", "好"), ("\u3000", "\n")])
def test_an_empty_text_scores_zero(response, reference):
    assert set(score_texts([response], [reference])[0].values()) == {0.0}


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError):
        score_texts(["好"], [])


def test_a_very_long_text_takes_bounded_time():
    draw = random.Random(0)
    long = ["".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(50_000)) for _ in range(2)]
    started = time.perf_counter()
    scores = score_texts(long[:1], long[1:])[0]
    assert time.perf_counter() - started < 20  # the quadratic LCS of plain Python would take hours
    assert 0 < scores["rouge_1_count"] < 100
