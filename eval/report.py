"""Reports of an evaluation: Markdown, and one self-contained HTML page with tables, plots and responses to browse.

`page` puts the content together, `write` writes both files; launch/reports/demo.py adds the curves of its trainings.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jinja2

from data_pipeline.records import write_text
from data_pipeline.safety.shown import shown
from eval import tables
from eval.contract import Published, Table, find_benchmark
from eval.figures import Difference, Measured, SetMetrics
from eval.judging import comparison, votes
from eval.responses import Row

LONGEST, LONGEST_SESSION = 1200, 12_000  # characters of a response that are shown
SHOWN = 8  # responses of each verdict
READ_BY = (
    "accuracy by two readings (reward/rules.md): strict_match takes the form that the prompts ask for alone, "
    "flexible_extract what models write; all that names neither is by flexible_extract"
)


class Picture(NamedTuple):
    png: str  # base64
    alt: str


@dataclass
class Sample:
    id: str
    question: str
    key: str
    read: str  # letters or scores
    response: str
    judged: list[str]  # each judgement with its evidence and cost


@dataclass
class Beside:
    """What several models replied to the same."""

    question: str
    id: str
    samples: dict[str, Sample]  # by model


@dataclass
class Samples:
    """The first few responses of one verdict."""

    checkpoint: str
    verdict: str
    count: int  # of all with this verdict
    rows: list[Sample]


@dataclass
class Section:
    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)  # one without rows is not shown
    plots: list[Picture] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)


@dataclass
class Page:
    title: str
    sections: list[Section]
    figures: list[tuple[str, str]] = field(default_factory=list)  # (label, text), before the sections
    plots: list[Picture] = field(default_factory=list)  # and these


def plot(series: dict[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> Picture:
    """Returns one line plot; `series` maps labels to (x, y) points."""
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
    return picture(figure, f"{ylabel} over {xlabel}")


def picture(figure, alt: str) -> Picture:
    """Returns the picture of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(base64.b64encode(buffer.getvalue()).decode(), alt)


def smooth(points: Sequence[tuple[float, float]], window: int = 5) -> list[tuple[float, float]]:
    """Returns the trailing mean over `window` points."""
    values = [y for _, y in points]
    return [
        (x, sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1]))
        for i, (x, _) in enumerate(points)
    ]


