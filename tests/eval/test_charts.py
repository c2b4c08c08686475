"""Charts: round ticks, no peak lost, lines inside their frame."""

from math import inf, nan

from hypothesis import given
from hypothesis import strategies as st

from eval.charts import MOST_POINTS, chart, scatter, smooth, thinned, ticks

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


@given(NUMBERS, NUMBERS)
def test_ticks_reach_around_the_values_and_are_few(a, b):
    low, high = sorted((a, b))
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        return
    found = ticks(low, high)
    step = found[1] - found[0]
    assert found == sorted(set(found)) and 2 <= len(found) <= 8
    assert found[0] <= low + 1e-6 * step and found[-1] >= high - 1e-6 * step


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=50))
def test_lines_stay_inside_their_frame(points):
    drawn = chart("loss", "step", {"loss": points, "none": [(1, nan), (2, inf)]})
    assert drawn and len(drawn.lines) == 1
    for x, y in drawn.lines[0].dots:
        assert drawn.left <= x <= drawn.right and drawn.top <= y <= drawn.bottom


def test_of_many_points_no_peak_is_lost():
    points = [(n, 0.0) for n in range(10_000)]
    points[7777] = (7777, 5.0)
    assert len(thinned(points)) <= MOST_POINTS and (7777, 5.0) in thinned(points)
    assert chart("x", "step", {"x": []}) is None and smooth([(1, 1), (2, 3)], 5) == [(1, 1), (2, 2)]


def test_our_model_stands_among_the_published():
    drawn = scatter("accuracy", "billion", {"big": (70, 80.0), "small": (7, 60.0)}, {"ours: sft": (0.001, 20.0)})
    assert drawn and [point.label for point in drawn.points if point.ours] == ["ours: sft"]
    for point in drawn.points:
        assert drawn.left <= point.x <= drawn.right and 0 <= point.y <= drawn.bottom
    assert scatter("x", "y", {}, {"ours": (0, 1)}) is None
