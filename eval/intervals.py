"""95 % intervals of what an evaluation tells. None where there is none: of one item, and of values without any spread.

| of | interval |
|---|---|
| a share of items, one sample each | Wilson's |
| shares with several samples an item, partial credit | Wilson's, with the size that the spread between items leaves |
| averages of cells | items resampled within their cell; a cell without spread brings Wilson's |
| scores without bounds (a judge's, ROUGE, BLEU) | items resampled |
| a paired difference of 0 and 1 | Tango's score interval |
| any other paired difference | items resampled; in accuracy not narrower than Tango's of equal pairs |
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

Interval = tuple[float, float]
Z = NormalDist().inv_cdf(0.975)


def wilson(share: float, size: float) -> Interval:
    """Returns Wilson's score interval (JASA 22, 1927) of a share of `size` items, which may be a fraction."""
    middle, total = share + Z * Z / (2 * size), 1 + Z * Z / size
    half = Z * math.sqrt(share * (1 - share) / size + (Z / (2 * size)) ** 2)
    low, high = (middle - half) / total, (middle + half) / total
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def of_share(values: Sequence[float], samples: float = math.inf) -> Interval | None:
    """Returns the interval of the mean of values in [0, 1], one an item, each the mean over its samples.

    Samples of an item are alike, so that items are what counts: the interval is Wilson's with the size n at which
    share (1 - share) / n is the variance of the mean, as survey statistics has it for clusters (Dean and Pagano, J.
    Surv. Stat. Methodol. 3, 2015). Of zeros and ones that is the number of items, and the interval Wilson's own. It is
    never less, and with `samples` never more than the number of responses; without spread it is the number of items.
    """
    items = len(values)
    if items < 2:
        return None
    share = fmean(values)
    spread = fmean((value - share) ** 2 for value in values)
    size = items * share * (1 - share) / spread if spread > 1e-12 else items
    return wilson(share, max(items, min(size, items * samples)))


def bootstrap(values: Sequence[float], resamples: int, seed: int) -> Interval | None:
    """Returns the percentile interval of the mean of `values`, items being resampled."""
    return percentiles(_resampled(values, resamples, [seed])) if _has_spread(values) else None


def average(
    groups: Sequence[Sequence[float]], resamples: int, seed: int, by_items: bool = False
) -> tuple[float | None, Interval | None]:
    """Returns (mean of the groups' means, its interval), of values in [0, 1]; (None, None) when any group is empty.

    Every group counts the same, or, `by_items`, as much as it has items. Items are resampled within their group. In a
    group whose items are all alike there is nothing to resample: the distances of its Wilson interval are added in
    squares (Zou and Donner, Stat. Med. 27, 2008).
    """
    if not groups or not all(groups):
        return None, None
    sizes = [len(group) if by_items else 1 for group in groups]
    weights = [size / sum(sizes) for size in sizes]
    value = sum(size * fmean(group) for size, group in zip(sizes, groups, strict=True)) / sum(sizes)
    if sum(map(len, groups)) < 2:
        return value, None
    resampled, below, above = 0, 0.0, 0.0
    for n, (weight, group) in enumerate(zip(weights, groups, strict=True)):
        if _has_spread(group):
            resampled = resampled + weight * (_resampled(group, resamples, [seed, n]) - fmean(group))
        else:
            low, high = wilson(group[0], len(group))
            below, above = below + (weight * (group[0] - low)) ** 2, above + (weight * (high - group[0])) ** 2
    low, high = (0.0, 0.0) if isinstance(resampled, int) else percentiles(resampled)
    return value, (max(0.0, value - math.sqrt(low**2 + below)), min(1.0, value + math.sqrt(high**2 + above)))


def paired(
    before: Sequence[float], after: Sequence[float], resamples: int, seed: int, samples: float | None = None
) -> Interval | None:
    """Returns the interval of the mean gain of the same items; never a point, None where nothing says how wide.

    `samples` says that the values are shares of so many samples, as accuracy is. Zeros and ones then have Tango's
    interval. Others are resampled, and each end is at least as far off as Tango's of as many pairs that do not differ.
    """
    gains = [b - a for a, b in zip(before, after, strict=True)]
    if len(gains) < 2:
        return None
    if samples is None:
        return bootstrap(gains, resamples, seed)
    if {*before, *after} <= {0, 1}:
        return tango(gains.count(1), gains.count(-1), len(gains))
    gain, floor = fmean(gains), tango(0, 0, round(len(gains) * samples))[1]
    low, high = bootstrap(gains, resamples, seed) or (gain, gain)
    return min(low, gain - floor), max(high, gain + floor)


def tango(better: int, worse: int, pairs: int) -> Interval:
    """Returns Tango's score interval (Stat. Med. 17, 1998) of (better - worse) / pairs.

    It leaves out 0 exactly where McNemar's test without correction rejects, and is wider than a point without any pair
    that differs.
    """

    def score(gain: float) -> float:
        """Returns how many standard errors the pairs stand above a true difference of `gain`."""
        linear = (2 * pairs - better + worse) * gain - better - worse
        root = math.sqrt(max(0.0, linear * linear + 8 * pairs * worse * gain * (1 - gain)))
        downs = (root - linear) / (4 * pairs)  # the likeliest share of pairs that get worse
        variance = pairs * (2 * downs + gain * (1 - gain))
        return (better - worse - pairs * gain) / math.sqrt(variance) if variance > 0 else 0.0

    estimate = (better - worse) / pairs
    return _crossing(score, -1.0, estimate, Z), _crossing(score, estimate, 1.0, -Z)


def _crossing(score, low: float, high: float, level: float) -> float:
    """Returns where the score, which falls from `low` to `high`, crosses the level."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > level else (low, middle)
    return (low + high) / 2


def _has_spread(values: Sequence[float]) -> bool:
    return bool(values) and max(values) - min(values) > 1e-12


def _resampled(values: Sequence[float], resamples: int, seed: Sequence[int]):
    """Returns the means of `resamples` draws with replacement from `values`, as an array."""
    import numpy  # here, so that the light rooms stay light

    array, draw = numpy.asarray(values, dtype=float), numpy.random.default_rng(seed)
    block = max(1, 4_000_000 // len(array))  # draws at a time: at most 32 MB
    return numpy.concatenate(
        [
            array[draw.integers(0, len(array), (min(block, resamples - start), len(array)))].mean(axis=1)
            for start in range(0, resamples, block)
        ]
    )


def percentiles(means) -> Interval:
    ordered = sorted(means)
    return float(ordered[int(0.025 * len(ordered))]), float(ordered[max(0, int(0.975 * len(ordered)) - 1)])
