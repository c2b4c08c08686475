"""Tables of a report that benchmarks share, each of {checkpoint: figures}; and published rows beside ours."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from eval.contract import Published, Table
from eval.figures import ACCURACY, Cell, Difference, SetMetrics, interval, share

READINGS = ("flexible_extract", "strict_match")
PUBLISHED = Path(__file__).resolve().parent.parent / "recipes" / "published"
EXAM = ("checkpoint", "items", *READINGS, "single", "multi strict", "multi elastic", "format", "unreadable", "cut",
        "failed")  # fmt: skip
KINDS = (("single", "accuracy"), ("multi", "accuracy"), ("multi", "elastic"))
OWN = ("checkpoint", "items", "unreadable", "cut", "failed")


def exam_overview(results: dict[str, SetMetrics]) -> Table:
    """Returns one line per checkpoint of a benchmark whose questions have letters: accuracy by both readings, then the
    kinds of question by flexible-extract.
    """
    lines = [
        [
            checkpoint,
            str(r.items),
            *(share(r.readings[name]["accuracy"], r.readings[name]["accuracy_ci"]) for name in READINGS),
            *(share(r.kinds[kind][of], r.kinds[kind][f"{of}_ci"]) for kind, of in KINDS),
            share(_format_rate(r)),
            share(r.unreadable / r.responses),
            str(r.cut_by_length),
            str(r.failed),
        ]
        for checkpoint, r in results.items()
    ]
    return Table("overview", EXAM, lines)


def own_overview(results: dict[str, SetMetrics]) -> Table:
    """Returns one line per checkpoint with the benchmark's own scores, and how many responses are not judged."""
    names = list(dict.fromkeys(name for r in results.values() for name in r.means))
    lines = [
        [checkpoint, str(r.items), share(r.unreadable / r.responses), str(r.cut_by_length), str(r.failed),
         *(interval(r.means[n].value, r.means[n].interval, 1) if n in r.means else "-" for n in names),
         "-" if r.judge_missing is None else str(r.judge_missing)]
        for checkpoint, r in results.items()
    ]  # fmt: skip
    return Table("overview", (*OWN, *names, "judgements missing"), lines)


def own_by_cell(results: dict[str, SetMetrics]) -> Table:
    """Returns one line per checkpoint and cell with the benchmark's own scores."""
    names = list(dict.fromkeys(name for r in results.values() for name in r.means))
    lines = [
        [checkpoint, name, str(cell.items),
         *(interval(m.value, m.interval, 1) if (m := cell.means.get(n)) else "-" for n in names),
         "-" if cell.judged is None or cell.judged.judge_missing is None else str(cell.judged.judge_missing)]
        for checkpoint, result in results.items() for name, cell in result.cells.items() if cell.items
    ]  # fmt: skip
    return Table("by cell", ("checkpoint", "cell", "items", *names, "judgements missing"), lines)


def judges(results: dict[str, SetMetrics]) -> Table:
    """Returns one line per checkpoint and judge: what it gave, what it owes, and whether its evidence stands there."""
    told = [
        (checkpoint, judge, of) for checkpoint, r in results.items() for judge, of in r.own.get("judges", {}).items()
    ]
    names = list(dict.fromkeys(name for *_, of in told for name in of["means"]))
    lines = []
    for checkpoint, judge, of in told:
        means = (of["means"].get(name, {"value": None, "interval": None}) for name in names)
        read = of["votes"] - of["unreadable"] - of["refused"] - of["failed"]
        lines.append(
            [checkpoint, judge, str(of["votes"]), *(str(of[state]) for state in ("unreadable", "refused", "failed")),
             f"{read - of['without_quote']} of {read}", f"{of['quotes_found']} of {of['quotes']}",
             f"{of['tokens']:,}" + ("" if of["cost"] is None else f" ({of['cost']:.4f})"),
             *(interval(mean["value"], mean["interval"], 1) for mean in means)]
        )  # fmt: skip
    head = (
        "checkpoint",
        "judge",
        "asked",
        "unreadable",
        "refused",
        "failed",
        "with evidence",
        "found in the reply",
        "tokens (cost)",
    )
    return Table("judges", (*head, *names), lines)


def _format_rate(result: SetMetrics) -> float | None:
    """Returns the share of well-formed responses to multiple-choice questions."""
    chosen = [(c.choice.format_rate, c.items) for c in result.cells.values() if c.choice]
    known = [(rate, items) for rate, items in chosen if rate is not None]
    items = sum(n for _, n in known)
    return sum(rate * n for rate, n in known) / items if items else None


