"""The data stage: questions of a public data set or of one's own table -> training files.

    python -m launch.data recipe=demo
    python -m launch.data recipe=demo source=cpsyexam source_path=DIR
    python -m launch.data recipe=demo source=table source_path=my.csv "source_options={columns: {stem: 题目}}"
    python -m launch.data recipe=psyche_r1 run=NAME passages=BOOKS posts=posts.jsonl llm=deepseek llm.model=NAME
    python -m launch.data recipe=psyche_r1 run=NAME passages=BOOKS dry_run=true      # calls, tokens, cost
    python -m launch.data status run=demo

`source=synthesis` makes questions and dialogues out of raw text (data_pipeline/synthesis/); every other source reads
questions that are there. Writes runs/NAME/data/: questions.jsonl, questions.rejects.jsonl (every row left out, with its
reason), sft.jsonl and dataset_info.json for LLaMA-Factory, grpo.jsonl, grpo_dialogues.jsonl and grpo_train.parquet for
verl, heldout.jsonl and grpo_validation.parquet for evaluation, datacard.md and datacard.html.
"""

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from data_pipeline import llm, sources
from data_pipeline.counts import DataCounts, Decontamination, StepCounts
from data_pipeline.errors import BadInput
from data_pipeline.export.training_files import Export, count_reasons
from data_pipeline.prompts import prompt_text
from data_pipeline.records import Dialogue, Question, Reject, read_lines
from data_pipeline.synthesis import cost_plan, splits
from data_pipeline.synthesis import run as synthesis
from data_pipeline.synthesis.configuration import READS, Configuration, configuration
from data_pipeline.synthesis.decontaminate import Overlaps, decontaminate
from data_pipeline.synthesis.models import find_models
from launch.cli import recipe_files
from launch.cli.arguments import DATA, Command
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.reports import datacard
from launch.running.folder import StageFolder, finished_manifest, open_stage, read_manifest


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput when nothing usable is left, StageFailed when the budget is spent."""
    prompt_text(config.system, "system")  # a wrong name is told before anything is read or paid
    with recipe_files.named(command, "data"):
        limits = splits.settings(as_dict(config))
        if limits.split.grpo_dialogues and not (config.source == "synthesis" and (config.posts or config.dialogues)):
            raise BadInput(
                f"split.grpo_dialogues={limits.split.grpo_dialogues}: there is no dialogue without source=synthesis "
                "and posts=PATH or dialogues={source: NAME, path: PATH}; give one, or say split.grpo_dialogues=0"
            )
    if config.source == "synthesis":
        with recipe_files.named(command, "data"):
            synthesise(config, command)
        return
    sources.find_reader(config.source)
    if not config.source_path:
        raise BadInput(
            f"source_path has no value: say source_path=..., the file or folder that source={config.source} reads"
        )
    if config.dry_run:
        there = Path(config.source_path).exists()
        show_plan(as_dict(config), in_earnest(command), {}, ["rows unknown"] * (not there))
        return
    started = time.monotonic()
    questions, rejects = read(config)
    total = len(questions) + len(rejects)
    questions, overlapping, overlaps = clean_of_benchmarks(questions, config)
    questions, left = splits.take(questions, limits)
    export = Export(*splits.split(questions, limits), [], [], [*rejects, *overlapping, *left], overlaps)
    check(export, total, config)
    folder = open_stage(DATA, config, {"source": Path(config.source_path), **benchmarks(config)}, command)
    if is_done(folder, config.run):
        return
    finish(folder, export, export.counts(total), config, started)


def synthesise(config: DictConfig, command: Command) -> None:
    """Makes questions and dialogues from passages and posts, then exports them; runs what is not done yet."""
    if config.dry_run:
        notes = cost_plan.lines(cost_plan.plan(configuration(as_dict(config))))
        show_plan(as_dict(config), in_earnest(command), {}, notes)
        return
    if config.source_path:
        raise BadInput(
            f"source_path={config.source_path}: source=synthesis does not read it; say source=table (your own "
            "questions), source=cpsyexam, or passages= and posts="
        )
    started = time.monotonic()
    asked = configuration(as_dict(config))
    paths = raw_texts(asked)
    find_models(asked, Path("runs") / config.run / "data" / "ledger.sqlite")  # before there is a folder
    people = asked.files_of_people()
    inputs = {f"{key}.{n}": Path(file) for key, files in people.items() for n, file in enumerate(files)}
    free = ("limit", *people)  # what is done already stays: steps look for themselves at what has changed
    folder = open_stage(DATA, config, {**paths, **benchmarks(config), **inputs}, command, free)
    if is_done(folder, config.run):
        return
    try:
        made = synthesis.run(asked, folder.path, lambda text: console.print(f"  {text}"))
    except llm.BudgetSpent as error:
        raise StageFailed(str(error)) from None
    if not made.finished:
        show_steps(config.run, made.counts)
        return
    if config.passages and not made.questions:
        lost = max(made.counts, key=lambda name: made.counts[name].rejected)
        raise BadInput(
            f"{config.passages}: no question is left; most were rejected by {lost}: see "
            f"{folder.path}/steps/{lost}/rejects.jsonl"
        )
    total = len(made.questions) + len(made.dialogues)
    export = export_of(made, config)
    check(export, total, config)
    finish(folder, export, export.counts(total).model_copy(update={"steps": made.counts}), config, started)


def in_earnest(command: Command) -> list[str]:
    """Returns the command of a dry run without its dry_run=true."""
    group = f"+{command.words['recipe']}="
    words = [word for word in command.overrides if word != "dry_run=true" and not word.startswith(group)]
    words = [word.removeprefix("+") if word.startswith("+llm=") else word for word in words]
    return ["python", "-m", "launch.data", f"recipe={command.words['recipe']}", *words]


def raw_texts(asked: Configuration) -> dict[str, Path]:
    """Returns {key: path} of the raw texts that are given; raises BadInput for a path that is not there."""
    paths = {READS[name]: Path(source.path) for name, source in asked.sources().items()}
    for name, path in paths.items():
        if not path.exists():
            raise BadInput(f"{name}={path}: no such file or folder")
    return paths


def export_of(made: synthesis.Synthesised, config: DictConfig) -> Export:
    """Returns what of the synthesised rows goes where."""
    rows, rejects, overlaps = clean_of_benchmarks([*made.questions, *made.dialogues], config)
    questions = [row for row in rows if isinstance(row, Question)]
    dialogues = [row for row in rows if isinstance(row, Dialogue)]
    limits = splits.settings(as_dict(config))
    dialogues, flagged = splits.without_crisis(dialogues, limits)
    prompts, dialogues = splits.draw_prompts(dialogues, limits)
    dialogues, unmixed = splits.mix(dialogues, len(questions), limits)
    questions, left = splits.take(questions, limits)
    heldout, grpo, sft, beyond = splits.split_selected(questions, limits)
    return Export(heldout, grpo, sft, dialogues, prompts, [*rejects, *flagged, *unmixed, *left, *beyond], overlaps)


def benchmarks(config: DictConfig) -> dict[str, Path]:
    return {f"benchmark_{n}": Path(entry.path) for n, entry in enumerate(config.decontaminate.against)}


def check(export: Export, total: int, config: DictConfig) -> None:
    """Raises BadInput when nothing is left to train on, or the exporters would refuse a question."""
    if not (export.sft or export.grpo or export.dialogues or export.grpo_dialogues):
        reasons = ", ".join(f"{n} x {reason}" for reason, n in count_reasons(export.rejects).most_common(3))
        where = config.passages if config.source == "synthesis" else config.source_path
        raise BadInput(f"{where}: no question left of {total} ({reasons or 'the source is empty'})")
    export.check(config.train_on_benchmark, config.open_questions)


def is_done(folder: StageFolder, name: str) -> bool:
    """Returns whether the stage has been run already, and says so."""
    if folder.done:
        console.print(f"data: {folder.path} is done already; delete it to make it again")
        show_status(name)
    return folder.done


def finish(folder: StageFolder, export: Export, counts: DataCounts, config: DictConfig, started: float) -> None:
    """Writes the training files, the data card and the manifest."""
    system = prompt_text(config.system, "system")
    files = export.write(folder.path, config.train_on_benchmark, config.thoughts, system)
    sft_rows, seconds = sum(1 for _ in read_lines(files["sft.jsonl"])), round(time.monotonic() - started, 2)
    counts = counts.model_copy(update={"sft_rows": sft_rows, "steps": counts.steps, "seconds": seconds})
    costs = llm.totals(folder.path / "ledger.sqlite")
    files |= datacard.write(folder.path, config.run, counts, costs)
    folder.finish(files, counts.as_json(), calls=costs, cost=sum(c["cost"] or 0 for c in costs) or None)
    show_status(config.run)


def read(config: DictConfig) -> tuple[list[Question], list[Reject]]:
    """Returns the questions without exact repetitions, and the rejects so far."""
    questions, rejects, seen = [], [], {}
    options = _options(as_dict(config.source_options), "source_options")
    for record in sources.read(config.source, config.source_path, **options):
        if not isinstance(record, Question | Reject):
            raise BadInput(
                f"source={config.source} reads {type(record).__name__.lower()}s, not questions; they go through the "
                'steps: source=synthesis with passages=PATH, posts=PATH or "dialogues={source: NAME, path: PATH}"'
            )
        if isinstance(record, Question):
            key = (record.context, record.stem, *record.options)
            if key in seen:
                record = Reject(record.id, record.meta["where"], "repeats another question", seen[key])
            else:
                seen[key] = record.id
        (rejects if isinstance(record, Reject) else questions).append(record)
    return questions, rejects


def _options(given: object, key: str) -> dict[str, Any]:
    """Returns a reader's options by name, names that YAML took for numbers too; BadInput for what is no dictionary."""
    if not isinstance(given, dict):
        raise BadInput(f"{key}={given}: takes a dictionary, {{OPTION: VALUE}}")
    return {str(name): value for name, value in given.items()}


