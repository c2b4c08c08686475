"""Line charts as SVG, drawn into the page: they take its colours, scale with it and need neither script nor picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

WIDTH, HEIGHT = 480, 240  # of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
SIGN, SHIFTS = 6.4, (0, -11, 11, -22, 22, -33, 33)  # width of a label's sign, how far it may be moved up or down
MOST_POINTS = 600  # of a line; more could not be told apart

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    label: str
    path: str  # of an SVG path
    number: int  # from 1: its colour
    dots: list[tuple[float, float]]  # of few points
    last: str


@dataclass(frozen=True)
class Chart:
    title: str
    xlabel: str
    lines: list[Line]
    xticks: list[tuple[float, str]]  # (place, text)
    yticks: list[tuple[float, str]]
    alt: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(title: str, xlabel: str, series: Mapping[str, Points]) -> Chart | None:
    """Returns the chart of {label: points}, None where no line has a finite point."""
    known = {label: [(x, y) for x, y in points if isfinite(x) and isfinite(y)] for label, points in series.items()}
    known = {label: points for label, points in known.items() if points}
    if not known:
        return None
    xs, ys = ([point[axis] for points in known.values() for point in points] for axis in (0, 1))
    xticks, yticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x0, x1 = min(xs), max(xs)
    y0, y1 = min(yticks[0], min(ys)), max(yticks[-1], max(ys))

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * ((x - x0) / (x1 - x0) if x1 > x0 else 0.5), 1)

    def up(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((y - y0) / (y1 - y0) if y1 > y0 else 0.5), 1)

    lines = []
    for number, (label, points) in enumerate(known.items(), 1):
        drawn = [(across(x), up(y)) for x, y in thinned(points)]
        path = "M" + "L".join(f"{x} {y}" for x, y in drawn)
        lines.append(Line(label, path, (number - 1) % 6 + 1, drawn if len(drawn) <= 40 else [], f"{points[-1][1]:.4g}"))
    said = "; ".join(f"{label}: {points[0][1]:.4g} → {points[-1][1]:.4g}" for label, points in known.items())
    return Chart(
        title,
        xlabel,
        lines,
        [(across(x), f"{x:g}") for x in xticks if x0 <= x <= x1],
        [(up(y), f"{y:.5g}") for y in yticks],
        f"{title}. {said}",
    )


def thinned(points: Points) -> Points:
    """Returns at most MOST_POINTS of the points: of every stretch the lowest and the highest: no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    kept, size = [], 2 * len(points) / MOST_POINTS
    for n in range(MOST_POINTS // 2):
        stretch = points[int(n * size) : int((n + 1) * size)]
        low, high = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
        kept += sorted({low, high})
    return kept


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Returns round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10 ** floor(log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough)
    first = floor(low / step)
    return [round((first + n) * step, 12) for n in range(about + 3) if (first + n - 1) * step < high]


def smooth(points: Points, window: int = 5) -> list[tuple[float, float]]:
    """Returns the trailing mean over `window` points."""
    means = []
    for n, (x, _) in enumerate(points):
        part = [y for _, y in points[max(0, n - window + 1) : n + 1]]
        means.append((x, sum(part) / len(part)))
    return means


@dataclass(frozen=True)
class Mark:
    label: str
    x: float
    y: float
    label_x: float
    label_y: float
    ours: bool
    left: bool  # its label stands left of it


@dataclass(frozen=True)
class Scatter:
    title: str
    xlabel: str
    points: list[Mark]
    xticks: list[tuple[float, str]]
    yticks: list[tuple[float, str]]
    alt: str
    width: int
    height: int
    left: int
    right: int
    bottom: int


def scatter(
    title: str, xlabel: str, theirs: Mapping[str, tuple[float, float]], ours: Mapping[str, tuple[float, float]]
) -> Scatter | None:
    """Returns the picture of {label: (x above 0, on a logarithmic axis; y)}, ours marked; None without a point."""
    marks = [(label, *at, False) for label, at in theirs.items()] + [(label, *at, True) for label, at in ours.items()]
    marks = [mark for mark in marks if mark[1] > 0]
    if not marks:
        return None
    width, height, right = 2 * WIDTH, 400, 2 * WIDTH - 90
    x0, x1 = (log10(edge([mark[1] for mark in marks])) for edge in (min, max))
    yticks = ticks(min(mark[2] for mark in marks), max(mark[2] for mark in marks))
    y0, y1 = yticks[0], yticks[-1]

    def across(x: float) -> float:
        return round(LEFT + 10 + (right - LEFT - 10) * ((log10(x) - x0) / (x1 - x0) if x1 > x0 else 0.5), 1)

    def up(y: float) -> float:
        return round(height - BOTTOM - (height - TOP - BOTTOM) * ((y - y0) / (y1 - y0) if y1 > y0 else 0.5), 1)

    placed: list[Mark] = []
    points = [(across(x), up(y)) for _, x, y, _ in marks]
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]  # that labels keep clear of
    for (label, *_, own), (x, y) in sorted(zip(marks, points, strict=True), key=lambda one: not one[0][3]):
        wide = SIGN * sum(2 if ord(sign) > 0x2E7F else 1 for sign in label)
        spots = [(x + 9, y + dy, False) for dy in SHIFTS] + [(x - 9, y + dy, True) for dy in SHIFTS]
        spots = [spot for spot in spots if (spot[0] - wide > 0 if spot[2] else spot[0] + wide < width)] or spots[:1]
        across_, at, left = min(spots, key=lambda spot: (_hits(_box(spot, wide), boxes), abs(spot[1] - y)))
        boxes.append(_box((across_, at, left), wide))
        placed.append(Mark(label, x, y, across_, round(at + 4, 1), own, left))
    powers = [n * 10.0**p for p in range(floor(x0), floor(x1) + 1) for n in (1, 3)]
    xticks = [(across(x), f"{x:g}") for x in powers if x0 <= log10(x) <= x1]
    said = "; ".join(f"{label}: {y:.4g}" for label, _, y, _ in marks)
    return Scatter(
        title,
        xlabel,
        placed,
        xticks,
        [(up(y), f"{y:g}") for y in yticks],
        f"{title}. {said}",
        width,
        height,
        LEFT,
        right,
        height - BOTTOM,
    )


def _box(spot: tuple[float, float, bool], wide: float) -> tuple[float, float, float, float]:
    x, y, left = spot
    return (x - wide, y - 6, x, y + 6) if left else (x, y - 6, x + wide, y + 6)


def _hits(box: tuple[float, float, float, float], others: list[tuple[float, float, float, float]]) -> int:
    left, top, right, bottom = box
    return sum(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in others)
