"""Reports of an evaluation: Markdown, and one self-contained HTML page with tables, plots and responses to browse.

`page` puts the content together, `write` writes both files; launch/reports/demo.py adds the curves of its trainings.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import jinja2
import yaml

from eval import metrics

LONGEST = 1200  # characters of a response that are shown
SHOWN = 8  # responses of each verdict
PUBLISHED = Path(__file__).resolve().parent.parent / "recipes" / "published"
HEAD = ("checkpoint", "items", "single", "multi strict", "multi elastic", "format", "unreadable", "cut", "failed")
COLUMNS = {  # of the published table, as the paper prints them
    "case_single": "Case S", "case_multi_strict": "Case M", "case_multi_elastic": "(e)",
    "moral_single": "Moral S", "moral_multi_strict": "Moral M", "moral_multi_elastic": "(e)",
    "theory_single": "Theory S", "theory_multi_strict": "Theory M", "theory_multi_elastic": "(e)",
    "avg_strict": "Avg", "avg_elastic": "Avg (e)",
}  # fmt: skip


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
    return picture(figure, f"{ylabel} over {xlabel}")


def picture(figure, alt: str) -> dict[str, str]:
    """Returns {"png": base64, "alt": text} of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "alt": alt}


def smooth(points: Sequence[tuple[float, float]], window: int = 5) -> list[tuple[float, float]]:
    """Returns the trailing mean over `window` points."""
    values = [y for _, y in points]
    return [
        (x, sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1]))
        for i, (x, _) in enumerate(points)
    ]


