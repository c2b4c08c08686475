"""The evaluation stage: the checkpoints of a run, or a model behind a server, on the sets that the recipe names.

    python -m launch.eval run=NAME checkpoint=all
    python -m launch.eval recipe=psyche_r1 run=NAME checkpoint=grpo sets.pceb.path=DIR sets.cpsyexam.path=DIR
    python -m launch.eval recipe=psyche_r1 run=NAME endpoint.base_url=http://127.0.0.1:8000/v1 endpoint.model=NAME
    python -m launch.eval rescore run=NAME elastic_rule=jaccard
    python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT

Writes runs/NAME/eval/: responses.<checkpoint>.<set>.jsonl (every response with its reading), metrics.json, report.md
and report.html. Requests to a server are kept in ledger.sqlite: the same command asks only what is not answered yet.
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from data_pipeline import llm
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import read_jsonl
from eval import metrics, report, responses
from eval.items import Item, fingerprint
from launch.cli.arguments import EVAL, Command
from launch.cli.configuration import as_dict, load_config
from launch.cli.entry import StageFailed, console, run_stage, show_plan
from launch.models import local
from launch.models.find import CHECKPOINTS, find_models, parameters
from launch.preflight import memory
from launch.running.folder import StageFolder, finished_manifest, open_stage


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput for a checkpoint that the run does not have, StageFailed for failed requests."""
    if config.checkpoint not in (*CHECKPOINTS, "all"):
        raise BadInput(f"checkpoint={config.checkpoint}: known are {', '.join(CHECKPOINTS)} and all")
    if config.elastic_rule not in metrics.ELASTIC_RULES:
        raise BadInput(f"elastic_rule={config.elastic_rule}: known are {', '.join(metrics.ELASTIC_RULES)}")
    endpoint, judge = responses.server(config.endpoint, "endpoint"), responses.server(config.judge, "judge")
    skipped = [name for name, asked in config.sets.items() if "benchmark" in asked and not asked.get("path")]
    sets = {name: asked for name, asked in config.sets.items() if name not in skipped}
    notes = [f"{name}: left out, since its path is not given (sets.{name}.path=DIR)" for name in skipped]
    if config.dry_run:
        notes += [f"{name}: {a.get('file') or a.path}, {a.get('samples', 1)} samples" for name, a in sets.items()]
        show_plan(as_dict(config), ["python", "-m", "launch.eval"], {}, notes)
        return
    if not sets:
        raise BadInput(f"no set is left to ask; {'; '.join(notes) or 'sets= is empty'}")
    data = Path("runs") / config.run / "data"
    if any("file" in asked for asked in sets.values()):
        finished_manifest(
            config.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={config.run}"
        )
    models = {"endpoint": endpoint.model} if endpoint else find_models(config)
    loaded = {name: responses.load_set(name, asked, data) for name, asked in sets.items()}
    inputs = {name: data / asked.file if "file" in asked else Path(asked.path) for name, asked in sets.items()}
    inputs |= {} if endpoint else {f"model_{name}": Path(model) for name, model in models.items()}
    opened = open_stage(EVAL, config, inputs, command)
    for note in notes:
        console.print(f"  {note}")
    if opened.done:
        console.print(f"eval: {opened.path} is done already; nothing left to do")
    else:
        evaluate(config, opened, models, sets, loaded, endpoint, judge)
    show(json.loads((opened.path / "metrics.json").read_text(encoding="utf-8")))
    console.print(f"{opened.path}/report.html, report.md, metrics.json")


def evaluate(config: DictConfig, opened: StageFolder, models: dict, sets: dict, loaded: dict, endpoint, judge):
    """Asks, scores and writes everything; raises StageFailed, after that, when requests have failed."""
    measured = {"sets": {}, "parameters_b": {c: size_b(model) for c, model in models.items()}, "models": models}
    asked_file = opened.path / "asked.json"  # what each stored file of responses is an answer to
    asked_before = json.loads(asked_file.read_text(encoding="utf-8")) if asked_file.is_file() else {}
    rows, outputs, failed = {}, {}, 0
    for checkpoint, model in models.items():
        for name, asked in sets.items():
            items, path = loaded[name][1].items, opened.path / f"responses.{checkpoint}.{name}.jsonl"
            about = {
                "fingerprint": fingerprint(items),
                "model": opened.manifest["inputs"].get(f"model_{checkpoint}", model),
                **{k: asked.get(k) for k in ("samples", "temperature", "top_p")},
                **{k: config[k] for k in ("max_new_tokens", "seed", "batch_size")},
            }
            if not endpoint and path.is_file() and asked_before.get(path.name) == about:
                replies = responses.stored(path, items)
            else:
                generate = generator(config, model, endpoint, opened.path / "ledger.sqlite", name)
                replies = responses.ask(items, asked, generate)
            rows[checkpoint, name] = responses.store(path, items, replies, config)
            asked_before[path.name] = about
            asked_file.write_text(json.dumps(asked_before, indent=2) + "\n", encoding="utf-8")
            outputs[path.name] = path
            result = score(config, loaded[name], replies, judge, opened.path / "ledger.sqlite", name)
            measured["sets"].setdefault(name, {})[checkpoint] = result
            failed += result["failed"]
            if asked.get("benchmark") == "cpsyexam" and not any(item.question.answer for item in items):
                outputs |= write_submission(opened.path, checkpoint, name, loaded[name][0], items, replies)
    outputs |= write_results(opened.path, f"run {config.run}", measured, rows, config)
    if failed:
        opened.save()
        raise StageFailed(
            f"{failed} requests failed and count as wrong in {opened.path}/report.md; the same command asks them again"
        )
    counts = {f"{name}/{c}": r["responses"] for name, results in measured["sets"].items() for c, r in results.items()}
    opened.finish(outputs, counts, models=models)


