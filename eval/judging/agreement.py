"""How far raters agree, people and judge models alike: kappa, alpha, bias, and how steady a judge is.

A table of ratings is an array of units x raters, NaN where a rater has not rated; a unit is one reply (or session) on
one dimension. `python -m launch.eval agreement FILES` prints these of files of ratings (eval/judging/ratings.py).

| figure | what it is |
|---|---|
| kappa | Cohen's, quadratic weights, of two raters on the units that both have rated (Cohen, Psychol. Bull. 70, 1968) |
| alpha | Krippendorff's with the interval metric, of any number of raters, any missing (Content Analysis, 2004) |
| intervals | 95 %, units resampled (eval/intervals.py); None where there is nothing to resample |

Both are 1 for full agreement, 0 for what chance alone gives, and None where all values are one.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eval import intervals
from eval.intervals import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES, SEED = 1000, 42  # ours


def quadratic_kappa(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, Interval | None]:
    """Returns (kappa, its interval) of two raters' values of the same units, none missing."""
    import numpy

    x, y = numpy.asarray(a, float), numpy.asarray(b, float)
    parts = numpy.stack([numpy.ones_like(x), (x - y) ** 2, x, x * x, y, y * y], axis=1)
    return _of_units(parts, _kappa)


def _kappa(sums: "NDArray") -> "NDArray":
    import numpy

    n, apart, x, xx, y, yy = numpy.moveaxis(sums, -1, 0)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        expected = xx / n + yy / n - 2 * (x / n) * (y / n)
        return numpy.where(expected > 1e-12, 1 - apart / n / expected, numpy.nan)


def alpha(table: "NDArray") -> tuple[float | None, Interval | None]:
    """Returns (alpha, its interval) of units x raters; units with fewer than two ratings say nothing."""
    import numpy

    rated = ~numpy.isnan(table)
    table, rated = table[rated.sum(axis=1) > 1], rated[rated.sum(axis=1) > 1]
    if not len(table):
        return None, None
    values = numpy.where(rated, table - table[rated].mean(), 0.0)  # far from 0 sums of squares lose their digits
    n, x, xx = rated.sum(axis=1), values.sum(axis=1), (values**2).sum(axis=1)
    return _of_units(numpy.stack([n, x, xx, (n * xx - x * x) / (n - 1)], axis=1), _alpha)


def _alpha(sums: "NDArray") -> "NDArray":
    """The interval metric needs no table of coincidences: squared distances of all pairs are n sum(x²) - (sum x)²."""
    import numpy

    n, x, xx, within = numpy.moveaxis(sums, -1, 0)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        between = n * xx - x * x
        return numpy.where(between > 1e-9 * n, 1 - (n - 1) * within / between, numpy.nan)


def _of_units(parts: "NDArray", statistic: Callable[["NDArray"], "NDArray"]) -> tuple[float | None, Interval | None]:
    """Returns the statistic of the sums of all units' parts, and its percentile interval, units resampled."""
    import numpy

    if not len(parts):
        return None, None
    value = float(statistic(parts.sum(axis=0)))
    if numpy.isnan(value):
        return None, None
    draw = numpy.random.default_rng(SEED)
    drawn = (numpy.bincount(draw.integers(0, len(parts), len(parts)), minlength=len(parts)) for _ in range(RESAMPLES))
    resampled = statistic(numpy.stack([times @ parts for times in drawn]))
    known = resampled[~numpy.isnan(resampled)]
    return value, intervals.percentiles(known) if len(parts) > 1 and len(known) > 0.95 * RESAMPLES else None


def levelled(table: "NDArray") -> "NDArray":
    """Returns the table without each rater's own level: their mean is taken off, so that only order is left."""
    import numpy

    rated = ~numpy.isnan(table)
    with numpy.errstate(invalid="ignore"):  # of a rater without ratings
        return table - numpy.where(rated, table, 0.0).sum(axis=0) / rated.sum(axis=0)


def bias(values: Sequence[float], against: Sequence[float]) -> tuple[float | None, Interval | None]:
    """Returns (mean of values - against, its interval), unit by unit: how much higher one rater stands than others."""
    gains = [v - a for v, a in zip(values, against, strict=True)]
    if not gains:
        return None, None
    return sum(gains) / len(gains), intervals.bootstrap(gains, RESAMPLES, SEED)


def stability(repeats: Sequence[Sequence[float]]) -> float | None:
    """Returns the share of units, of those rated twice or more by one rater, whose ratings are all the same."""
    several = [values for values in repeats if len(values) > 1]
    return sum(len(set(values)) == 1 for values in several) / len(several) if several else None
