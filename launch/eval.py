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
from data_pipeline.llm.ledger import Where, claim
from data_pipeline.llm.server import Server, api_key
from data_pipeline.records import write_jsonl, write_text
from eval import plan, report, responses
from eval.contract import find_benchmark
from eval.differences import differences
from eval.figures import Measured, SetMetrics
from eval.items import fingerprint
from eval.judging import asking, votes
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
from launch.running.folder import StageFolder, finished_manifest, ledger_of, open_stage, read_manifest


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
        if not asked.endpoints:
            notes += costs.for_eval(config, command.words, *costs.responses(data, sets))
        show_plan(as_dict(config), in_earnest(EVAL, command), {}, notes)
        return
    if not sets:
        raise BadInput(f"no set is left to ask; {'; '.join(notes) or 'sets= is empty'}")
    if any(one.file is not None for one in sets.values()):
        finished_manifest(asked.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={asked.run}")
    local = local_models(asked, config.base_model, config.checkpoint)
    models = {name: server.model for name, server in asked.endpoints.items()} | local
    engine = "endpoint"
    if local:
        gpu.check_driver()
        engine = engine_of(asked)
    loaded = [load_set(name, one, data) for name, one in sets.items()]
    if not asked.client and (talking := next((one.name for one in loaded if one.benchmark.session), None)):
        raise BadInput(f"sets.{talking}: is sessions with simulated clients; name who plays them: client.base_url=URL "
                       "client.model=NAME")  # fmt: skip
    inputs = {one.name: one.asked.place(data) for one in loaded}
    inputs |= {f"model_{name}": Path(model) for name, model in local.items()}
    if read_manifest(config.run, "eval") is None:  # before there is a folder
        for server in (*asked.endpoints.values(), *asked.judges.values(), asked.client):
            if isinstance(server, Server):
                api_key(server)
    claim(asked.ledger, asked.run)
    opened = open_stage(EVAL, config, inputs, command)
    if asked.judges and not any(one.benchmark.judge for one in loaded):
        notes.append("judge: no set of this evaluation is judged")
    for note in notes:
        console.print(f"  {note}")
    failures = ""
    if opened.done:
        console.print(f"eval: {opened.path} is done already; nothing left to do")
    else:
        failures = evaluate(asked, engine, opened, models, loaded)
    show(Measured.read(opened.path / "metrics.json"))
    console.print(f"{opened.path}/report.html, report.md, metrics.json")
    if failures:
        raise StageFailed(f"{failures} in {opened.path}/report.md; the same command asks them again")


def local_models(asked: EvalSettings, base_model: str | None, checkpoint: str) -> dict[str, str]:
    """Returns {name: folder or ID} of the models that no server is named for: the run's own without an endpoint, and
    those of other runs, called RUN-CHECKPOINT. Raises BadInput for one that is not there or stands twice.
    """
    models = {} if asked.endpoints else find_models(asked.run, base_model, checkpoint)
    for word in asked.checkpoints:
        run, _, of_run = word.partition("/")
        name = f"{run}-{of_run}"
        if of_run not in CHECKPOINTS:
            raise BadInput(f"checkpoints: {word}: takes RUN/CHECKPOINT, a checkpoint of {', '.join(CHECKPOINTS)}")
        if name in models or name in asked.endpoints:
            raise BadInput(f"checkpoints: {word}: {name} stands twice in this report; name each model once")
        models[name] = find_models(run, None, of_run)[of_run]
    return models


def evaluate(
    asked: EvalSettings, engine: str, opened: StageFolder, models: dict[str, str], sets: list[EvaluationSet]
) -> str:
    """Asks, scores and writes everything; returns what failed, "" when the stage is finished."""
    folder, ledger = opened.path, ledger_of(opened.path)
    measured = Measured({}, {c: size_b(model) for c, model in models.items()}, models)
    date = opened.manifest["started"][:10]
    for name, server in asked.endpoints.items():
        called = "" if name in ("endpoint", server.model) else f"{name}: "
        measured.labels[name] = f"{called}{server.model} ({date})"
    of_other_runs = (word.replace("/", "-") for word in asked.checkpoints)
    measured.labels |= {name: f"{name} ({date})" for name in of_other_runs}
    before, rows, outputs, judged, again = responses.read_asked(folder), {}, {}, {}, 0
    for checkpoint, model in models.items():
        described, served = opened.manifest["inputs"].get(f"model_{checkpoint}", model), asked.endpoints.get(checkpoint)
        of_model = "endpoint" if served else engine
        with answering(asked, of_model, checkpoint, described, folder) as generator:
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
                    engine=of_model,
                    judge=asked.panel.name if one.benchmark.judge else None,
                    client=asked.client.model if asked.client and one.benchmark.session else None,
                    system=one.asked.system,
                )
                earlier, replies = before.get(path.name), None
                if not served and path.is_file() and earlier and same_answers(earlier, about):
                    replies = responses.stored(path, one)
                if replies is None or any(r.finish == "failed" for of_item in replies for r in of_item):
                    client = asking.asker(asked.client, ledger, f"{one.name}: client") if asked.client else None
                    replies = responses.ask(one, generator(one.name), client, asked.scoring)
                responses.store(
                    path, one.benchmark, read_all(one.loaded.items, replies, asked.scoring_of(one.benchmark))
                )
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
    asked: EvalSettings, one: EvaluationSet, checkpoint: str, replies: list, folder: Path, ledger: Where
) -> Scored:
    """Reads, judges and scores the responses and writes them to `folder`, with a submission where there is one."""
    benchmark, panel, scoring = one.benchmark, asked.panel, asked.scoring_of(one.benchmark)
    answered, again = read_all(one.loaded.items, replies, scoring), 0
    if panel.servers and benchmark.judge:
        judged, again = ask_judges(benchmark, answered, panel, ledger, one.name, scoring)
        answered = with_judgements(answered, judged)
    figures, scores = measure(benchmark, answered, scoring, panel.name if benchmark.judge else None)
    figures.notes = one.loaded.notes + figures.notes
    if one.asked.system is not None:
        figures.notes.append(f"system prompt in place of the benchmark's own: {one.asked.system or 'none'}")
    if server := asked.endpoints.get(checkpoint):
        figures.notes.append(f"asked: {asking.described(server, ledger)}")
    for name, server in panel.servers.items() if benchmark.judge else ():
        told = asking.described(server, ledger)
        figures.notes += [f"judge {name}: {told}"] if told != name else []
    figures.notes += [f"client: {asking.described(asked.client, ledger)}"] if benchmark.session and asked.client else []
    path = folder / responses.file_name(checkpoint, one.name)
    outputs, rows = {path.name: path}, responses.store(path, benchmark, answered, scores)
    if judged_rows := votes.rows(answered, checkpoint):
        file = folder / f"judgements.{checkpoint}.{one.name}.jsonl"
        write_jsonl(file, judged_rows, 0o600)
        outputs[file.name] = file
    if benchmark.submission and (content := benchmark.submission(answered)) is not None:
        file = folder / f"submission.{checkpoint}.{one.name}.json"
        write_text(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
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
    for name, results in report.labelled(measured).items():
        first = next(iter(results.values()))
        overview = find_benchmark(first.benchmark, "benchmark").tables(results)[0]
        print_table(f"{name}: {first.items} items, {first.samples} samples each", overview.head, overview.rows)
        for note in report.notes_of(results):
            console.print(f"  {note}")
        for pair, of_pair in report.labelled_differences(measured, name).items():
            for d in of_pair:
                console.print(f"  {d.score} {pair}: {d.told(d.gain)}, 95 % interval {d.interval}")


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
    measured, rows, judged, again = Measured({}, before.parameters_b, before.models, labels=before.labels), {}, {}, 0
    for file, about in stored.items():
        one = load_set(about.set, asked.sets[about.set], data)
        if fingerprint(one.loaded.items) != about.fingerprint:
            raise BadInput(
                f"sets.{one.name}: {one.asked.path or data} is another version of the questions than the responses in "
                f"{folder / file} answer; evaluate anew under another run="
            )
        replies = responses.stored(folder / file, one)
        result = score(asked, one, about.checkpoint, replies, out, ledger_of(folder))
        rows[about.checkpoint, one.name] = result.rows
        judged.setdefault(one.name, []).extend(result.judged)
        again += result.again
        measured.sets.setdefault(one.name, {})[about.checkpoint] = result.figures
    write_results(out, f"run {run}, scored again", measured, rows, judged)
    show(measured)
    console.print(f"{out}/report.html, report.md, metrics.json")
    if again:
        raise StageFailed(f"{failures_of(measured, again)}; the same command asks them again")


if __name__ == "__main__":
    run_stage(
        EVAL,
        run,
        {"rescore": rescore, "compare": judging.compare, "agreement": judging.agreement, "rank": judging.rank},
    )