def size_plot(rows: list[dict], ours: dict[str, tuple[float, float]]) -> dict[str, str]:
    """Returns the picture of average strict accuracy against model size (as figure 1 of Psyche-R1), ours marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    known = [r for r in rows if r["parameters_b"]]
    axes.scatter([r["parameters_b"] for r in known], [r["avg_strict"] for r in known], color="#7a8ca3")
    for row in known:
        axes.annotate(row["model"], (row["parameters_b"], row["avg_strict"]), fontsize=6, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip
    for name, (size, value) in ours.items():
        axes.scatter([size], [value], color="#c0392b", marker="*", s=120)
        axes.annotate(name, (size, value), fontsize=8, color="#c0392b", xytext=(4, -9), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("billion parameters")
    axes.set_ylabel("PCEB average, strict (%)")
    axes.grid(alpha=0.3)
    return picture(figure, "PCEB average over model size")


def overview(checkpoint: str, result: dict) -> list[str]:
    """Returns the cells of one line under HEAD."""
    cells = result["cells"]

    def pooled(ending: str, key: str) -> str:
        found = [c for name, c in cells.items() if name.endswith(ending) and c.get(key) is not None]
        items = sum(c["items"] for c in found)
        return share(sum(c[key] * c["items"] for c in found) / items) if items else "-"

    return [
        checkpoint,
        str(result["items"]),
        pooled("single", "accuracy"),
        pooled("multi", "accuracy"),
        pooled("multi", "elastic"),
        share(format_rate(result)),
        share(result["unreadable"] / result["responses"]),
        str(result["cut_by_length"]),
        str(result["failed"]),
    ]


def format_rate(result: dict) -> float | None:
    """Returns the share of well-formed responses to multiple-choice questions."""
    found = [c for c in result["cells"].values() if c.get("format_rate") is not None]
    items = sum(c["items"] for c in found)
    return sum(c["format_rate"] * c["items"] for c in found) / items if items else None


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def interval(value: float | None, bounds: Sequence[float] | None, scale: float = 100) -> str:
    if value is None:
        return "-"
    return f"{scale * value:.2f}" + (f" [{scale * bounds[0]:.2f}, {scale * bounds[1]:.2f}]" if bounds else "")


def accuracy_by_item(rows: list[dict]) -> dict[str, float]:
    """Returns {item id: mean accuracy over its samples} of stored rows, of questions that have a key."""
    found = defaultdict(list)
    for row in rows:
        if row["kind"] != "open" and row["key"]:
            found[row["id"]].append(row["acc"])
    return {id: metrics.mean_of(values) for id, values in found.items()}


def published_pceb() -> list[dict]:
    """Returns the 18 published rows (recipes/published/pceb.yaml)."""
    return yaml.safe_load((PUBLISHED / "pceb.yaml").read_text(encoding="utf-8"))["results"]


def page(title: str, found: dict, rows: dict[tuple[str, str], list[dict]]) -> dict:
    """Returns the content of a report: {"title", "sections": [{"title", "notes", "tables", "plots", "samples"}]}.

    `found` is what metrics.json holds, `rows` the stored responses by (checkpoint, set).
    """
    sections = []
    for name, results in found["sets"].items():
        first = next(iter(results.values()))
        tables = [{"caption": "overview", "head": HEAD, "rows": [overview(c, r) for c, r in results.items()]},
                  _cells_table(results), *_averages_tables(results)]  # fmt: skip
        plots = []
        if first["benchmark"] == "pceb":
            published = published_pceb()
            tables += _beside_published(results, published)
            sizes = {c: (found["parameters_b"][c], 100 * r["average_strict"]) for c, r in results.items()
                     if found["parameters_b"].get(c) and r["average_strict"] is not None}  # fmt: skip
            plots.append(size_plot(published, sizes))
        if gains := found["gains"].get(name):
            lines = [[pair, str(g["items"]), f"{g['gain']:+.1%}", f"{g['ci_low']:+.1%} to {g['ci_high']:+.1%}"]
                     for pair, g in gains.items()]  # fmt: skip
            tables.append({"caption": "paired difference in accuracy", "rows": lines,
                           "head": ("from -> to", "items", "difference", "95 % interval")})  # fmt: skip
        tables.append(_subjects_table(results))
        notes = [f"elastic rule {first['elastic_rule']}: {first['elastic_rule_source']}", *first["notes"]]
        notes.append(f"scoring version {first['version']}, items {first['fingerprint'][:12]}")
        sections.append({"title": name, "notes": notes, "tables": [t for t in tables if t["rows"]], "plots": plots,
                         "samples": samples({c: rows[c, name] for c in results if (c, name) in rows})})  # fmt: skip
    return {"title": f"Evaluation of {title}", "sections": sections}


def _cells_table(results: dict) -> dict:
    head = ("checkpoint", "cell", "items", "accuracy % [95 %]", "elastic % [95 %]", "pass@k", "other")
    lines = []
    for checkpoint, result in results.items():
        for cell, c in result["cells"].items():
            if not c["items"]:
                continue
            known = [k for k in c if f"{k}_ci" in c and k not in ("accuracy", "elastic") and c[k] is not None]
            other = ", ".join(f"{k} {interval(c[k], c[f'{k}_ci'], 1)}" for k in known)
            passes = ", ".join(f"@{k} {share(v)}" for k, v in c.get("pass_at", {}).items() if v is not None)
            lines.append([checkpoint, cell, str(c["items"]), interval(c.get("accuracy"), c.get("accuracy_ci")),
                          interval(c.get("elastic"), c.get("elastic_ci")), passes, other])  # fmt: skip
    return {"caption": "by kind of question", "head": head, "rows": lines}


def _averages_tables(results: dict) -> list[dict]:
    """Returns the averages that the benchmark defines, each under its own name."""
    lines = []
    for checkpoint, result in results.items():
        groups = {"": {k: result.get(k) for k in ("average_strict", "average_elastic")}}
        groups |= {k: result[k] for k in ("item_weighted", "subject_macro") if k in result}
        bounds = {"": result, **{k: result[k] for k in ("item_weighted", "subject_macro") if k in result}}
        for group, values in groups.items():
            for key, value in values.items():
                if not key.endswith("_ci") and value is not None:
                    name = f"{group} {key}".strip()
                    lines.append([checkpoint, name, interval(value, bounds[group].get(f"{key}_ci"))])
    return [{"caption": "averages", "head": ("checkpoint", "average", "% [95 %]"), "rows": lines}]


def _beside_published(results: dict, published: list[dict]) -> list[dict]:
    """Returns our rows beside the published ones, and our averages minus theirs with our interval."""
    head = ("model", *COLUMNS.values())

    def line(name: str, columns: dict) -> list[str]:
        return [name, *("-" if columns.get(k) is None else f"{columns[k]:.2f}" for k in COLUMNS)]

    beside = [line(f"ours: {c}", r["published_columns"]) for c, r in results.items()]
    beside += [line(row["model"], row) for row in published]
    differences = []
    for checkpoint, result in results.items():
        for row in published:
            cells = [checkpoint, row["model"]]
            for ours, theirs in (("average_strict", "avg_strict"), ("average_elastic", "avg_elastic")):
                value, bounds = result[ours], result[f"{ours}_ci"]
                if value is None:
                    continue
                low, high = (100 * bound - row[theirs] for bound in bounds)
                cells.append(f"{100 * value - row[theirs]:+.2f} [{low:+.2f}, {high:+.2f}]")
            if len(cells) == 4:
                differences.append(cells)
    return [
        {"caption": "beside the published rows (README of Psyche-R1)", "head": head, "rows": beside},
        {"caption": "our averages minus the published ones, with our 95 % interval (theirs is unpublished)",
         "head": ("checkpoint", "published model", "strict", "elastic"), "rows": differences},
    ]  # fmt: skip


def _subjects_table(results: dict) -> dict:
    subjects = dict.fromkeys(s for r in results.values() for s in r["subjects"])
    lines = []
    for subject in subjects:
        found = [r["subjects"].get(subject) for r in results.values()]
        lines.append([subject or "(none)", str(max(f["items"] for f in found if f)),
                      *(interval(f["accuracy"], f["accuracy_ci"]) if f else "-" for f in found)])  # fmt: skip
    return {"caption": "accuracy by subject, % [95 %]", "head": ("subject", "items", *results), "rows": lines}


def verdict(row: dict) -> str:
    """Returns "failed", "unreadable", "right" or "wrong" of a stored response."""
    if row["failed"]:
        return "failed"
    return "unreadable" if not row["readable"] else "right" if row["acc"] else "wrong"


def samples(rows: dict[str, list[dict]]) -> list[dict]:
    """Returns {"checkpoint", "verdict", "count", "rows"} groups, with the first few responses of each verdict."""
    groups = []
    for checkpoint, of_checkpoint in rows.items():
        by_verdict = defaultdict(list)
        for row in of_checkpoint:
            if row["kind"] != "open":
                by_verdict[verdict(row)].append(row)
        for name in ("right", "wrong", "unreadable", "failed"):
            shown = [
                {"question": r["question"], "key": r["key"], "read": r["read"], "id": r["id"],
                 "response": (r["error"] or f"{r['reasoning']}\n{r['response']}".strip())[:LONGEST]}
                for r in by_verdict[name][:SHOWN]
            ]  # fmt: skip
            if shown:
                groups.append(
                    {"checkpoint": checkpoint, "verdict": name, "count": len(by_verdict[name]), "rows": shown}
                )
    return groups


def write(folder: Path, content: dict, name: str = "report") -> dict[str, Path]:
    """Writes NAME.html and NAME.md; returns {file name: path}. Keys of `content` as `page` returns them, and for a
    demo "figures" (list of (label, text)) and "plots".
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    html, markdown = folder / f"{name}.html", folder / f"{name}.md"
    html.write_text(environment.get_template("report.html.jinja").render(content), encoding="utf-8")
    markdown.write_text(_markdown(content), encoding="utf-8")
    return {html.name: html, markdown.name: markdown}


def _markdown(content: dict) -> str:
    lines = [f"# {content['title']}", "", "A research artefact: no claim of clinical use.", ""]
    for label, text in content.get("figures", []):
        lines.append(f"- {label}: {text}")
    for section in content["sections"]:
        lines += ["", f"## {section['title']}", "", *(f"- {note}" for note in section["notes"])]
        for table in section["tables"]:
            rows = [table["head"], ["---"] * len(table["head"]), *table["rows"]]
            lines += ["", f"### {table['caption']}", ""]
            lines += ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
