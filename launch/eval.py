"""The evaluation stage: the checkpoints of a run, or a model behind a server, on the sets that the recipe names.

    python -m launch.eval run=NAME checkpoint=all
    python -m launch.eval recipe=psyche_r1 run=NAME checkpoint=grpo sets.pceb.path=DIR sets.cpsyexam.path=DIR
    python -m launch.eval recipe=psyche_r1 run=NAME endpoint.base_url=http://127.0.0.1:8000/v1 endpoint.model=NAME
    python -m launch.eval rescore run=NAME elastic_rule=jaccard
    python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT
    python -m launch.eval rank RUN/CHECKPOINT RUN/CHECKPOINT set=NAME
    python -m launch.eval agreement SCORES.csv runs/NAME/eval/judgements.CHECKPOINT.SET.jsonl

Writes runs/NAME/eval/: responses.<checkpoint>.<set>.jsonl (every response with its reading), metrics.json, report.md
and report.html. Requests to a server are kept in ledger.sqlite: the same command asks only what is not answered yet.
With engine=vllm each checkpoint is served on this machine while it is asked.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.records import write_jsonl
from eval import plan, report, responses
from eval.contract import find_benchmark
from eval.differences import differences
from eval.figures import ACCURACY, Measured, SetMetrics
from eval.items import fingerprint
from eval.judging import votes
from eval.judging.judges import ask_judges
from eval.measure import measure, read_all, with_judgements
from eval.responses import Asked, Row
from eval.settings import EvalSettings, EvaluationSet, load_set, settings
from launch.cli.arguments import EVAL, Command, in_earnest
from launch.cli.configuration import as_dict, load_config
from launch.cli.entry import StageFailed, console, print_table, run_stage, show_plan
from launch.models.answering import answering, engine_of
from launch.models.find import CHECKPOINTS, find_models, parameters
from launch.preflight import costs, gpu, memory
from launch.reports import judging
from launch.running import compared
from launch.running.folder import StageFolder, finished_manifest, open_stage


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput for a checkpoint that the run does not have, StageFailed for failed requests."""
    if config.checkpoint not in (*CHECKPOINTS, "all"):
        raise BadInput(f"checkpoint={config.checkpoint}: known are {', '.join(CHECKPOINTS)} and all")
    asked = settings(as_dict(config))
    sets = {name: one for name, one in asked.sets.items() if not one.is_left_out}
    notes = [
        f"{name}: left out, since its path is not given (sets.{name}.path=DIR)"
        for name in asked.sets
        if name not in sets
    ]
    data = Path("runs") / asked.run / "data"
    if config.dry_run:
        notes += [f"{name}: {one.file or one.path}, {one.samples} samples" for name, one in sets.items()]
        notes += [line for name in sets for line in plan.calls(name, asked, data)]
        if not asked.endpoint:
            notes += costs.for_eval(config, command.words, *costs.responses(data, sets))
        show_plan(as_dict(config), in_earnest(EVAL, command), {}, notes)
        return
    if not sets:
        raise BadInput(f"no set is left to ask; {'; '.join(notes) or 'sets= is empty'}")
    if any(one.file is not None for one in sets.values()):
        finished_manifest(asked.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={asked.run}")
    models = (
        {"endpoint": asked.endpoint.model}
        if asked.endpoint
        else find_models(config.run, config.base_model, config.checkpoint)
    )
    if not asked.endpoint:
        gpu.check_driver()
    engine = engine_of(asked)
    loaded = [load_set(name, one, data) for name, one in sets.items()]
    inputs = {one.name: one.asked.place(data) for one in loaded}
    inputs |= {} if asked.endpoint else {f"model_{name}": Path(model) for name, model in models.items()}
    opened = open_stage(EVAL, config, inputs, command)
    if asked.judges and not any(one.benchmark.judge for one in loaded):
        notes.append("judge: no set of this evaluation is judged")
    for note in notes:
        console.print(f"  {note}", markup=False)
    failures = ""
    if opened.done:
        console.print(f"eval: {opened.path} is done already; nothing left to do")
    else:
        failures = evaluate(asked, engine, opened, models, loaded)
    show(Measured.read(opened.path / "metrics.json"))
    console.print(f"{opened.path}/report.html, report.md, metrics.json")
    if failures:
        raise StageFailed(f"{failures} in {opened.path}/report.md; the same command asks them again")


def evaluate(
    asked: EvalSettings, engine: str, opened: StageFolder, models: dict[str, str], sets: list[EvaluationSet]
) -> str:
    """Asks, scores and writes everything; returns what failed, "" when the stage is finished."""
    folder, ledger = opened.path, opened.path / "ledger.sqlite"
    measured = Measured({}, {c: size_b(model) for c, model in models.items()}, models)
    before, rows, outputs, judged, again = responses.read_asked(folder), {}, {}, {}, 0
    for checkpoint, model in models.items():
        described = opened.manifest["inputs"].get(f"model_{checkpoint}", model)
        with answering(asked, engine, checkpoint, described, folder) as generator:
            for one in sets:
                path = folder / responses.file_name(checkpoint, one.name)
                about = Asked(
                    checkpoint=checkpoint,
                    set=one.name,
                    fingerprint=fingerprint(one.loaded.items),
                    model=described,
                    samples=one.asked.samples,
                    temperature=one.asked.temperature,
                    top_p=one.asked.top_p,
                    top_k=one.asked.top_k,
                    repetition_penalty=one.asked.repetition_penalty,
                    max_new_tokens=asked.max_new_tokens,
                    seed=asked.seed,
                    batch_size=asked.batch_size,
                    engine=engine,
                    judge=asked.panel.name if one.benchmark.judge else None,
                )
                earlier, replies = before.get(path.name), None
                if not asked.endpoint and path.is_file() and earlier and same_answers(earlier, about):
                    replies = responses.stored(path, one)
                if replies is None or any(r.finish == "failed" for of_item in replies for r in of_item):
                    replies = responses.ask(one, generator(one.name))
                responses.store(path, one.benchmark, read_all(one.loaded.items, replies, asked.scoring))
                before[path.name] = about
                responses.write_asked(folder, before)
                result = score(asked, one, checkpoint, replies, folder, ledger)
                measured.sets.setdefault(one.name, {})[checkpoint] = result.figures
                rows[checkpoint, one.name] = result.rows
                judged.setdefault(one.name, []).extend(result.judged)
                outputs, again = outputs | result.outputs, again + result.again
    outputs |= write_results(folder, f"run {asked.run}", measured, rows, judged)
    if failures := failures_of(measured, again):
        opened.save()
        return failures
    counts = {f"{name}/{c}": r.responses for name, results in measured.sets.items() for c, r in results.items()}
    opened.finish(outputs, counts, models=models)
    return ""


def same_answers(earlier: Asked, about: Asked) -> bool:
    """Returns whether stored responses answer what is asked now; judge and scoring come after them."""
    return replace(earlier, judge=about.judge, version=about.version) == about


def failures_of(measured: Measured, again: int = 0) -> str:
    """Returns what is said of requests that failed and of `again`, judgements that are asked again; "" without any."""
    results = [result for of_set in measured.sets.values() for result in of_set.values()]
    failed, unjudged = sum(r.failed for r in results), sum(r.judge_failed or 0 for r in results)
    parts = [f"{failed} requests failed and count as wrong"] if failed else []
    parts += [f"{unjudged} requests to the judge failed and are missing"] if unjudged else []
    parts += [f"{again - unjudged} judgements cannot be read and are missing"] if again > unjudged else []
    return ", ".join(parts)


@dataclass
class Scored:
    """What came of one checkpoint's responses to one set."""

    figures: SetMetrics
    rows: list[Row]
    outputs: dict[str, Path]
    judged: list[dict]  # eval/judging/votes.py
    again: int  # judgements that the same command would ask again


def score(
    asked: EvalSettings, one: EvaluationSet, checkpoint: str, replies: list, folder: Path, ledger: Path
) -> Scored:
    """Reads, judges and scores the responses and writes them to `folder`, with a submission where there is one."""
    benchmark, panel, scoring = one.benchmark, asked.panel, asked.scoring
    answered, again = read_all(one.loaded.items, replies, scoring), 0
    if panel.servers and benchmark.judge:
        judged, again = ask_judges(benchmark, answered, panel, ledger, one.name, scoring)
        answered = with_judgements(answered, judged)
    figures, scores = measure(benchmark, answered, scoring, panel.name if benchmark.judge else None)
    figures.notes = one.loaded.notes + figures.notes
    figures.notes += [f"judge {n}: {s.model}" for n, s in panel.servers.items() if benchmark.judge and n != s.model]
    path = folder / responses.file_name(checkpoint, one.name)
    outputs, rows = {path.name: path}, responses.store(path, benchmark, answered, scores)
    if judged_rows := votes.rows(answered, checkpoint):
        file = folder / f"judgements.{checkpoint}.{one.name}.jsonl"
        write_jsonl(file, judged_rows, 0o600)
        outputs[file.name] = file
    if benchmark.submission and (content := benchmark.submission(answered)) is not None:
        file = folder / f"submission.{checkpoint}.{one.name}.json"
        file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        outputs[file.name] = file
    return Scored(figures, rows, outputs, judged_rows, again)


def size_b(model: str) -> float | None:
    """Returns billions of parameters, None when unknown."""
    shape = memory.shape(model)
    count = shape.parameters if shape else parameters(model)
    return None if count is None else count / 1e9


def write_results(
    folder: Path,
    title: str,
    measured: Measured,
    rows: dict[tuple[str, str], list[Row]],
    judged: dict[str, list[dict]] | None = None,
) -> dict:
    """Adds the paired differences, writes metrics.json and the two reports; returns {name: path}."""
    for name, results in measured.sets.items():
        pairs = list(results)
        measured.differences[name] = {
            f"{a} -> {b}": differences(rows[a, name], rows[b, name]) for a, b in zip(pairs, pairs[1:], strict=False)
        }
    path = folder / "metrics.json"
    measured.write(path)
    return {path.name: path, **report.write(folder, report.page(title, measured, rows, judged))}


def show(measured: Measured) -> None:
    """Prints the first table of every set, its notes and the differences."""
    for name, results in measured.sets.items():
        first = next(iter(results.values()))
        overview = find_benchmark(first.benchmark, "benchmark").tables(results)[0]
        print_table(f"{name}: {first.items} items, {first.samples} samples each", overview.head, overview.rows)
        for note in report.notes_of(results):
            console.print(f"  {note}", markup=False)
        for pair, of_pair in measured.differences.get(name, {}).items():
            for d in of_pair:
                console.print(f"  {d.score} {pair}: {d.told(d.gain)}, 95 % interval {d.interval}", markup=False)


def rescore(command: Command) -> None:
    """`rescore run=NAME [elastic_rule=...] [think_prefilled=true]`: stored responses, no generation."""
    if "run" not in command.words:
        raise BadInput("rescore which run? `python -m launch.eval rescore run=NAME`")
    run = command.words["run"]
    folder = Path("runs") / run / "eval"
    stored = responses.read_asked(folder)
    if not stored:
        raise BadInput(f"{folder}: holds no stored responses; first: python -m launch.eval run={run}")
    config = load_config(folder / "config.yaml")
    changes = {k: v for k, v in command.words.items() if k != "run"}
    if odd := sorted(set(changes) - {"elastic_rule", "think_prefilled"}):
        raise BadInput(f"rescore takes run=, elastic_rule= and think_prefilled=, not {', '.join(odd)}")
    config.merge_with(OmegaConf.from_dotlist([f"{k}={v}" for k, v in changes.items()]))
    asked, before = settings(as_dict(config)), Measured.read(folder / "metrics.json")
    data, out = folder.parent / "data", folder / "rescored"
    out.mkdir(exist_ok=True)
    measured, rows, judged, again = Measured({}, before.parameters_b, before.models), {}, {}, 0
    for file, about in stored.items():
        one = load_set(about.set, asked.sets[about.set], data)
        if fingerprint(one.loaded.items) != about.fingerprint:
            raise BadInput(
                f"sets.{one.name}: {one.asked.path or data} is another version of the questions than the responses in "
                f"{folder / file} answer; evaluate anew under another run="
            )
        replies = responses.stored(folder / file, one)
        result = score(asked, one, about.checkpoint, replies, out, folder / "ledger.sqlite")
        rows[about.checkpoint, one.name] = result.rows
        judged.setdefault(one.name, []).extend(result.judged)
        again += result.again
        measured.sets.setdefault(one.name, {})[about.checkpoint] = result.figures
    write_results(out, f"run {run}, scored again", measured, rows, judged)
    show(measured)
    console.print(f"{out}/report.html, report.md, metrics.json")
    if again:
        raise StageFailed(f"{failures_of(measured, again)}; the same command asks them again")


def compare(command: Command) -> None:
    """`compare RUN[/CHECKPOINT] RUN[/CHECKPOINT]`: the paired difference on every set that both have answered."""
    if len(command.positional) != 2 or command.words:
        raise BadInput("compare takes two runs: python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT")
    (name_a, sets_a), (name_b, sets_b) = (compared.answered(word) for word in command.positional)
    common = [name for name in sets_a if name in sets_b]
    if not common:
        raise BadInput(f"{name_a} has answered {', '.join(sets_a)}, {name_b} {', '.join(sets_b)}: no set of both")
    lines, notes = [], []
    for name in common:
        (path_a, a), (path_b, b) = sets_a[name], sets_b[name]
        if a.fingerprint != b.fingerprint:
            raise BadInput(f"set {name}: {path_a} and {path_b} answer different versions of the questions")
        if a.version != b.version:
            old = min((name_a, a), (name_b, b), key=lambda side: int(side[1].version))[0]
            raise BadInput(
                f"set {name}: {name_a} is scored by version {a.version} of the metrics, {name_b} by {b.version}, and "
                f"their figures mean different things; evaluate {old} again under another run=NAME"
            )
        rows_a, rows_b = responses.read_rows(path_a), responses.read_rows(path_b)
        of_set = differences(rows_a, rows_b, cells=True)
        if a.judge != b.judge and any(d.score != ACCURACY for d in of_set):
            notes.append(f"{name}: judged by {a.judge} and by {b.judge}, whose scores are not of one kind; left out")
            of_set = [d for d in of_set if d.score == ACCURACY]
        elif not of_set:
            notes.append(f"{name}: no score that both have: no key, and no judge has judged both (judge.base_url)")
        lines += [
            [name if d.cell is None else f"  {d.cell}", d.score, str(d.items), d.told(d.before, False),
             d.told(d.after, False), d.told(d.gain), d.interval, d.verdict]
            for d in of_set
        ]  # fmt: skip
    if not lines:
        raise BadInput(f"{name_a} and {name_b} cannot be compared; {'; '.join(notes)}")
    head = ("set", "score", "items", name_a, name_b, "difference", "95 % interval", "")
    print_table(f"{name_b} against {name_a}", head, lines)
    for note in notes:
        console.print(f"  {note}", markup=False)


if __name__ == "__main__":
    run_stage(EVAL, run, {"rescore": rescore, "compare": compare, "agreement": judging.agreement, "rank": judging.rank})
