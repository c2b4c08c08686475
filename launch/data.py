"""The data stage: questions of a public data set or of one's own table -> training files.

    python -m launch.data recipe=demo
    python -m launch.data recipe=demo source=cpsyexam source_path=DIR
    python -m launch.data recipe=demo source=table source_path=my.csv "source_options={columns: {stem: 题目}}"
    python -m launch.data recipe=psyche_r1 run=NAME passages=BOOKS posts=posts.jsonl llm=deepseek llm.model=NAME
    python -m launch.data recipe=psyche_r1 run=NAME passages=BOOKS dry_run=true      # calls, tokens, cost
    python -m launch.data status run=demo

`source=synthesis` makes questions and dialogues out of raw text (launch/synthesis.py); every other source reads
questions that are there. Writes runs/NAME/data/: questions.jsonl, questions.rejects.jsonl (every row left out, with its
reason), sft.jsonl and dataset_info.json for LLaMA-Factory, grpo.jsonl and grpo_train.parquet for verl, heldout.jsonl
and grpo_validation.parquet for evaluation, datacard.md and datacard.html.
"""

import importlib
import pkgutil
import time
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from data_pipeline import llm, sources
from data_pipeline.export import exportable, llama_factory, verl
from data_pipeline.records import BadInput, Dialogue, Question, Reject, write_jsonl
from data_pipeline.steps.decontaminate import decontaminate
from launch import call_plan, datacard, runs, splits, stage, synthesis
from launch.arguments import Command, Stage, did_you_mean, prompt_text

