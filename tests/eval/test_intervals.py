"""Intervals hold what they should as often as they say, and none is a point."""

import itertools
import math
import random

import pytest
from scipy.stats import binom, binomtest

from eval import intervals


@pytest.mark.parametrize("size", [1, 2, 7, 20, 33, 1143])
def test_a_share_of_items_has_wilsons_interval_as_scipy_gives_it(size):
    for right in {0, 1, size // 3, size // 2, size - 1, size}:
        theirs = binomtest(right, size).proportion_ci(method="wilson")
        assert intervals.wilson(right / size, size) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        ours = intervals.of_share([1.0] * right + [0.0] * (size - right), 1)
        assert ours == (None if size == 1 else pytest.approx((theirs.low, theirs.high), abs=1e-9))
        assert ours is None or ours[0] < ours[1]


@pytest.mark.parametrize("size", [20, 21, 25, 33, 50, 100, 400])
def test_wilsons_interval_covers_the_share_as_often_as_it_says(size):
    """Exactly, by the sum over all counts, not by draws."""
    bounds = [intervals.wilson(right / size, size) for right in range(size + 1)]
    shares = [0.1 + 0.01 * n for n in range(81)]
    covered = [
        sum(binom.pmf(right, size, share) for right, (low, high) in enumerate(bounds) if low <= share <= high)
        for share in shares
    ]
    assert 0.935 <= sum(covered) / len(covered) <= 0.97


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.7])
def test_samples_of_an_item_are_alike_and_the_interval_knows(alike):
    draw, covered, trials = random.Random(1), 0, 600
    for _ in range(trials):
        share = draw.choice((0.1, 0.3, 0.5, 0.8))
        scale = (1 - alike) / alike if alike else 0
        items = [draw.betavariate(share * scale, (1 - share) * scale) if alike else share for _ in range(33)]
        values = [sum(draw.random() < item for _ in range(4)) / 4 for item in items]
        interval = intervals.of_share(values, 4)
        assert interval is not None
        covered += interval[0] <= share <= interval[1]
    assert 0.92 <= covered / trials <= 0.98


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_samples_narrow_an_interval_no_more_than_as_many_items_would():
    values = [0.25, 0.5, 0.75, 0.5] * 10
    few, more, many = ([1.0, 0.0] * n for n in (20, 80, 160))
    assert width(intervals.of_share(many)) == pytest.approx(width(intervals.of_share(values)), rel=0.01)
    assert width(intervals.of_share(values, 4)) == pytest.approx(width(intervals.of_share(more, 1)))
    assert width(intervals.of_share(values, 1)) == pytest.approx(width(intervals.of_share(few, 1)))
    assert width(intervals.of_share([0.5] * 40, 4)) == pytest.approx(width(intervals.of_share(few, 1)))


def test_no_interval_is_a_point_and_one_item_has_none():
    for value, items in itertools.product((0.0, 1 / 3, 0.5, 1.0), (2, 8, 33)):
        alike = [value] * items
        assert width(intervals.of_share(alike, 3)) > 0
        average = intervals.average([alike, alike], 50, 0)
        assert average[0] == pytest.approx(value) and width(average[1]) > 0
        assert average[1] and average[1][0] <= value + 1e-12 and average[1][1] >= value - 1e-12
        for samples in (1, 3):
            assert width(intervals.paired(alike, alike, 50, 0, samples)) > 0
            gained = intervals.paired([0.0] * items, [1.0] * items, 50, 0, samples)
            assert gained is not None and gained[0] < gained[1]
        assert intervals.bootstrap([70 * value] * items, 50, 0) is None, "a judge's scores have no bounds"
        assert intervals.paired([value] * items, [value + 5] * items, 50, 0) is None
    assert intervals.of_share([1.0], 8) is intervals.of_share([]) is intervals.bootstrap([3.0], 50, 0) is None
    assert intervals.paired([0.0], [1.0], 50, 0, 1) is None
    assert intervals.average([[1.0]], 50, 0) == (1.0, None)


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    draw, covered = random.Random(1), 0
    for trial in range(200):
        interval = intervals.bootstrap([draw.gauss(60, 15) for _ in range(60)], 300, trial)
        assert interval is not None
        covered += interval[0] <= 60 <= interval[1]
    assert 180 <= covered <= 199


# --- averages of cells ------------------------------------------------------------------------------------------------


