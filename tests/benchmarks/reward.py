"""Scores per second of the reward's two readings on one core, beside math_verify's string mode, and linearity.

python -m tests.benchmarks.reward [SECONDS]

math_verify twice: by `math_metric`, as verl's own reward calls it (it parses key and response for every score, under
its time limits), and at its barest, the key parsed before and no time limits. Each figure is the best of five
stretches of SECONDS (0.4 unless told), taken in turn. The bars: strict-match, by which the reward pays, 4 times either
of them on every shape, and 30,000/s on a thought of 1,000 characters with a short answer; linear up to 100,000
characters. math_verify reads no Chinese cue, hence the last shape; strict-match pays the first and the last alone.
"""

import logging
import sys
import time
from collections.abc import Callable

from math_verify import StringExtractionConfig, math_metric, parse, verify  # pyright: ignore[reportMissingImports]

from reward.psyche import compute_score

OPTIONS = {"options": ["视觉是人类最重要的感觉", "听觉", "思维", "想象"]}
TEXT = "来访者的问题与其早年经历有关，需要从认知、情绪与行为三个方面理解，其中核心是自动思维。"
STRINGS = (StringExtractionConfig(),)  # A to D
logging.getLogger("math_verify").setLevel(logging.ERROR)


def text(length: int) -> str:
    return (TEXT * (length // len(TEXT) + 1))[:length]


SHAPES = {
    "thought, short answer": f"<think>\n{text(977)}\n</think>\n\n答案：B",
    "short thought, long explanation": f"<think>\n{text(400)}\n</think>\n\n答案：B\n\n解析：{text(572)}",
    "no tags, answer last": f"解析：{text(992)}\n答案：B",
    "thought, English answer": f"<think>\n{text(972)}\n</think>\n\nAnswer: B",
}
METRIC = math_metric(STRINGS, STRINGS)
KEY = parse("B", STRINGS)


def strict(response: str) -> float:
    return compute_score("psyforge/table", response, "B", OPTIONS)["acc"]


def flexible(response: str) -> float:
    return compute_score("psyforge/table", response, "B", OPTIONS, reading="flexible_extract")["acc"]


def metric(response: str) -> float:
    return METRIC(["B"], [response])[0]


def barest(response: str) -> float:
    return float(verify(KEY, parse(response, STRINGS, parsing_timeout=None), timeout_seconds=None))  # pyright: ignore[reportArgumentType]


def rate(function: Callable[[str], float], response: str, seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        function(response)
        count += 1
    return count / spent


def main(seconds: float) -> None:
    for name, response in SHAPES.items():
        assert len(response) == 1000, (name, len(response))
        rounds = [[rate(f, response, seconds) for f in (strict, flexible, metric, barest)] for _ in range(5)]
        fast, wide, usual, bare = (max(column) for column in zip(*rounds, strict=True))
        right = ", ".join(f"{f(response):.0f}" for f in (strict, flexible, metric, barest))
        print(
            f"{name:32} strict-match {fast:7,.0f}/s   math_metric {usual:6,.0f}/s, {fast / usual:4.1f} times   "
            f"barest {bare:6,.0f}/s, {fast / bare:4.1f} times   flexible-extract {wide:6,.0f}/s   (right: {right})",
            flush=True,
        )
    for length in (1_000, 10_000, 100_000, 1_000_000):
        response = f"<think>{text(length)}</think>答案：B"
        each = 1 / max(rate(strict, response, seconds) for _ in range(5))
        print(f"thought of {length:9,} characters: {each * 1e6:7.1f} us a score by strict-match")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
