"""The data card of a run: Markdown and one HTML page that could be published with the data set.

runs/NAME/data/datacard.md and datacard.html: the funnel as a table and a picture, lengths, subjects, cost, samples per
step. Written by the data stage.
"""

import itertools
import random
from collections import Counter
from pathlib import Path

from data_pipeline.counts import DataCounts, StepCounts
from data_pipeline.records import Dialogue, Question, Reject, read_jsonl, read_records
from eval import report
from eval.contract import Table

SHOWN = 3  # samples per step


def write(folder: Path, name: str, counts: DataCounts, costs: list[dict]) -> dict[str, Path]:
    """Writes both files from what the stage has written into `folder`; returns {file name: path}."""
    questions = list(read_records(folder / "questions.jsonl", Question))
    dialogues = list(read_records(folder / "dialogues.jsonl", Dialogue))
    tables = [_rows_table(counts), _funnel_table(counts.steps), _reasons_table(counts), _cost_table(costs),
              _subject_table(questions, dialogues)]  # fmt: skip
    plots = [funnel(counts)]
    lengths = {
        "question": [len(q.stem) + sum(map(len, q.options)) for q in questions],
        "rationale": [len(q.rationale) for q in questions if q.rationale],
        "reply": [len(t.content) for d in dialogues for t in d.turns if t.role == "counselor"],
    }
    plots += [histogram(values, f"characters of a {what}") for what, values in lengths.items() if values]
    section = report.Section("What is in it", _notes(counts), tables, plots)
    content = report.Page(f"Data card of run {name}", [section, *_step_sections(folder / "steps")])
    return report.write(folder, content, "datacard")


def _notes(counts: DataCounts) -> list[str]:
    notes = ["Made by PsyForge. A research artefact: not for diagnosis or treatment, not for people in crisis."]
    if why := counts.decontaminated.not_decontaminated:
        notes.append(f"Not compared with any benchmark: {why}.")
    if prompts := counts.grpo_dialogues:
        notes.append(
            f"{prompts} dialogues are GRPO prompts (ours, not the papers'): each is cut before one reply, drawn by "
            "seed and id, which a judge is to reward; the reply that stood there is its reference. None of them, and "
            "no dialogue of the same post, is in an SFT row."
        )
    return notes


def _rows_table(counts: DataCounts) -> Table:
    dialogues = ("grpo_dialogues",) if counts.grpo_dialogues else ()
    labels, figures = ("in", "rejected", "out", "sft", "dialogues", "grpo", *dialogues, "heldout"), counts.as_json()
    return Table("rows", ("", "rows"), [[label, str(figures[label])] for label in labels])


def _funnel_table(steps: dict[str, StepCounts]) -> Table:
    head = ("step", "in", "out", "rejected", "merged")
    rows = [[step, str(c.into), str(c.out), str(c.rejected), str(c.merged)] for step, c in steps.items()]
    return Table("funnel", head, rows)


def _reasons_table(counts: DataCounts) -> Table:
    rows = [[reason, str(number)] for reason, number in counts.reasons.items()]
    return Table("left out of the training files", ("reason", "rows"), rows)


def _cost_table(costs: list[dict]) -> Table:
    keys = ("step", "model", "calls", "failures", "prompt_tokens", "completion_tokens", "cost")
    return Table("model calls", keys, [[str(c[k]) for k in keys] for c in costs])


def _subject_table(questions: list[Question], dialogues: list[Dialogue]) -> Table:
    kinds = Counter((q.subject or "(none)", q.kind) for q in questions)
    subjects = sorted({subject for subject, _ in kinds}, key=lambda s: (-kinds[s, "single"] - kinds[s, "multi"], s))
    rows = [[s, str(kinds[s, "single"]), str(kinds[s, "multi"])] for s in subjects]
    if dialogues:
        rows.append([f"dialogues: {len(dialogues)}", "", ""])
    return Table("subjects", ("subject", "single-answer", "multi-answer"), rows)


def funnel(counts: DataCounts) -> report.Picture:
    """Returns the picture of how many rows each step passed on and rejected."""
    from matplotlib.figure import Figure

    steps = counts.steps or {"read": StepCounts(into=counts.into, out=counts.out, rejected=counts.rejected)}
    figure = Figure(figsize=(7.2, 0.42 * len(steps) + 1.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    names = list(steps)[::-1]
    left = [0] * len(names)
    for key, colour in (("out", "#3b7dd8"), ("merged", "#9db4d0"), ("rejected", "#d8743b")):
        values = [getattr(steps[n], key) for n in names]
        axes.barh(names, values, left=left, label=key, color=colour)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_xlabel("rows")
    axes.legend()
    return report.picture(figure, "rows passed on, merged and rejected by every step")


def histogram(values: list[int], label: str) -> report.Picture:
    """Returns the picture of a distribution of lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=min(40, max(5, len(values) // 5)), color="#3b7dd8")
    axes.set_xlabel(label)
    axes.set_ylabel("rows")
    return report.picture(figure, f"distribution of {label}")


def _step_sections(steps: Path) -> list[report.Section]:
    """Returns one section per step with samples of its output and its rejects."""
    sections = []
    for state in sorted(
        steps.glob("*/*/step.json"), key=lambda p: (p.parts[-3] == "dialogues", p.parts[-3] == "posts", p.parent.name)
    ):
        place = state.parent
        rows = [row for _, row in read_jsonl(place / "rows.jsonl")]
        shown = random.Random(0).sample(rows, min(SHOWN, len(rows)))
        rejects = list(itertools.islice(read_records(place / "rejects.jsonl", Reject), SHOWN))
        tables = [
            Table("samples of its output", ("id", "text"), [[row["id"], _text(row)] for row in shown]),
            Table("samples of its rejects", ("id", "reason"), [[reject.id, reject.reason] for reject in rejects]),
        ]
        sections.append(report.Section(f"{place.parent.name}: {place.name}", tables=tables))
    return sections


def _text(row: dict) -> str:
    if "turns" in row:
        text = " / ".join(turn["content"] for turn in row["turns"])
    elif "stem" in row:
        text = f"{row['stem']} {' | '.join(row['options'])} ({row['answer']}) {row['rationale']}"
    else:
        text = " / ".join([row["text"], *row.get("replies", [])])
    return text.replace("\n", " ")[:300]
