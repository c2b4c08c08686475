"""The pictures of a data card: what each step passed on, and how long the texts are."""

from math import ceil

from data_pipeline.counts import StepCounts
from eval import report
from eval.report import Picture

COLOURS = {"out": "#3b7dd8", "merged": "#9db4d0", "rejected": "#d8743b"}
MOST_BINS = 30


def funnel(steps: dict[str, StepCounts]) -> Picture:
    """Returns the picture of how many rows each step passed on, merged and rejected, the first one above."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 0.42 * len(steps) + 1.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    names = list(steps)[::-1]
    left = [0] * len(names)
    for key, colour in COLOURS.items():
        values = [getattr(steps[n], key) for n in names]
        axes.barh(names, values, left=left, label=key, color=colour)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_title("rows passed on, merged and rejected by each step")
    axes.set_xlabel("rows")
    axes.set_xlim(0, 1.03 * max(left))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False)
    return report.picture(figure, "rows passed on, merged and rejected by each step")


def histogram(values: list[int], what: str) -> Picture:
    """Returns the picture of how many texts have how many characters, in bins of whole numbers."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    width = ceil((max(values) - min(values) + 1) / MOST_BINS)
    bins = range(min(values), max(values) + width + 1, width)
    axes.hist(values, bins=list(bins), color=COLOURS["out"], edgecolor="white", linewidth=0.4)
    axes.set_title(f"length of {what}: {len(values)} in all")
    axes.set_xlabel("characters")
    axes.set_ylabel(what)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return report.picture(figure, f"lengths of {what} in characters")