def generator(
    config: DictConfig, model: str, endpoint: llm.Server | None, ledger: Path, name: str
) -> responses.Generate:
    """Returns what generates: `endpoint`, or the model folder or ID in this process."""

    def ask_here(conversations, ids, samples, temperature, top_p):
        sampling = local.Sampling(config.max_new_tokens, temperature, top_p)
        title = f"{model} on {name}"
        return local.generate(model, conversations, samples, sampling, config.batch_size, config.seed, title)

    if endpoint is None:
        return ask_here

    def ask_server(conversations, ids, samples, temperature, top_p):
        params = {"temperature": temperature, "top_p": top_p, "max_tokens": config.max_new_tokens, "seed": config.seed}
        return llm.generate(endpoint, conversations, samples, f"eval/{name}", ids, ledger, **params)

    return ask_server


def score(config: DictConfig, loaded: tuple, replies: list, judge, ledger: Path, name: str) -> dict:
    """Returns the metrics of one set, with the loader's notes before the scorer's."""
    module, content = loaded
    more = {}
    judged = responses.judge(content.items, replies, judge, ledger, name, config.seed)
    if judged is not None:
        more["judgements"] = judged
    result = module.score(content.items, replies, elastic_rule=config.elastic_rule,
                          think_prefilled=config.think_prefilled, resamples=config.bootstrap, seed=config.seed,
                          **more)  # fmt: skip
    return {**result, "notes": content.notes + result["notes"]}


def write_submission(folder: Path, checkpoint: str, name: str, module, items: list[Item], replies: list) -> dict:
    """Writes the file for the site that holds the withheld answers; returns {file name: path}."""
    if any(item.question.kind == "open" for item in items):
        return {}
    path = folder / f"submission.{checkpoint}.{name}.json"
    content = module.submission(items, replies)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {path.name: path}


def size_b(model: str) -> float | None:
    """Returns billions of parameters, None when unknown."""
    shape = memory.shape(model)
    count = shape.parameters if shape else parameters(model)
    return None if count is None else count / 1e9


