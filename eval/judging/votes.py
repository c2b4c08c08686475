"""What each judge said, one by one: its figures, and the file of judgements that a run leaves.

A score of several judges is the mean over the judges of each one's mean over its repeats, and is missing where one of
them is: the judges that happen to be there may be the lenient ones.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

from eval import intervals
from eval.contract import Answered, Judgement, Scoring, Vote
from eval.judging.ratings import JUDGE, Rating
from eval.metrics import answer_part

COUNTS = ("votes", "unreadable", "refused", "failed", "without_quote", "quotes", "quotes_found", "tokens", "cost")
_BLANK = re.compile(r"\s+")


def combined(votes: Sequence[Vote]) -> Judgement:
    """Returns the judgement that the votes on one response make."""
    judges = list(dict.fromkeys(vote.judge for vote in votes))
    scores = {}
    for name in dict.fromkeys(name for vote in votes for name in vote.scores):
        means, whole = [], True
        for judge in judges:
            of_judge = [vote for vote in votes if vote.judge == judge and name in vote.scores]
            values = [value for vote in of_judge if (value := vote.scores[name]) is not None]
            means += [fmean(values)] if values else []
            whole &= bool(values) or any(vote.state == "read" for vote in of_judge)
        scores[name] = fmean(means) if means and whole else None
    return Judgement(scores, bool(votes) and all(vote.state == "failed" for vote in votes), tuple(votes))


def by_judge(
    answered: Sequence[Answered], scoring: Scoring, shown: Callable[[str], str] = str
) -> dict[str, dict[str, Any]]:
    """Returns of every judge COUNTS and "means" with intervals; a quote is found where the response, as it is `shown`,
    holds it, blanks apart.
    """
    figures: dict[str, dict[str, Any]] = {}
    values: dict[tuple[str, str], dict[str, list[float]]] = {}  # (judge, score) -> {item: votes}
    for one, text, judgement in _judged(answered, scoring):
        words = _plain(shown(text))
        for vote in judgement.votes:
            counts = figures.setdefault(vote.judge, dict.fromkeys(COUNTS, 0))
            counts["votes"] += 1
            counts["tokens"] += vote.tokens
            counts["cost"] = None if vote.cost is None else (counts["cost"] or 0.0) + vote.cost
            if vote.state != "read":
                counts[vote.state] += 1
                continue
            counts["without_quote"] += not vote.quotes
            counts["quotes"] += len(vote.quotes)
            counts["quotes_found"] += sum(_plain(quote) in words for quote in vote.quotes)
            for name, value in vote.scores.items():
                if value is not None:
                    values.setdefault((vote.judge, name), {}).setdefault(one.item.id, []).append(value)
    for judge, of_judge in figures.items():
        means = {name: [fmean(of) for of in items.values()] for (who, name), items in values.items() if who == judge}
        of_judge["means"] = {
            name: {"value": fmean(of), "interval": intervals.bootstrap(of, scoring.resamples, scoring.seed)}
            for name, of in means.items()
        }
    return figures


def _judged(answered: Sequence[Answered], scoring: Scoring) -> Iterator[tuple[Answered, str, Judgement]]:
    """Yields (item, answer part, judgement) of every response with votes."""
    for one in answered:
        for response, judgement in zip(one.responses, one.judgements or [], strict=False):
            if judgement and judgement.votes:
                yield one, answer_part(response, scoring.think_prefilled), judgement


def rows(answered: Sequence[Answered], system: str) -> list[dict[str, Any]]:
    """Returns one row per judge, repeat and score, in the columns of eval/judging/ratings.py, with its evidence."""
    return [
        {"item": one.item.id, "system": system, "sample": sample, "rater": vote.judge, "kind": JUDGE,
         "dimension": name, "value": value, "repeat": vote.repeat, "state": vote.state, "evidence": list(vote.quotes),
         "tokens": vote.tokens, "cost": vote.cost}
        for one in answered
        for sample, judgement in enumerate(one.judgements or [])
        for vote in (judgement.votes if judgement else ())
        for name, value in vote.scores.items()
        if value is not None or vote.state != "read"  # else the judge says that it cannot tell
    ]  # fmt: skip


def ratings(judged: Sequence[dict[str, Any]]) -> list[Rating]:
    """Returns the rows of `rows` as ratings."""
    return [
        Rating(row["item"], row["system"], str(row["sample"]), row["dimension"], row["rater"], row["value"],
               str(row["repeat"]), JUDGE)
        for row in judged
    ]  # fmt: skip


def _plain(text: str) -> str:
    return _BLANK.sub("", text)
