"""Paired differences between two lists of responses to the same items: what report and `compare` both tell."""

from collections.abc import Sequence

from eval import intervals, metrics
from eval.figures import ACCURACY, Difference
from eval.responses import Row

RESAMPLES, SEED = 10_000, 42  # one number for everybody, so that one pair has one interval; ours


def by_item(rows: Sequence[Row], score: str) -> dict[str, list[float]]:
    """Returns {item id: values of the samples that have the score}; accuracy is of questions that have a key."""
    values: dict[str, list[float]] = {}
    for row in rows:
        known = row.has_letters and row.key
        value = (row.acc if known else None) if score == ACCURACY else row.scores.get(score)
        if value is not None:
            values.setdefault(row.id, []).append(value)
    return values


def differences(before: Sequence[Row], after: Sequence[Row], cells: bool = False) -> list[Difference]:
    """Returns the difference of every score that both have, over the set and, with `cells`, in each of its cells.

    Items without a value on one side are left out: `items` says how many there were.
    """
    names = dict.fromkeys([ACCURACY, *(name for row in before for name in row.scores)])
    result = []
    for cell in [None, *(dict.fromkeys(row.cell for row in before) if cells else ())]:
        for name in names:
            first, second = (by_item([r for r in rows if cell in (None, r.cell)], name) for rows in (before, after))
            common = [id for id in first if id in second]
            if common:
                a, b = ([metrics.mean_of(of[i]) for i in common] for of in (first, second))
                samples = min(len(of[i]) for of in (first, second) for i in common) if name == ACCURACY else None
                means = metrics.mean_of(a), metrics.mean_of(b)
                low, high = intervals.paired(a, b, RESAMPLES, SEED, samples) or (None, None)
                result.append(Difference(name, cell, len(common), *means, means[1] - means[0], low, high))
    return result