def by_cell(results: dict[str, SetMetrics]) -> Table:
    head = ("checkpoint", "cell", "items", *(f"{r} % [95 %]" for r in READINGS), "elastic % [95 %]", "pass@k", "other")
    lines = []
    for checkpoint, result in results.items():
        for name, cell in result.cells.items():
            if cell.items:
                lines.append([checkpoint, name, str(cell.items), *_of_choice(cell), _other(cell)])
    return Table("by kind of question", head, lines)


def _of_choice(cell: Cell) -> list[str]:
    if cell.choice is None:
        return ["-", "-", "-", ""]
    c = cell.choice
    passes = ", ".join(f"@{k} {share(v)}" for k, v in c.pass_at.items() if v is not None)
    strict = interval(c.strict_match, c.strict_match_ci)
    return [interval(c.accuracy, c.accuracy_ci), strict, interval(c.elastic, c.elastic_ci), passes]


def _other(cell: Cell) -> str:
    parts = [f"{name} {interval(m.value, m.interval, 1)}" for name, m in cell.means.items() if m.value is not None]
    if cell.judged and cell.judged.judge_missing:
        parts.append(f"{cell.judged.judge_missing} judgements missing")
    return ", ".join(parts)


def averages(results: dict[str, SetMetrics], of: Sequence[tuple[str, ...]]) -> Table:
    """Returns the averages in [0, 1] that stand under these names: ("average_strict",), ("item_weighted", "KG")..."""
    lines = []
    for checkpoint, result in results.items():
        for *groups, key in of:
            values = result.own
            for group in groups:
                values = values[group]
            if values.get(key) is not None:
                lines.append([checkpoint, " ".join((*groups, key)), interval(values[key], values.get(f"{key}_ci"))])
    return Table("averages", ("checkpoint", "average", "% [95 %]"), lines)


def by_subject(results: dict[str, SetMetrics]) -> Table:
    subjects = dict.fromkeys(s for r in results.values() for s in r.subjects)
    lines = []
    for subject in subjects:
        of_checkpoints = [r.subjects.get(subject) for r in results.values()]
        accuracies = [interval(one["accuracy"], one["accuracy_ci"]) if one else "-" for one in of_checkpoints]
        lines.append([subject or "(none)", str(max(one["items"] for one in of_checkpoints if one)), *accuracies])
    return Table("accuracy by subject, % [95 %]", ("subject", "items", *results), lines)


def differences(pairs: dict[str, list[Difference]]) -> list[Table]:
    """Returns the paired differences of {"A -> B": ...} over whole sets, accuracy apart from the other scores."""
    head = ("from -> to", "items", "difference", "95 % interval")
    told = [(pair, d) for pair, of_pair in pairs.items() for d in of_pair]
    accuracy = [[pair, str(d.items), d.told(d.gain), d.interval] for pair, d in told if d.score == ACCURACY]
    others = [[pair, d.score, str(d.items), d.told(d.gain), d.interval] for pair, d in told if d.score != ACCURACY]
    return [
        Table("paired difference in accuracy", head, accuracy),
        Table("paired difference in other scores", (head[0], "score", *head[1:]), others),
    ]


def published_rows(published: Published) -> list[dict]:
    return yaml.safe_load((PUBLISHED / published.file).read_text(encoding="utf-8"))["results"]


def beside_published(results: dict[str, SetMetrics], published: Published) -> list[Table]:
    """Returns our rows beside the published ones, and our averages minus theirs with our interval."""
    rows = published_rows(published)

    def line(name: str, columns: dict) -> list[str]:
        return [name, *("-" if columns.get(k) is None else f"{columns[k]:.2f}" for k in published.columns)]

    beside = [line(f"ours: {c}", r.published_columns) for c, r in results.items()]
    beside += [line(row["model"], row) for row in rows]
    lines = []
    for checkpoint, result in results.items():
        if any(result.own.get(ours) is None for ours in published.averages):
            continue
        for row in rows:
            cells = [checkpoint, row["model"]]
            for ours, theirs in published.averages.items():
                value, bounds = result.own[ours], result.own[f"{ours}_ci"]
                low, high = (100 * bound - row[theirs] for bound in bounds)
                cells.append(f"{100 * value - row[theirs]:+.2f} [{low:+.2f}, {high:+.2f}]")
            lines.append(cells)
    head = ("model", *published.columns.values())
    tables = [Table(f"beside the published rows (recipes/published/{published.file})", head, beside)]
    if published.averages:
        caption = "our averages minus the published ones, with our 95 % interval (theirs is unpublished)"
        tables.append(Table(caption, ("checkpoint", "published model", *published.averages.values()), lines))
    return tables