def test_the_average_of_groups_resamples_within_them():
    draw = random.Random(3)
    groups = [[float(draw.random() < p) for _ in range(n)] for p, n in ((0.2, 400), (0.8, 100))]
    value, interval = intervals.average(groups, 2000, 0)
    assert value == pytest.approx(sum(sum(g) / len(g) for g in groups) / 2)
    spread = math.sqrt(sum(p * (1 - p) / n for p, n in ((0.2, 400), (0.8, 100)))) / 2
    assert width(interval) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    weighted, _ = intervals.average(groups, 10, 0, by_items=True)
    assert weighted == pytest.approx(sum(map(sum, groups)) / 500)
    assert intervals.average([[1.0], []], 10, 0) == (None, None)


def test_a_cell_without_spread_brings_its_wilson_interval():
    mixed, right = [0.0, 1.0] * 20, [1.0] * 10
    _, alone = intervals.average([mixed], 1000, 0)
    value, both = intervals.average([mixed, right], 1000, 0)
    assert alone is not None and both is not None and value == 0.75
    missing = 1 - intervals.wilson(1.0, 10)[0]
    assert 0.75 - both[0] == pytest.approx(math.hypot(0.5 - alone[0], missing) / 2, rel=0.02)
    assert both[1] - 0.75 == pytest.approx((alone[1] - 0.5) / 2, rel=0.02)


# --- paired differences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse", "pairs", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # Bentur et al. 2009 in Fagerland, Lydersen and Laake, Stat. Med. 33 (2014)
        (40, 20, 160, 0.031, 0.218),  # R's PropCIs::scoreci.mp gives it in its example
    ],
)
def test_tangos_interval_is_the_published_one(better, worse, pairs, low, high):
    assert intervals.tango(better, worse, pairs) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(("better", "worse", "pairs"), [(3, 9, 40), (0, 2, 20), (12, 0, 33), (5, 5, 33), (0, 0, 20)])
def test_the_ends_of_tangos_interval_are_where_the_score_test_rejects(better, worse, pairs):
    """The likeliest nuisance is looked for by hand here, not by the formula."""
    for end, sign in zip(intervals.tango(better, worse, pairs), (1, -1), strict=True):

        def unlikely(down: float, gain: float = end) -> float:
            up, same = down + gain, 1 - 2 * down - gain
            counts = ((better, up), (worse, down), (pairs - better - worse, same))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in counts if count)

        left, right = max(0.0, -end), (1 - end) / 2
        for _ in range(200):  # it is convex
            third = (right - left) / 3
            worst = unlikely(left + third) > unlikely(right - third)
            left, right = (left + third, right) if worst else (left, right - third)
        down = (left + right) / 2
        variance = pairs * (2 * down + end * (1 - end))
        assert sign * (better - worse - pairs * end) / math.sqrt(variance) == pytest.approx(1.96, abs=0.01)


def test_tangos_interval_covers_the_difference_as_often_as_it_says():
    draw, pairs = random.Random(5), 33
    for up, down in ((0.1, 0.1), (0.3, 0.1), (0.2, 0.05)):
        covered = 0
        for _ in range(600):
            drawn = [draw.random() for _ in range(pairs)]
            low, high = intervals.tango(sum(d < up for d in drawn), sum(up <= d < up + down for d in drawn), pairs)
            covered += low <= up - down <= high
        assert 0.925 <= covered / 600 <= 0.985, (up, down)


def test_a_paired_gain_sees_a_small_but_steady_difference():
    draw = random.Random(2)
    before = [draw.random() for _ in range(40)]
    after = [b + draw.gauss(0.02, 0.01) for b in before]
    interval = intervals.paired(before, after, 500, 0)
    assert interval is not None and 0 < interval[0] < sum(after) / 40 - sum(before) / 40 < interval[1] < 0.03


def test_a_paired_gain_of_several_samples_is_resampled_and_never_too_sure():
    draw = random.Random(4)
    before = [draw.randrange(5) / 4 for _ in range(60)]
    after = [min(1.0, b + draw.choice((0, 0.25))) for b in before]
    resampled = intervals.bootstrap([b - a for a, b in zip(before, after, strict=True)], 2000, 0)
    assert intervals.paired(before, after, 2000, 0, 4) == resampled
    one = [*before[:-1], before[-1] - 0.25 if before[-1] else 0.25]
    interval = intervals.paired(before, one, 2000, 0, 4)
    assert interval is not None and interval[0] < 0 < interval[1], "one step of one item says nothing"