def write_results(folder: Path, title: str, measured: dict, rows: dict, config: DictConfig) -> dict[str, Path]:
    """Adds the paired gains, writes metrics.json and the two reports; returns {name: path}."""
    measured["gains"] = {}
    for name, results in measured["sets"].items():
        pairs = list(results)
        measured["gains"][name] = {
            f"{a} -> {b}": gain
            for a, b in zip(pairs, pairs[1:], strict=False)
            if (gain := paired(rows[a, name], rows[b, name], config.bootstrap, config.seed))
        }
    path = folder / "metrics.json"
    path.write_text(json.dumps(measured, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page = report.page(title, measured, rows)
    return {path.name: path, **report.write(folder, page)}


def paired(before: list[dict], after: list[dict], resamples: int, seed: int) -> dict | None:
    """Returns the paired gain in accuracy of two files of rows over the same items, None without a keyed question."""
    first, second = (report.accuracy_by_item(rows) for rows in (before, after))
    common = [id for id in first if id in second]
    if not common:
        return None
    gain = metrics.paired_gain([first[i] for i in common], [second[i] for i in common], resamples, seed)
    return {"items": len(common), **gain}


def show(measured: dict) -> None:
    """Prints one table per set, and the gains."""
    for name, results in measured["sets"].items():
        first = next(iter(results.values()))
        table = Table(*report.HEAD, title=f"{name}: {first['items']} items, {first['samples']} samples each")
        for checkpoint, result in results.items():
            table.add_row(*report.overview(checkpoint, result))
        console.print(table)
        for note in first["notes"]:
            console.print(f"  {note}", markup=False)
        for pair, gain in measured["gains"].get(name, {}).items():
            console.print(
                f"  accuracy {pair}: {gain['gain']:+.1%}, 95 % interval {gain['ci_low']:+.1%} to {gain['ci_high']:+.1%}"
            )


def rescore(command: Command) -> None:
    """`rescore run=NAME [elastic_rule=...] [think_prefilled=true]`: stored responses, no generation."""
    if "run" not in command.words:
        raise BadInput("rescore which run? `python -m launch.eval rescore run=NAME`")
    folder = Path("runs") / command.words["run"] / "eval"
    if not (folder / "asked.json").is_file():
        raise BadInput(f"{folder}: holds no stored responses; first: python -m launch.eval run={command.words['run']}")
    config = load_config(folder / "config.yaml")
    changes = {k: v for k, v in command.words.items() if k != "run"}
    if odd := sorted(set(changes) - {"elastic_rule", "think_prefilled"}):
        raise BadInput(f"rescore takes run=, elastic_rule= and think_prefilled=, not {', '.join(odd)}")
    config.merge_with(OmegaConf.from_dotlist([f"{k}={v}" for k, v in changes.items()]))
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    before = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    data, out = folder.parent / "data", folder / "rescored"
    out.mkdir(exist_ok=True)
    measured, rows = {**{k: before[k] for k in ("parameters_b", "models")}, "sets": {}}, {}
    for file, about in asked.items():
        _, checkpoint, name, _ = file.split(".")
        loaded = responses.load_set(name, config.sets[name], data)
        if fingerprint(loaded[1].items) != about["fingerprint"]:
            raise BadInput(
                f"sets.{name}: {config.sets[name].get('path') or data} is another version of the questions than the "
                f"responses in {folder / file} answer; evaluate anew under another run="
            )
        replies = responses.stored(folder / file, loaded[1].items)
        rows[checkpoint, name] = responses.store(out / file, loaded[1].items, replies, config)
        judge = responses.server(config.judge, "judge")
        result = score(config, loaded, replies, judge, folder / "ledger.sqlite", name)
        measured["sets"].setdefault(name, {})[checkpoint] = result
    write_results(out, f"run {command.words['run']}, scored again", measured, rows, config)
    show(measured)
    console.print(f"{out}/report.html, report.md, metrics.json")


def compare(command: Command) -> None:
    """`compare RUN[/CHECKPOINT] RUN[/CHECKPOINT]`: the paired difference on every set that both have answered."""
    if len(command.positional) != 2 or command.words:
        raise BadInput("compare takes two runs: python -m launch.eval compare RUN/CHECKPOINT RUN/CHECKPOINT")
    (name_a, sets_a), (name_b, sets_b) = (_answered(word) for word in command.positional)
    common = [name for name in sets_a if name in sets_b]
    if not common:
        raise BadInput(f"{name_a} has answered {', '.join(sets_a)}, {name_b} {', '.join(sets_b)}: no set of both")
    table = Table("set", "items", name_a, name_b, "difference", "95 % interval", "", title=f"{name_b} against {name_a}")
    for name in common:
        (path_a, print_a), (path_b, print_b) = sets_a[name], sets_b[name]
        if print_a != print_b:
            raise BadInput(f"set {name}: {path_a} and {path_b} answer different versions of the questions")
        a, b = ([row for _, row in read_jsonl(path)] for path in (path_a, path_b))
        for cell in [None, *dict.fromkeys(row["cell"] for row in a if row["kind"] != "open")]:
            part_a, part_b = ([r for r in rows if cell in (None, r["cell"])] for rows in (a, b))
            gain = paired(part_a, part_b, 2000, 42)
            if gain is None:
                continue
            means = [metrics.mean(list(report.accuracy_by_item(part).values())) for part in (part_a, part_b)]
            verdict = "better" if gain["ci_low"] > 0 else "worse" if gain["ci_high"] < 0 else "unclear"
            table.add_row(name if cell is None else f"  {cell}", str(gain["items"]), f"{means[0]:.1%}",
                          f"{means[1]:.1%}", f"{gain['gain']:+.1%}",
                          f"{gain['ci_low']:+.1%} to {gain['ci_high']:+.1%}", verdict)  # fmt: skip
    console.print(table)


def _answered(word: str) -> tuple[str, dict[str, tuple[Path, str]]]:
    """Returns ("run/checkpoint", {set: (file of responses, fingerprint)}) of one side of a comparison."""
    run, _, checkpoint = word.partition("/")
    folder = Path("runs") / run / "eval"
    if not (folder / "asked.json").is_file():
        there = sorted(p.parent.parent.name for p in Path("runs").glob("*/eval/asked.json"))
        raise BadInput(f"{word}: run {run} has no evaluation; there is {', '.join(there)}{did_you_mean(run, there)}")
    files = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    have = list(dict.fromkeys(file.split(".")[1] for file in files))
    checkpoint = checkpoint or have[-1]
    if checkpoint not in have:
        raise BadInput(f"{word}: run {run} has evaluated {', '.join(have)}, not {checkpoint}")
    return f"{run}/{checkpoint}", {
        file.split(".")[2]: (folder / file, about["fingerprint"])
        for file, about in files.items()
        if file.split(".")[1] == checkpoint
    }


if __name__ == "__main__":
    run_stage(EVAL, run, {"rescore": rescore, "compare": compare})