def clean_of_benchmarks(rows: list[Any], config: DictConfig) -> tuple[list[Any], list[Reject], Overlaps]:
    """Returns (rows, questions or dialogues, that overlap no benchmark, a Reject of each other, the overlaps).

    Without a benchmark nothing is compared, and the counts of the overlaps say why.
    """
    settings = as_dict(config.decontaminate)
    why = (
        "train_on_benchmark=true" if config.train_on_benchmark else "" if settings["against"] else "no benchmark given"
    )
    if why:
        return rows, [], Overlaps(Decontamination(not_decontaminated=why))
    benchmark = []
    for entry in settings["against"]:
        if not isinstance(entry, dict) or not {"source", "path"} <= set(entry) <= {"source", "path", "options"}:
            raise BadInput(f"decontaminate.against: {entry}; each takes source, path and, if needed, options")
        options = _options(entry.get("options", {}), "decontaminate.against.options")
        records = sources.read(entry["source"], entry["path"], "decontaminate.against.source", **options)
        benchmark += [record for record in records if isinstance(record, Question)]
    return decontaminate(rows, benchmark, settings["n"], settings["threshold"])


def status(command: Command) -> None:
    """`python -m launch.data status run=NAME`"""
    if "run" not in command.words:
        raise BadInput("status of which run? `python -m launch.data status run=NAME`")
    show_status(command.words["run"])


