"""Reports of an evaluation: Markdown, and one self-contained HTML page with tables, plots and responses to browse.

`page` puts the content together, `write` writes both files; launch/pages shows the same tables and responses.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jinja2

from data_pipeline.records import write_text
from data_pipeline.safety.shown import shown
from eval import tables
from eval.charts import Scatter, scatter
from eval.contract import Published, Table, find_benchmark
from eval.figures import Difference, Measured, SetMetrics
from eval.judging import comparison, votes
from eval.responses import Row
from reward.thought import split_thought

LONGEST, LONGEST_SESSION = 1200, 12_000  # characters of a response that are shown
SHOWN = 8  # items of each combination of verdicts
READ_BY = (
    "accuracy by two readings (reward/rules.md): strict_match takes the form that the prompts ask for alone, "
    "flexible_extract what models write; all that names neither is by flexible_extract"
)


class Picture(NamedTuple):
    png: str  # base64
    alt: str


@dataclass(frozen=True)
class Shown:
    """One response as it is read by people."""

    checkpoint: str
    verdict: str
    read: str  # letters or scores
    thought: str
    reply: str
    judged: list[str]  # each judgement with its evidence and cost


@dataclass(frozen=True)
class SideBySide:
    """The first responses of all checkpoints to one item."""

    id: str
    question: str
    key: str
    responses: list[Shown]


@dataclass(frozen=True)
class Samples:
    """The first few items whose responses have the same verdicts: "base wrong, sft right"."""

    title: str
    verdict: str  # of the last checkpoint
    count: int  # of all items with these verdicts
    rows: list[SideBySide]


@dataclass
class Section:
    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)  # one without rows is not shown
    plots: list[Picture] = field(default_factory=list)
    scatters: list[Scatter] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)


@dataclass
class Page:
    title: str
    sections: list[Section]
    figures: list[tuple[str, str]] = field(default_factory=list)  # (label, text), before the sections
    plots: list[Picture] = field(default_factory=list)  # and these


def picture(figure, alt: str) -> Picture:
    """Returns the picture of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(base64.b64encode(buffer.getvalue()).decode(), alt)


def size_plot(published: Published, ours: dict[str, tuple[float, float]], name: str) -> Scatter | None:
    """Returns the picture of the first average (0..100) against model size, as figure 1 of Psyche-R1, ours marked."""
    column = next(iter(published.averages.values()))
    known = {
        r["model"]: (r["parameters_b"], r[column]) for r in tables.published_rows(published) if r.get("parameters_b")
    }
    own = {f"ours: {checkpoint}": at for checkpoint, at in ours.items()}
    return scatter(f"{name}: {published.columns[column]} (%)", "billion parameters", known, own)


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
        shown, scatters = benchmark.tables(results), []
        if published := benchmark.published:
            shown += tables.beside_published(results, published)
            if published.averages:
                sizes = _sizes(measured, measured.sets[name], next(iter(published.averages)))
                drawn = size_plot(published, sizes, name)
                scatters += [drawn] if drawn else []
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
        made = ShownBy(benchmark.shown, longest, _by_response(of_judges))
        sections.append(Section(name, notes, shown, [], scatters, samples(of_models, made)))
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


class ShownBy(NamedTuple):
    """How the responses of a set are shown."""

    text: Callable[[str], str] = str  # an answer part
    longest: int | None = None  # characters; None: all
    judged: Mapping[tuple[str, str, int], list[str]] = {}  # (model, item, sample) -> its judgements

    def __call__(self, model: str, row: Row) -> Shown:
        """Returns a response with its thought apart."""
        text = row.response if row.failed or not row.response else self.text(row.response)
        thought, reply = split_thought(text)
        thought, reply = row.reasoning or thought or "", row.error or (text if reply is None else reply)
        judged = self.judged.get((model, row.id, row.sample), [])
        return Shown(model, verdict(row), row.read or _scores(row), self._cut(thought), self._cut(reply), judged)

    def _cut(self, text: str) -> str:
        text = text.strip()
        return text if self.longest is None or len(text) <= self.longest else f"{text[: self.longest]} […]"


def _by_response(judged: list[dict]) -> dict[tuple[str, str, int], list[str]]:
    lines = defaultdict(list)
    for row in judged:
        value = row["state"] if row["value"] is None else f"{row['value']:g}"
        evidence = f" “{'” “'.join(row['evidence'])}”" if row["evidence"] else ""
        cost = f"{row['tokens']} tokens" + ("" if row["cost"] is None else f", {row['cost']:.6f}")
        told = f"{row['rater']}, {row['dimension']}: {value}{evidence} ({cost})"
        lines[row["system"], row["item"], row["sample"]].append(told)
    return lines


def samples(rows: dict[str, list[Row]], made: ShownBy) -> list[Samples]:
    """Returns the first few items of each combination of verdicts, the first response of every model beside the others;
    those whose verdict changes come first.
    """
    by_item: dict[str, dict[str, Row]] = defaultdict(dict)
    for checkpoint, of_checkpoint in rows.items():
        for row in of_checkpoint:
            if row.sample == 0:
                by_item[row.id][checkpoint] = row
    groups: dict[tuple[tuple[str, str], ...], list[dict[str, Row]]] = defaultdict(list)
    for of_item in by_item.values():
        groups[tuple((model, verdict(row)) for model, row in of_item.items())].append(of_item)
    ordered = sorted(groups.items(), key=lambda group: (len({v for _, v in group[0]}) == 1, -len(group[1])))
    found = []
    for verdicts, items in ordered:
        title, shown = ", ".join(f"{model} {word}" for model, word in verdicts), items[:SHOWN]
        found.append(Samples(title, verdicts[-1][1], len(items), [_beside(of_item, made) for of_item in shown]))
    return found


def _beside(of_item: dict[str, Row], made: ShownBy) -> SideBySide:
    first = next(iter(of_item.values()))
    return SideBySide(first.id, first.question, first.key, [made(model, row) for model, row in of_item.items()])


def _scores(row: Row) -> str:
    return ", ".join(f"{name} {'missing' if v is None else f'{v:.4g}'}" for name, v in row.scores.items())


def write(folder: Path, content: Page, name: str = "report") -> dict[str, Path]:
    """Writes NAME.html and NAME.md; returns {file name: path}."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=_plain
    )
    html, plain = folder / f"{name}.html", folder / f"{name}.md"
    known = vars(content) | {"legend": tables.legend, "plainly": str}
    write_text(html, environment.get_template("report.html.jinja").render(known), 0o600)
    write_text(plain, markdown(content), 0o600)  # both show what people and models said
    return {html.name: html, plain.name: plain}


def _plain(value: object) -> object:
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _cell(value: object) -> str:
    """Returns the text as a cell of Markdown, and as nothing else: no row, tag, link or picture of its own."""
    text = " ".join(shown(str(value)).split("\n")).replace("<", "&lt;").replace("|", "\\|")
    return text.replace("](", "]\\(").replace("![", "!\\[")


def markdown(content: Page) -> str:
    """Returns figures, notes and tables as Markdown."""
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
