"""The HTML report of a run: one self-contained page with figures, curves as pictures, and responses side by side."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import jinja2

LONGEST = 600  # characters of a response that are shown


def plot(series: dict[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> dict[str, str]:
    """Returns {"png": base64, "alt": text} of one line plot; `series` maps labels to (x, y) points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for label, points in series.items():
        axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 60 else None)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "alt": f"{ylabel} over {xlabel}"}


def smooth(points: Sequence[tuple[float, float]], window: int = 5) -> list[tuple[float, float]]:
    """Returns the trailing mean over `window` points."""
    values = [y for _, y in points]
    return [
        (x, sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1]))
        for i, (x, _) in enumerate(points)
    ]


def side_by_side(responses: dict[str, list[dict]], count: int) -> list[dict]:
    """Returns `count` questions with the first sampled response of every checkpoint and its verdict.

    `responses` maps a checkpoint to its rows as `launch/eval.py` writes them.
    """
    first = {c: {r["id"]: r for r in rows if r["sample"] == 0} for c, rows in responses.items()}
    ids = list(next(iter(first.values())))[:count] if first else []
    return [
        {
            "question": next(iter(first.values()))[id]["question"],
            "key": next(iter(first.values()))[id]["key"],
            "cells": [
                {
                    "response": rows[id]["response"][:LONGEST],
                    "read": rows[id]["read"],
                    "verdict": "right" if rows[id]["acc"] else "wrong" if rows[id]["readable"] else "unreadable",
                }
                for rows in first.values()
            ],
        }
        for id in ids
    ]


def write(path: Path, title: str, subtitle: str, figures: list, plots: list, responses: dict, count: int = 8) -> None:
    """Writes the page; `figures` is a list of (label, text)."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=subtitle,
        figures=figures,
        plots=plots,
        checkpoints=list(responses),
        samples=side_by_side(responses, count),
    )
    path.write_text(page, encoding="utf-8")
