"""A judge model's scores of responses: asked once each, kept in the ledger, read, and missing where they are missing.

A request that failed is asked again by the next run; a reply that cannot be read is a result. Neither is a number.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import llm
from data_pipeline.errors import BadInput
from eval.contract import Answered, Benchmark, Judge, Judgement, Scoring
from eval.metrics import answer_part


def ask_judge(
    benchmark: Benchmark, answered: Sequence[Answered], server: llm.Server, ledger: Path, name: str, scoring: Scoring
) -> list[list[Judgement | None]]:
    """Returns a judgement for every response that the benchmark's judge is asked about, None for the others.

    Not asked about are responses without an answer part. Raises BadInput as `llm.run_all`, and for a reader that gives
    other scores than the judge has.
    """
    judge = benchmark.judge
    judged: list[list[Judgement | None]] = [[None] * len(one.responses) for one in answered]
    if judge is None:
        return judged
    requests, places = [], []
    params = {**judge.params, "seed": scoring.seed}
    for n, one in enumerate(answered):
        for k, response in enumerate(one.responses if judge.wants(one.item) else []):
            if answer := answer_part(response, scoring.think_prefilled):
                messages = judge.messages(one.item, answer)
                requests.append(llm.Request(f"judge/{name}", one.item.id, k, messages, params))
                places.append((n, k))
    if not requests:
        return judged
    for (n, k), reply in zip(places, llm.run_all(server, requests, ledger, f"judging {name}"), strict=True):
        failed = reply.finish == "failed"
        judged[n][k] = Judgement(dict.fromkeys(judge.scores) if failed else _read(benchmark, judge, reply.text), failed)
    return judged


def _read(benchmark: Benchmark, judge: Judge, text: str) -> dict[str, float | None]:
    scores = dict(judge.read(text))
    if set(scores) != set(judge.scores):
        raise BadInput(
            f"benchmark {benchmark.name}: the judge's reader gives {', '.join(scores) or 'nothing'}, its scores are "
            f"{', '.join(judge.scores)}; it gives all of them, None for one that cannot be read"
        )
    return scores


def judge_scores(one: Answered, names: Sequence[str], unanswered: float = 0.0) -> list[dict[str, float | None]]:
    """Returns the judge's scores of each response to an item, None where missing, all None without a judge.

    A response without an answer part, a failed one among them, is worth `unanswered`: there was nothing to judge.
    """
    if one.judgements is None:
        return [dict.fromkeys(names) for _ in one.responses]
    return [
        dict(judgement.scores) if judgement else dict.fromkeys(names, unanswered) for judgement in one.judgements
    ]  # fmt: skip