STAGE = Stage("data", subcommands=("status",), has_hardware=False, has_llm=True)


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput when nothing usable is left, StageFailed when the budget is spent."""
    prompt_text(config.system, "system")  # a wrong name is told before anything is read or paid
    if config.source == "synthesis":
        return synthesise(config, command)
    reader = find_reader(config.source)
    if not config.source_path:
        raise BadInput(
            f"source_path has no value: say source_path=..., the file or folder that source={config.source} reads"
        )
    if config.dry_run:
        there = Path(config.source_path).exists()
        stage.show_plan(
            OmegaConf.to_container(config), ["python", "-m", "launch.data"], {}, ["rows unknown"] * (not there)
        )
        return None
    started = time.monotonic()
    questions, rejects = read(reader, config)
    total = len(questions) + len(rejects)
    questions, overlaps = clean_of_benchmarks(questions, rejects, config)
    questions = splits.take(questions, rejects, config.select, config.seed, config.open_questions)
    parts = splits.split(questions, rejects, config.split, config.seed)
    check_left(*parts, [], rejects, total, config)
    folder = runs.begin(STAGE, config, {"source": Path(config.source_path), **benchmarks(config)}, command)
    if folder.done:
        stage.console.print(f"data: {folder.path} is done already; delete it to make it again")
        return show_status(config.run)
    files = export(folder.path, *parts, [], rejects, overlaps["hits"], config)
    return close(folder, files, total, *parts, [], rejects, overlaps, started, {})


def synthesise(config: DictConfig, command: Command) -> None:
    """Makes questions and dialogues from passages and posts, then exports them; runs what is not done yet."""
    if config.dry_run:
        notes = call_plan.plan(config, Path("runs") / config.run / "data" / "ledger.sqlite")
        return stage.show_plan(OmegaConf.to_container(config), ["python", "-m", "launch.data"], {}, notes)
    if config.source_path:
        raise BadInput(
            f"source_path={config.source_path}: source=synthesis does not read it; say source=table (your own "
            "questions), source=cpsyexam, or passages= and posts="
        )
    started = time.monotonic()
    synthesis.wanted_steps(config)
    given = {k: config[k] for k in ("passages", "posts", "dialogues") if config[k]}
    paths = {k: Path(v if isinstance(v, str) else v.get("path", "")) for k, v in given.items()}
    for name, path in paths.items():
        if not path.exists():
            raise BadInput(f"{name}={path}: no such file or folder")
    folder = runs.begin(STAGE, config, {**paths, **benchmarks(config)}, command)
    if folder.done:
        stage.console.print(f"data: {folder.path} is done already; delete it to make it again")
        return show_status(config.run)
    try:
        made = synthesis.run(config, folder.path)
    except llm.BudgetSpent as error:
        raise stage.StageFailed(str(error)) from None
    if not made.finished:
        return show_steps(config.run, made.counts)
    rejects: list[Reject] = []
    total = len(made.questions) + len(made.dialogues)
    if config.passages and not made.questions:
        lost = max(made.counts.items(), key=lambda item: item[1]["rejected"])[0]
        raise BadInput(
            f"{config.passages}: no question is left; most were rejected by {lost}: see "
            f"{folder.path}/steps/{lost}/rejects.jsonl"
        )
    questions, overlaps = clean_of_benchmarks([*made.questions, *made.dialogues], rejects, config)
    dialogues = [row for row in questions if isinstance(row, Dialogue)]
    dialogues = without_crisis(dialogues, rejects, config.train_on_crisis)
    dialogues = splits.mix(
        dialogues, len(questions) - len(dialogues), rejects, config.dialogues_per_question, config.seed
    )
    questions = splits.take([q for q in questions if isinstance(q, Question)], rejects, config.select, config.seed)
    parts = splits.split_selected(questions, rejects, config.split, config.seed)
    check_left(*parts, dialogues, rejects, total, config)
    files = export(folder.path, *parts, dialogues, rejects, overlaps["hits"], config)
    return close(folder, files, total, *parts, dialogues, rejects, overlaps, started, made.counts)


def without_crisis(dialogues: list[Dialogue], rejects: list[Reject], train_on_crisis: bool) -> list[Dialogue]:
    """Returns the dialogues without crisis content, or, with `train_on_crisis`, with those that no step refused.

    The others join `rejects` and wait for people; they stand in the step's files as well.
    """

    def trained(dialogue: Dialogue) -> bool:
        if not dialogue.meta.get("crisis"):
            return True
        refused = dialogue.meta.get("validation", {}).get("keep", True) is not True
        return train_on_crisis and not refused and dialogue.meta.get("answer") != "guidance"

    why = "flagged for people: crisis content (train_on_crisis=true trains on answers that no step refused)"
    rejects += [Reject(d.id, d.meta.get("where", d.id), why) for d in dialogues if not trained(d)]
    return [d for d in dialogues if trained(d)]


def benchmarks(config: DictConfig) -> dict[str, Path]:
    return {f"benchmark_{n}": Path(entry.path) for n, entry in enumerate(config.decontaminate.against)}


def check_left(heldout: list, grpo: list, sft: list, dialogues: list, rejects: list, total: int, config: DictConfig):
    """Raises BadInput when nothing is left to train on, or the exporters would refuse a question."""
    if not sft and not grpo and not dialogues:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in count_reasons(rejects).most_common(3))
        where = config.passages if config.source == "synthesis" else config.source_path
        raise BadInput(f"{where}: no question left of {total} ({reasons or 'the source is empty'})")
    for _ in exportable([*sft, *grpo], config.train_on_benchmark, config.open_questions):
        pass  # what the exporters refuse is refused before anything is written


def export(
    out: Path, heldout: list, grpo: list, sft: list, dialogues: list, rejects: list, hits: list, config: DictConfig
) -> dict[str, Path]:
    """Writes the training files; returns {name: path}."""
    allowed = config.train_on_benchmark
    write_jsonl(out / "questions.jsonl", [*sft, *grpo, *heldout])
    write_jsonl(out / "dialogues.jsonl", dialogues)
    write_jsonl(out / "questions.rejects.jsonl", rejects)
    write_jsonl(out / "overlaps.jsonl", hits)
    write_jsonl(out / "grpo.jsonl", grpo)
    write_jsonl(out / "heldout.jsonl", heldout)
    system = prompt_text(config.system, "system")
    llama_factory.write(out, sft, dialogues, "sft", allowed, config.thoughts, system)
    verl.write(out / "grpo_train.parquet", grpo, "train", allowed, open_questions=True)  # checked by check_left
    verl.write(out / "grpo_validation.parquet", heldout or grpo, "validation", True, open_questions=True)
    names = ("questions.jsonl", "dialogues.jsonl", "questions.rejects.jsonl", "overlaps.jsonl", "sft.jsonl",
             "dataset_info.json", "grpo.jsonl", "grpo_train.parquet", "heldout.jsonl",
             "grpo_validation.parquet")  # fmt: skip
    return {name: out / name for name in names}


def close(
    folder: runs.StageFolder, files: dict, total: int, heldout: list, grpo: list, sft: list, dialogues: list,
    rejects: list, overlaps: dict, started: float, steps: dict,
) -> None:  # fmt: skip
    """Counts, holds the balance, writes the data card and the manifest."""
    counts = {
        "in": total,
        "out": len(sft) + len(grpo) + len(heldout) + len(dialogues),
        "rejected": len(rejects),
        "sft": len(sft) + len(dialogues),
        "sft_rows": sum(1 for _ in files["sft.jsonl"].open("rb")),  # thoughts=last makes one of every counselor turn
        "dialogues": len(dialogues),
        "grpo": len(grpo),
        "heldout": len(heldout),
        "decontaminated": {key: value for key, value in overlaps.items() if key != "hits"},
        "reasons": dict(count_reasons(rejects).most_common()),
        "steps": steps,
        "seconds": round(time.monotonic() - started, 2),
    }
    if counts["in"] != counts["out"] + counts["rejected"]:
        raise AssertionError(f"rows were lost: {counts}")
    costs = llm.totals(folder.path / "ledger.sqlite")
    files |= datacard.write(folder.path, folder.manifest["run"], counts, costs)
    folder.finish(files, counts, calls=costs, cost=sum(c["cost"] or 0 for c in costs) or None)
    return show_status(folder.manifest["run"])


def find_reader(name: str):
    """Returns the module data_pipeline/sources/NAME.py; raises BadInput that lists those there are."""
    names = [module.name for module in pkgutil.iter_modules(sources.__path__)]
    if name not in names:
        raise BadInput(f"source={name}: no such reader; there is {', '.join(names)}{did_you_mean(name, names)}")
    return importlib.import_module(f"data_pipeline.sources.{name}")


def read(reader, config: DictConfig) -> tuple[list[Question], list[Reject]]:
    """Returns the questions without exact repetitions, and the rejects so far."""
    options = OmegaConf.to_container(config.source_options)
    try:
        records = reader.read(config.source_path, **options)
    except TypeError as error:
        raise BadInput(f"source_options: {str(error).replace('read() ', '')} (reader {config.source})") from None
    questions, rejects, seen = [], [], {}
    for record in records:
        if not isinstance(record, Question | Reject):
            raise BadInput(
                f"source={config.source} reads {type(record).__name__.lower()}s, not questions; they go through the "
                'steps: source=synthesis with passages=PATH, posts=PATH or "dialogues={source: NAME, path: PATH}"'
            )
        if isinstance(record, Question):
            key = (record.context, record.stem, *record.options)
            if key in seen:
                record = Reject(record.id, record.meta["where"], f"repeats another question: {seen[key]}")
            else:
                seen[key] = record.id
        (rejects if isinstance(record, Reject) else questions).append(record)
    return questions, rejects


def clean_of_benchmarks(questions: list[Question], rejects: list[Reject], config: DictConfig):
    """Returns (questions that no benchmark of the recipe holds, report with "hits"); the others join `rejects`.

    Without a benchmark nothing is compared, and the report says so: {"not_decontaminated": why}.
    """
    settings = OmegaConf.to_container(config.decontaminate)
    why = (
        "train_on_benchmark=true" if config.train_on_benchmark else "" if settings["against"] else "no benchmark given"
    )
    if why:
        return questions, {"not_decontaminated": why, "hits": []}
    benchmark = []
    for entry in settings["against"]:
        if not isinstance(entry, dict) or not {"source", "path"} <= set(entry) <= {"source", "path", "options"}:
            raise BadInput(f"decontaminate.against: {entry}; each takes source, path and, if needed, options")
        records = find_reader(entry["source"]).read(entry["path"], **entry.get("options", {}))
        benchmark += [record for record in records if isinstance(record, Question)]
    kept, found, report = decontaminate(questions, benchmark, settings["n"], settings["threshold"])
    rejects += found
    return kept, report


def count_reasons(rejects: list[Reject]) -> Counter:
    """Returns how often each reason stands; what follows its colon is detail."""
    return Counter(r.reason if r.reason.startswith("left out") else r.reason.split(":")[0] for r in rejects)


def status(command: Command) -> None:
    """`python -m launch.data status run=NAME`"""
    if "run" not in command.words:
        raise BadInput("status of which run? `python -m launch.data status run=NAME`")
    show_status(command.words["run"])


def show_status(name: str) -> None:
    """Prints where the rows went; of a synthesis that is not finished, what is done."""
    manifest = runs.read_manifest(name, "data")
    steps = synthesis.done_steps(Path("runs") / name / "data" / "steps")
    if manifest and manifest["status"] != "finished" and steps:
        return show_steps(name, steps)
    counts = runs.need(name, "data", f"python -m launch.data run={name}")["counts"]
    if counts["steps"]:
        show_steps(name, counts["steps"])
    table = Table("rows", "", title=f"run {name}: data", title_justify="left")
    labels = {"sft": "  of these SFT", "dialogues": "    of these dialogues", "grpo": "  GRPO prompts"}
    for label in ("in", "rejected", "out", "sft", "dialogues", "grpo", "heldout"):
        if label != "dialogues" or counts[label]:
            table.add_row(str(counts[label]), {**labels, "heldout": "  held out"}.get(label, label))
    if why := counts["decontaminated"].get("not_decontaminated"):
        table.caption = f'not decontaminated: {why} (decontaminate.against="[{{source: pceb, path: DIR}}]")'.replace(
            "[", "\\["
        )
    for reason, number in counts["reasons"].items():
        table.add_row(str(number), f"rejected: {reason}")
    stage.console.print(table)


def show_steps(name: str, steps: dict[str, dict]) -> None:
    """Prints the funnel of a synthesis."""
    table = Table("step", "in", "out", "rejected", "merged", "s", title=f"run {name}: synthesis", title_justify="left")
    for step, counts in steps.items():
        cells = (counts["in"], counts["out"], counts["rejected"], counts.get("merged", 0), counts.get("seconds", ""))
        table.add_row(step, *map(str, cells))
    stage.console.print(table)


if __name__ == "__main__":
    stage.main(STAGE, run, {"status": status})
