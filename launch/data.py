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

import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline import llm, sources
from data_pipeline.counts import DataCounts
from data_pipeline.errors import BadInput
from data_pipeline.export import exportable_dialogues, selection
from data_pipeline.export.selection import Selection
from data_pipeline.export.training_files import Export
from data_pipeline.llm import ledger
from data_pipeline.prompts import prompt_text
from data_pipeline.records import Dialogue, Reject, read_lines, read_records, write_jsonl
from data_pipeline.synthesis import cost_plan, splits
from data_pipeline.synthesis import run as synthesis
from data_pipeline.synthesis.configuration import READS, Configuration, configuration
from data_pipeline.synthesis.models import base_settings, find_models
from launch.cli import recipe_files
from launch.cli.arguments import DATA, Command, in_earnest
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.executors import chosen
from launch.preflight import costs
from launch.reports import datacard
from launch.reports.data_status import show_status, show_steps
from launch.reports.provenance import About, Origin
from launch.running.folder import StageFolder, ledger_of, open_stage, read_manifest

Begin = Callable[[dict[str, Path], Collection[str]], StageFolder]  # inputs, and keys that may change within a run


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput when too little is left, StageFailed for a spent budget or failed requests."""
    given = as_dict(config)

    def begin(inputs: dict[str, Path], free: Collection[str]) -> StageFolder:
        benchmarks = {f"benchmark_{n}": Path(one.path) for n, one in enumerate(asked.decontaminate.against)}
        return open_stage(DATA, config, inputs | benchmarks, command, free, (*selection.OF_EXPORT, *benchmarks))

    with recipe_files.named(command, "data"):
        asked = selection.settings(given)
        making = configuration(given) if asked.source == "synthesis" else None
        check(asked, making, config.executor, config.shared)
        if config.dry_run:
            notes = plan_of_synthesis(making, asked) if making else plan_of_questions(asked)
            show_plan(given, in_earnest(DATA, command), {}, notes)
        elif making and making.join:
            join(making, asked.run)
        elif making:
            synthesise(making, asked, begin)
        else:
            take(asked, begin)


def check(asked: Selection, making: Configuration | None, executor: str, shared: str | None) -> None:
    """Raises BadInput for what is wrong whatever the files hold, before anything is read or paid."""
    if making is None and executor != "machine":
        raise BadInput(f"executor={executor}: it takes the steps of source=synthesis; leave it out")
    if shared and executor != "ray":
        raise BadInput("shared=: only the nodes of executor=ray read it; say executor=ray, or leave it out")
    prompt_text(asked.system, "system")
    if making:
        making.ledger_at(Path())
    if asked.split.grpo_dialogues and not (making and (making.posts or making.dialogues)):
        raise BadInput(
            f"split.grpo_dialogues={asked.split.grpo_dialogues}: there is no dialogue without source=synthesis "
            "and posts=PATH or dialogues={source: NAME, path: PATH}; give one, or say split.grpo_dialogues=0"
        )
    if making is None:
        sources.find_reader(asked.source)
        if not asked.source_path:
            raise BadInput(
                f"source_path has no value: say source_path=..., the file or folder that source={asked.source} reads"
            )
    elif asked.source_path:
        raise BadInput(
            f"source_path={asked.source_path}: source=synthesis does not read it; say source=table (your own "
            "questions), source=cpsyexam, or passages= and posts="
        )


def take(asked: Selection, begin: Begin) -> None:
    """Takes questions that are there to the training files."""
    started = time.monotonic()
    questions, rejects = selection.read(asked)
    total, compared = len(questions) + len(rejects), selection.read_benchmarks(asked)
    inputs = {"source": Path(asked.source_path or "")}
    try:
        export = selection.of_questions(questions, rejects, compared, asked)
    except splits.TooFew as error:
        raise with_rejects(error, begin(inputs, ()).path) from None
    export.check(asked.train_on_benchmark, asked.open_questions)
    folder = begin(inputs, ())
    if not is_done(folder, asked.run):
        finish(folder, export, export.counts(total), asked, started=started)


def plan_of_questions(asked: Selection) -> list[str]:
    """Returns what a dry run tells of questions that are there; raises BadInput as `take` does, and asks no hub."""
    if not Path(asked.source_path or "").exists():
        return [f"rows unknown: {asked.source_path} is not there"]
    notes, compared = selection.benchmarks_there(asked)
    questions, rejects = selection.read(asked)
    total = len(questions) + len(rejects)
    try:
        export = selection.of_questions(questions, rejects, compared, asked)
    except splits.TooFew as error:
        raise with_rejects(error) from None
    export.check(asked.train_on_benchmark, asked.open_questions)
    left_out = f"{len(export.rejects)} left out" + (f": {selection.told(export.rejects)}" if export.rejects else "")
    parts = f"{len(export.sft)} SFT, {len(export.grpo)} GRPO, {len(export.heldout)} held out"
    return [*notes, f"{asked.source_path}: {total} rows: {parts}; {left_out}"]


def plan_of_synthesis(making: Configuration, asked: Selection) -> list[str]:
    """Returns what a dry run tells of a synthesis; raises BadInput as `cost_plan.notes` does."""
    return cost_plan.notes(making, asked, costs.tokens_per_second(making.tokens_per_s))


def synthesise(making: Configuration, asked: Selection, begin: Begin) -> None:
    """Makes questions and dialogues from passages and posts, then exports them; runs what is not done yet."""
    started, given, making = time.monotonic(), making, chosen.here(making)
    paths, people = raw_texts(making), making.files_of_people()
    models = find_models(making, making.ledger_at(Path("runs") / asked.run / "data"))
    if read_manifest(asked.run, "data") is None:  # before there is a folder
        models.check_keys(making.wanted())
    ledger.claim(making.ledger, asked.run)
    compared = selection.read_benchmarks(asked)
    sheets = {f"{key}.{n}": Path(file) for key, files in people.items() for n, file in enumerate(files)}
    folder = begin(paths | sheets, ("limit", *people))  # what is done stays: steps see for themselves what has changed
    if is_done(folder, asked.run):
        return

    def reaches(rows: dict[str, int]) -> None:
        if "dialogues" in rows:
            read = read_records(folder.path / "steps" / "dialogues" / "0_read" / "rows.jsonl", Dialogue)
            deque(exportable_dialogues(read, asked.train_on_benchmark), maxlen=0)
        if making.steps is None:
            splits.check_reach(asked, cost_plan.reach(making, rows), rows.get("questions", 0))

    try:
        with chosen.executor(making, folder.path) as executor:
            made = synthesis.run(making, folder.path, lambda text: console.print(f"  {text}"), reaches, executor)
    except llm.BudgetSpent as error:
        raise StageFailed(str(error)) from None
    if made.failed and making.resume != "force":
        show_steps(asked.run, made.counts)
        raise StageFailed(
            f"{sum(made.failed.values())} requests brought no reply "
            f"({', '.join(f'{name}: {n}' for name, n in made.failed.items())}); the same command asks them again, and "
            "with resume=force it goes on without the rows whose requests fail once more"
        )
    if not made.finished:
        show_steps(asked.run, made.counts)
        return
    if not (made.questions or (made.dialogues and not making.passages)):
        raise BadInput("\n".join(lost(making, made, folder.path)))
    rows = [*made.questions, *made.dialogues]
    try:
        export = selection.of_synthesised(rows, compared, asked)
    except splits.TooFew as error:
        raise with_rejects(error, folder.path) from None
    export.check(asked.train_on_benchmark, asked.open_questions)
    finish(folder, export, export.counts(len(rows)).model_copy(update={"steps": made.counts}), asked, given, started)


def join(making: Configuration, run: str) -> None:
    """Makes calls of a run that another process has started: the same steps in a folder that is thrown away, each call
    leased in the run's ledger. Raises BadInput for a run without a ledger, with a budget, and with recorded replies.
    """
    making = chosen.here(making)
    raw_texts(making)
    where = making.ledger_at(Path("runs") / run / "data")
    if making.budget is not None:
        raise BadInput("join=true: a budget is counted by the process that started the run; say budget=null")
    if "replies" in (base_settings(making) or {}):
        raise BadInput("join=true: recorded replies are no calls; there is nothing to join")
    if not ledger.is_there(where):
        raise BadInput(f"join=true: there is no {where}; start the run first, or say ledger=postgresql://HOST/DATABASE")
    ledger.claim(making.ledger, run)
    find_models(making, where).check_keys(making.wanted())
    with tempfile.TemporaryDirectory() as scratch:
        making = making.model_copy(update={"ledger": str(where)})
        made = synthesis.run(making, Path(scratch), lambda text: console.print(f"  {text}"))
    if failed := sum(made.failed.values()):
        raise StageFailed(f"{failed} requests brought no reply; the run's own command asks them again")
    console.print(f"joined run={run}: every call that is to be made has been made")


def raw_texts(making: Configuration) -> dict[str, Path]:
    """Returns {key: path} of the raw texts that are given; raises BadInput for a path, of them or of a sheet that
    people filled in, that is not there.
    """
    paths = {READS[name]: Path(source.path) for name, source in making.sources().items()}
    sheets = [(key, Path(file)) for key, files in making.files_of_people().items() for file in files]
    for name, path in [*paths.items(), *sheets]:
        if not path.exists():
            raise BadInput(f"{name}={path}: no such file or folder")
    return paths


def lost(making: Configuration, made: synthesis.Synthesised, folder: Path) -> list[str]:
    """Returns a line for each pipeline of which nothing is left: what came in, and the step that rejected most."""
    lines = []
    for name, source in making.sources().items():
        counts = {step: of for step, of in made.counts.items() if step.startswith(f"{name}/")}
        first, last = counts[next(iter(counts))], counts[next(reversed(counts))]
        if last.out:
            continue
        worst = max(counts, key=lambda step: counts[step].rejected)
        file = folder / "steps" / worst / "rejects.jsonl"
        kind = "question" if name == "questions" else "dialogue"
        lines.append(
            f"{READS[name]}={source.path}: no {kind} is left of {first.into} {READS[name]}; most were rejected by "
            f"{worst}, {counts[worst].rejected} ({selection.told(read_records(file, Reject))}): see {file}"
        )
    return lines


def with_rejects(error: splits.TooFew, folder: Path | None = None) -> BadInput:
    """Returns the error that also says why rows were left out; they stand in the folder then, if there is one."""
    told = error.what
    if error.rejects:
        first = error.rejects[0]
        told += f"; left out: {selection.told(error.rejects)}; the first is {first.where}: {first.reason}"
    if folder:
        write_jsonl(folder / "questions.rejects.jsonl", error.rejects)
        told += f"; all of them: {folder / 'questions.rejects.jsonl'}" if error.rejects else ""
    return BadInput(told + (f"; say {error.cure}" if error.cure else ""))


def is_done(folder: StageFolder, name: str) -> bool:
    """Returns whether the stage has been run already, and says so."""
    if folder.done:
        console.print(f"data: {folder.path} is done already; delete it to make it again")
        show_status(name)
    return folder.done


def finish(
    folder: StageFolder,
    export: Export,
    counts: DataCounts,
    asked: Selection,
    making: Configuration | None = None,
    started: float = 0,
) -> None:
    """Writes the training files, the data card and the manifest."""
    system = prompt_text(asked.system, "system")
    files = export.write(folder.path, asked.train_on_benchmark, asked.thoughts, system)
    sft_rows, seconds = sum(1 for _ in read_lines(files["sft.jsonl"])), round(time.monotonic() - started, 2)
    counts = counts.model_copy(update={"sft_rows": sft_rows, "steps": counts.steps, "seconds": seconds})
    costs = llm.totals(ledger_of(folder.path))
    files |= datacard.write(folder.path, about(folder.manifest, asked, making), counts, costs)
    folder.finish(files, counts.as_json(), calls=costs, cost=sum(c["cost"] or 0 for c in costs) or None)
    show_status(asked.run)


def about(manifest: dict, asked: Selection, making: Configuration | None) -> About:
    """Returns what the data card says of the run beside its rows."""
    if making:
        read = {READS[name]: (source.source, source.path) for name, source in making.sources().items()}
    else:
        read = {"source": (asked.source, asked.source_path or "")}
    code = manifest["code"]
    base = base_settings(making) or {} if making else {}
    return About(
        run=asked.run,
        recipe=manifest["command"]["recipe"],
        seed=asked.seed,
        started=manifest["started"],
        code=f"{code['commit'] or 'no commit'}{' with local changes' if code['changed'] else ''}",
        origins=[Origin(reader, path, manifest["inputs"][key]["sha256"]) for key, (reader, path) in read.items()],
        benchmarks=asked.decontaminate.against,
        replies=base.get("replies", ""),
        system=asked.system or "",
    )


def status(command: Command) -> None:
    """`python -m launch.data status run=NAME`"""
    if "run" not in command.words:
        raise BadInput("status of which run? `python -m launch.data status run=NAME`")
    show_status(command.words["run"])


if __name__ == "__main__":
    run_stage(DATA, run, {"status": status})
