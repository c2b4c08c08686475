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
LEGEND = {  # what a column holds; intervals are of 95 % (eval/intervals.py)
    "checkpoint": "the model as it was after that stage; endpoint: the one behind a server",
    "model": "ours, or as its paper names it",
    "cell": "a part of the benchmark, as its table has it",
    "items": "questions or dialogues that were asked",
    "flexible_extract": "accuracy by what models really write (reward/rules.md)",
    "strict_match": "accuracy by the form alone that the prompts ask for",
    "flexible_extract % [95 %]": "accuracy by what models really write (reward/rules.md), with its interval",
    "strict_match % [95 %]": "accuracy by the form alone that the prompts ask for, with its interval",
    "single": "accuracy on questions with one right letter",
    "multi strict": "share of questions with several right letters of which exactly these were named",
    "multi elastic": "the same with credit for a part of the letters, by the elastic rule",
    "elastic % [95 %]": "accuracy with credit for a part of the letters, by the elastic rule",
    "pass@k": "share of items that at least one of k samples answers",
    "format": "share of responses in the form that the prompts ask for",
    "unreadable": "responses without an answer that can be read; they count as wrong",
    "cut": "responses that reached the limit of tokens",
    "failed": "requests without a reply; the same command asks them again",
    "judgements missing": "what the judge still owes: failed, or not to be read",
    "judge": "the model that judged",
    "asked": "votes that were asked for",
    "refused": "votes that a filter refused",
    "with evidence": "readable votes that quote the reply",
    "found in the reply": "quotes that stand in the reply word for word",
    "tokens (cost)": "of prompts and replies together, in the currency of the prices",
    "average": "which mean, and over what",
    "% [95 %]": "value and interval",
    "subject": "branch of psychology",
    "from -> to": "which two checkpoints, item by item",
    "score": "what is compared",
    "difference": "the second minus the first, on the items that both have answered",
    "95 % interval": "of that difference, paired; above or below 0: it is no chance",
    "published model": "as its paper names it",
}
KINDS = (("single", "accuracy"), ("multi", "accuracy"), ("multi", "elastic"))
OWN = ("checkpoint", "items", "unreadable", "cut", "failed")


def legend(head: Sequence[str]) -> dict[str, str]:
    """Returns {column: what it holds} of a table; columns of no standing meaning are a benchmark's own scores."""
    own = {
        name: "the benchmark's own score of that name, its mean and interval"
        for name in head
        if name and name not in LEGEND
    }
    return {name: LEGEND[name] for name in head if name in LEGEND} | (own if "checkpoint" in head else {})


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
    """Returns one line per checkpoint and cell; own scores, such as an essay's, have columns of theirs."""
    shown = [
        (checkpoint, name, cell) for checkpoint, r in results.items() for name, cell in r.cells.items() if cell.items
    ]
    own = list(dict.fromkeys(name for *_, cell in shown for name, mean in cell.means.items() if mean.value is not None))
    missing = any(cell.judged and cell.judged.judge_missing for *_, cell in shown)
    head = ("checkpoint", "cell", "items", *(f"{r} % [95 %]" for r in READINGS), "elastic % [95 %]", "pass@k", *own,
            *(["judgements missing"] if missing else []))  # fmt: skip
    lines = [
        [checkpoint, name, str(cell.items), *_of_choice(cell),
         *(interval(m.value, m.interval, 1) if (m := cell.means.get(n)) else "-" for n in own),
         *([str((cell.judged and cell.judged.judge_missing) or 0)] if missing else [])]
        for checkpoint, name, cell in shown
    ]  # fmt: skip
    return Table("by kind of question", head, lines)


def _of_choice(cell: Cell) -> list[str]:
    if cell.choice is None:
        return ["-", "-", "-", ""]
    c = cell.choice
    passes = ", ".join(f"@{k} {share(v)}" for k, v in c.pass_at.items() if v is not None)
    strict = interval(c.strict_match, c.strict_match_ci)
    return [interval(c.accuracy, c.accuracy_ci), strict, interval(c.elastic, c.elastic_ci), passes]


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