def show_status(name: str) -> None:
    """Prints where the rows went; of a synthesis that is not finished, what is done."""
    manifest = read_manifest(name, "data")
    steps = synthesis.done_steps(Path("runs") / name / "data" / "steps")
    if manifest and manifest["status"] != "finished" and steps:
        return show_steps(name, steps)
    manifest = finished_manifest(name, "data", f"python -m launch.data run={name}")
    counts = DataCounts.model_validate(manifest["counts"])
    if counts.steps:
        show_steps(name, counts.steps)
    table = Table("rows", "", title=f"run {name}: data", title_justify="left")
    table.add_row(str(counts.into), "in")
    table.add_row(str(counts.rejected), "rejected")
    table.add_row(str(counts.out), "out")
    table.add_row(str(counts.sft), "  of these SFT")
    if counts.dialogues:
        table.add_row(str(counts.dialogues), "    of these dialogues")
    table.add_row(str(counts.grpo), "  GRPO prompts")
    if counts.grpo_dialogues:
        table.add_row(str(counts.grpo_dialogues), "    of these dialogues, for a judge")
    table.add_row(str(counts.heldout), "  held out")
    if why := counts.decontaminated.not_decontaminated:
        table.caption = f'not decontaminated: {why} (decontaminate.against="[{{source: pceb, path: DIR}}]")'.replace(
            "[", "\\["
        )
    for reason, number in counts.reasons.items():
        table.add_row(str(number), f"rejected: {reason}")
    console.print(table)


def show_steps(name: str, steps: dict[str, StepCounts]) -> None:
    """Prints the funnel of a synthesis."""
    table = Table("step", "in", "out", "rejected", "merged", "s", title=f"run {name}: synthesis", title_justify="left")
    for step, counts in steps.items():
        seconds = "" if counts.seconds is None else counts.seconds
        cells = (counts.into, counts.out, counts.rejected, counts.merged, seconds)
        table.add_row(step, *map(str, cells))
    console.print(table)


if __name__ == "__main__":
    run_stage(DATA, run, {"status": status})
