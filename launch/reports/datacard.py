"""The data card of a run: Markdown and one HTML page that could be published with the data set.

runs/NAME/data/datacard.md and datacard.html: sources with their licences, models, prompts, what was compared with which
benchmark, what was left out and why, personal data, lengths, subjects, samples per step. Written by the data stage.
"""

import itertools
import random
from collections import Counter
from pathlib import Path

from data_pipeline.counts import DataCounts, StepCounts
from data_pipeline.records import Dialogue, Question, Reject, read_jsonl, read_records
from data_pipeline.synthesis.files import step_folders, told_by_steps
from eval import report
from eval.contract import Table
from eval.report import Section
from launch.reports import provenance
from launch.reports.pictures import funnel, histogram
from launch.reports.provenance import About

SHOWN = 3  # samples per step


def write(folder: Path, about: About, counts: DataCounts, costs: list[dict]) -> dict[str, Path]:
    """Writes both files from what the stage has written into `folder`; returns {file name: path}."""
    questions = list(read_records(folder / "questions.jsonl", Question))
    dialogues = list(read_records(folder / "dialogues.jsonl", Dialogue))
    rows, steps = [*questions, *dialogues], folder / "steps"
    trained = ["system_general", "system_case"] if questions else []
    trained += [about.system] if dialogues and about.system else []
    lengths = {
        "questions": [len(q.stem) + sum(map(len, q.options)) for q in questions],
        "rationales": [len(q.rationale) for q in questions if q.rationale],
        "replies": [len(t.content) for d in dialogues for t in d.turns if t.role == "counselor"],
    }
    read = {"read": StepCounts(into=counts.into, out=counts.out, rejected=counts.rejected)}
    plots = [funnel(counts.steps or read), *(histogram(values, what) for what, values in lengths.items() if values)]
    sections = [
        Section("What is in it", _notes(counts), [_rows_table(counts), _subject_table(questions, dialogues)], plots),
        Section(
            "Where it comes from",
            [provenance.USE],
            [
                provenance.sources_table(about.origins),
                provenance.models_table(costs),
                provenance.prompts_table(rows, trained),
            ],
        ),
        Section(
            "What was done to it",
            [f"{step}: {told}" for step, told in told_by_steps(steps).items()],
            [
                _funnel_table(counts.steps),
                provenance.overlaps_table(about, counts),
                provenance.rejects_table(steps, counts),
            ],
        ),
        Section("Personal data", [provenance.PRIVACY], [provenance.cleaning_table(steps, rows)]),
    ]
    title = f"Data card of run {about.run}"
    content = report.Page(title, [*sections, *_step_sections(steps)], provenance.figures(about, costs))
    return report.write(folder, content, "datacard")


def _notes(counts: DataCounts) -> list[str]:
    notes = []
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


def _subject_table(questions: list[Question], dialogues: list[Dialogue]) -> Table:
    kinds = Counter((q.subject or "(none)", q.kind) for q in questions)
    subjects = sorted({subject for subject, _ in kinds}, key=lambda s: (-kinds[s, "single"] - kinds[s, "multi"], s))
    rows = [[s, str(kinds[s, "single"]), str(kinds[s, "multi"])] for s in subjects]
    if dialogues:
        rows.append([f"dialogues: {len(dialogues)}", "", ""])
    return Table("subjects", ("subject", "single-answer", "multi-answer"), rows)


def _step_sections(steps: Path) -> list[Section]:
    """Returns one section per step with samples of its output and its rejects."""
    sections = []
    for place in step_folders(steps):
        rows = [row for _, row in read_jsonl(place / "rows.jsonl")]
        shown = random.Random(0).sample(rows, min(SHOWN, len(rows)))
        rejects = list(itertools.islice(read_records(place / "rejects.jsonl", Reject), SHOWN))
        tables = [
            Table("samples of its output", ("id", "text"), [[row["id"], _text(row)] for row in shown]),
            Table("samples of its rejects", ("id", "reason"), [[reject.id, reject.reason] for reject in rejects]),
        ]
        sections.append(Section(f"{place.parent.name}: {place.name}", [], tables))
    return sections


def _text(row: dict) -> str:
    if "turns" in row:
        text = " / ".join(turn["content"] for turn in row["turns"])
    elif "stem" in row:
        text = f"{row['stem']} {' | '.join(row['options'])} ({row['answer']}) {row['rationale']}"
    else:
        text = " / ".join([row["text"], *row.get("replies", [])])
    return text.replace("\n", " ")[:300]