def size_plot(published: Published, ours: dict[str, tuple[float, float]], name: str) -> Picture:
    """Returns the picture of the first average (0..100) against model size, as figure 1 of Psyche-R1, ours marked."""
    from matplotlib.figure import Figure

    column = next(iter(published.averages.values()))
    label = f"{name}: {published.columns[column]} (%)"
    figure = Figure(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    known = [row for row in tables.published_rows(published) if row.get("parameters_b")]
    axes.scatter([row["parameters_b"] for row in known], [row[column] for row in known], color="#7a8ca3")
    for row in known:
        axes.annotate(row["model"], (row["parameters_b"], row[column]), fontsize=6, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip
    for checkpoint, (size, value) in ours.items():
        axes.scatter([size], [value], color="#c0392b", marker="*", s=120)
        axes.annotate(checkpoint, (size, value), fontsize=8, color="#c0392b", xytext=(4, -9),
                      textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("billion parameters")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    return picture(figure, f"{label} over model size")


def page(
    title: str,
    measured: Measured,
    rows: dict[tuple[str, str], list[Row]],
    judged: dict[str, list[dict]] | None = None,
) -> Page:
    """Returns the content of a report, a section for each set.

    `rows` are the stored responses by (checkpoint, set), `judged` the judgements of all checkpoints by set.
    """
    sections = []
    for name, results in labelled(measured).items():
        first = next(iter(results.values()))
        benchmark = find_benchmark(first.benchmark, "benchmark")
        shown, plots = benchmark.tables(results), []
        if published := benchmark.published:
            shown += tables.beside_published(results, published)
            if published.averages:
                sizes = _sizes(measured, measured.sets[name], next(iter(published.averages)))
                plots.append(size_plot(published, sizes, name))
        shown += tables.differences(labelled_differences(measured, name))
        of_judges = [{**row, "system": _label(measured, row["system"])} for row in (judged or {}).get(name, [])]
        shown += [tables.judges(results), *comparison.compared(votes.ratings(of_judges))]
        notes = [READ_BY] if any(r.readings["strict_match"]["accuracy"] is not None for r in results.values()) else []
        multi = any(r.kinds["multi"]["items"] for r in results.values())
        notes += [f"elastic rule {first.elastic_rule}: {first.elastic_rule_source}"] if multi else []
        notes += notes_of(results)
        notes += [published.warning] if published and published.warning else []
        notes += [f"judged by {judge}" for judge in dict.fromkeys(r.judge for r in results.values() if r.judge)]
        notes.append(f"scoring version {first.version}, items {first.fingerprint[:12]}")
        of_models = {_label(measured, c): rows[c, name] for c in measured.sets[name] if (c, name) in rows}
        longest = LONGEST_SESSION if benchmark.session else LONGEST
        made = _Shown(benchmark.shown, longest, _by_response(of_judges))
        sections.append(Section(name, notes, shown, plots, samples(of_models, made), beside(of_models, made)))
    return Page(f"Evaluation of {title}", sections)


def _label(measured: Measured, checkpoint: str) -> str:
    return measured.labels.get(checkpoint, checkpoint)


def labelled(measured: Measured) -> dict[str, dict[str, SetMetrics]]:
    """Returns {set: {model: figures}}, models of servers and of other runs by their names and dates."""
    return {
        name: {_label(measured, checkpoint): figures for checkpoint, figures in results.items()}
        for name, results in measured.sets.items()
    }


def labelled_differences(measured: Measured, name: str) -> dict[str, list[Difference]]:
    """Returns the differences of a set, of each model and the one before it, as `labelled` names them."""
    of_set, order = measured.differences.get(name, {}), list(measured.sets[name])
    return {
        f"{_label(measured, a)} -> {_label(measured, b)}": of_set[f"{a} -> {b}"]
        for a, b in zip(order, order[1:], strict=False)
        if f"{a} -> {b}" in of_set
    }


def notes_of(results: dict[str, SetMetrics]) -> list[str]:
    """Returns the notes of a set, those that are not of all checkpoints with the checkpoint before them."""
    notes = dict.fromkeys(note for result in results.values() for note in result.notes)
    return [
        note if len(having) == len(results) else f"{', '.join(having)}: {note}"
        for note in notes
        if (having := [c for c, result in results.items() if note in result.notes])
    ]


def _sizes(measured: Measured, results: dict[str, SetMetrics], average: str) -> dict[str, tuple[float, float]]:
    """Returns {checkpoint: (billions of parameters, average in 0..100)} of those that have both."""
    sizes = {}
    for checkpoint, result in results.items():
        size, value = measured.parameters_b.get(checkpoint), result.own.get(average)
        if size and value is not None:
            sizes[checkpoint] = (size, 100 * value)
    return sizes


def verdict(row: Row) -> str:
    """Returns "failed", "unreadable", "answered" (without a key of letters), "right" or "wrong" of a response."""
    if row.failed:
        return "failed"
    if not row.readable:
        return "unreadable"
    return "answered" if not (row.has_letters and row.key) else "right" if row.acc else "wrong"


class _Shown(NamedTuple):
    """How the responses of a set are shown."""

    text: Callable[[str], str]  # an answer part
    longest: int
    judged: dict[tuple[str, str, int], list[str]]  # (model, item, sample) -> its judgements

    def sample(self, model: str, row: Row) -> Sample:
        text = row.response if row.failed or not row.response else self.text(row.response)
        response = row.error or f"{row.reasoning}\n{text}".strip()
        judged = self.judged.get((model, row.id, row.sample), [])
        return Sample(row.id, row.question, row.key, row.read or _scores(row), response[: self.longest], judged)


def _by_response(judged: list[dict]) -> dict[tuple[str, str, int], list[str]]:
    lines = defaultdict(list)
    for row in judged:
        value = row["state"] if row["value"] is None else f"{row['value']:g}"
        evidence = f" “{'” “'.join(row['evidence'])}”" if row["evidence"] else ""
        cost = f"{row['tokens']} tokens" + ("" if row["cost"] is None else f", {row['cost']:.6f}")
        told = f"{row['rater']}, {row['dimension']}: {value}{evidence} ({cost})"
        lines[row["system"], row["item"], row["sample"]].append(told)
    return lines


def beside(rows: dict[str, list[Row]], made: _Shown) -> list[Beside]:
    """Returns the first replies of several models to the first few items that all of them have answered."""
    if len(rows) < 2:
        return []
    of_models = {model: {row.id: row for row in of if row.sample == 0} for model, of in rows.items()}
    first, *others = of_models.values()
    common = [id for id in first if all(id in of for of in others)][:SHOWN]
    return [
        Beside(first[id].question, id, {model: made.sample(model, of[id]) for model, of in of_models.items()})
        for id in common
    ]


def samples(rows: dict[str, list[Row]], made: _Shown) -> list[Samples]:
    """Returns the first few responses of each model and verdict."""
    groups = []
    for checkpoint, of_checkpoint in rows.items():
        by_verdict = defaultdict(list)
        for row in of_checkpoint:
            by_verdict[verdict(row)].append(row)
        for name in ("right", "wrong", "answered", "unreadable", "failed"):
            if shown := by_verdict[name]:
                groups.append(
                    Samples(checkpoint, name, len(shown), [made.sample(checkpoint, row) for row in shown[:SHOWN]])
                )
    return groups


def _scores(row: Row) -> str:
    return ", ".join(f"{name} {'missing' if v is None else f'{v:.4g}'}" for name, v in row.scores.items())


def write(folder: Path, content: Page, name: str = "report") -> dict[str, Path]:
    """Writes NAME.html and NAME.md; returns {file name: path}."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=_plain
    )
    html, markdown = folder / f"{name}.html", folder / f"{name}.md"
    write_text(html, environment.get_template("report.html.jinja").render(vars(content)), 0o600)
    write_text(markdown, _markdown(content), 0o600)  # both show what people and models said
    return {html.name: html, markdown.name: markdown}


def _plain(value: object) -> object:
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _cell(value: object) -> str:
    """Returns the text as a cell of Markdown, and as nothing else: no row, tag, link or picture of its own."""
    text = " ".join(shown(str(value)).split("\n")).replace("<", "&lt;").replace("|", "\\|")
    return text.replace("](", "]\\(").replace("![", "!\\[")


def _markdown(content: Page) -> str:
    lines = [f"# {_cell(content.title)}", "", "A research artefact: no claim of clinical use.", ""]
    lines += [f"- {_cell(label)}: {_cell(text)}" for label, text in content.figures]
    for section in content.sections:
        lines += ["", f"## {_cell(section.title)}", "", *(f"- {_cell(note)}" for note in section.notes)]
        for table in section.tables:
            if not table.rows:
                continue
            rows = [table.head, ["---"] * len(table.head), *table.rows]
            lines += ["", f"### {_cell(table.caption)}", ""]
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"
