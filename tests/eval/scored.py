"""A benchmark's figures as metrics.json holds them, for tests that make their own items and responses."""

from collections.abc import Sequence

from data_pipeline.records import Response
from eval.contract import Item, Judgement, Scoring, find_benchmark
from eval.measure import measure, read_all, with_judgements


def figures(
    name: str,
    items: Sequence[Item],
    responses: list[list[Response]],
    judgements: list[list[Judgement | None]] | None = None,
    **scoring,
) -> dict:
    benchmark, how = find_benchmark(name, "benchmark"), Scoring(**{"resamples": 20, **scoring})
    answered = with_judgements(read_all(items, responses, how), judgements)
    return measure(benchmark, answered, how)[0].as_json()
