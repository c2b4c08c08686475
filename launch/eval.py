"""The evaluation stage: the checkpoints of a run on the questions that the recipe names.

    python -m launch.eval run=NAME checkpoint=all
    python -m launch.eval run=NAME checkpoint=grpo max_new_tokens=512

Writes runs/NAME/eval/: responses.<checkpoint>.<set>.jsonl (every response with its reading), metrics.json.
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from data_pipeline.prompts import question_messages
from data_pipeline.records import BadInput, Question, read_questions, write_jsonl
from eval import metrics
from launch import preflight, runs, stage
from launch.arguments import Command, Stage
from reward.answer import read_answer

STAGE = Stage("eval")
CHECKPOINTS = ("base", "sft", "grpo")


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput for a checkpoint that the run does not have."""
    if config.checkpoint not in (*CHECKPOINTS, "all"):
        raise BadInput(f"checkpoint={config.checkpoint}: known are {', '.join(CHECKPOINTS)} and all")
    for name, asked in config.sets.items():
        if not isinstance(asked.samples, int) or asked.samples < 1:
            raise BadInput(f"sets.{name}.samples={asked.samples}: must be a positive whole number")
    if config.dry_run:
        notes = [f"{name}: {asked.file}, {asked.samples} samples" for name, asked in config.sets.items()]
        return stage.show_plan(OmegaConf.to_container(config), ["python", "-m", "launch.eval"], {}, notes)
    runs.need(config.run, "data", f"python -m launch.data recipe={command.words['recipe']} run={config.run}")
    models = find_models(config)
    folder = Path("runs") / config.run
    questions = {name: list(read_questions(folder / "data" / asked.file)) for name, asked in config.sets.items()}
    for name, asked in list(questions.items()):
        if not asked:
            raise BadInput(
                f"sets.{name}: {folder / 'data' / config.sets[name].file} holds no question (split.{name}=0?)"
            )
    inputs = {name: folder / "data" / config.sets[name].file for name in questions}
    opened = runs.begin(STAGE, config, inputs | {f"model_{k}": Path(v) for k, v in models.items()}, command)
    if not opened.done:
        evaluate(config, opened, models, questions)
    show(json.loads((opened.path / "metrics.json").read_text(encoding="utf-8")))


def find_models(config: DictConfig) -> dict[str, str]:
    """Returns {checkpoint: model folder or ID} for what was asked; raises BadInput for one that is not there."""
    sft = runs.read_manifest(config.run, "sft") or {}
    merge = runs.read_manifest(config.run, "merge") or {}
    known = {
        "base": config.base_model or sft.get("base_model"),
        "sft": sft.get("model") if sft.get("status") == "finished" else None,
        "grpo": merge.get("model") if merge.get("status") == "finished" else None,
    }
    makes = {
        "base": "say base_model=ID or PATH",
        "sft": f"first: bash launch/sft.sh run={config.run}",
        "grpo": f"first: python -m launch.grpo run={config.run}, then python -m launch.merge run={config.run}",
    }
    wanted = [config.checkpoint] if config.checkpoint != "all" else [c for c in CHECKPOINTS if known[c]]
    for checkpoint in wanted:
        if not known[checkpoint]:
            raise BadInput(f"run {config.run} has no checkpoint={checkpoint}; {makes[checkpoint]}")
        preflight.check_model(known[checkpoint], f"checkpoint {checkpoint}")
    if not wanted:
        raise BadInput(f"run {config.run} has no model yet; {makes['sft']}")
    return {checkpoint: known[checkpoint] for checkpoint in wanted}


def evaluate(
    config: DictConfig, opened: runs.StageFolder, models: dict[str, str], questions: dict[str, list[Question]]
):
    """Generates, scores and writes everything of the stage."""
    from launch.generate import generate

    found = {"sets": {name: {} for name in questions}}
    accuracies = {}
    outputs = {}
    for checkpoint, model in models.items():
        for name, asked in questions.items():
            settings = config.sets[name]
            responses = generate(
                model,
                [question_messages(q) for q in asked],
                samples=settings.samples,
                max_new_tokens=config.max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                batch_size=config.batch_size,
                seed=config.seed,
                title=f"{checkpoint} on {name}",
            )
            scores = [
                [metrics.score_question(q, r.text) for r in samples]
                for q, samples in zip(asked, responses, strict=True)
            ]
            cut = sum(r.finish == "length" for samples in responses for r in samples)
            found["sets"][name][checkpoint] = metrics.summarise(asked, scores, cut, config.bootstrap, config.seed)
            accuracies[name, checkpoint] = [metrics.mean([s["acc"] for s in samples]) for samples in scores]
            path = opened.path / f"responses.{checkpoint}.{name}.jsonl"
            write_jsonl(path, _rows(asked, responses, scores))
            outputs[path.name] = path
    found["gains"] = {
        name: {
            f"{before} -> {after}": metrics.paired_gain(
                accuracies[name, before], accuracies[name, after], config.bootstrap, config.seed
            )
            for before, after in zip(list(models), list(models)[1:], strict=False)
        }
        for name in questions
    }
    path = opened.path / "metrics.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    counts = {f"{name}/{c}": m["responses"] for name, models in found["sets"].items() for c, m in models.items()}
    opened.finish({**outputs, path.name: path}, counts, models=models)


def _rows(questions: list[Question], responses: list, scores: list):
    for q, samples, scored in zip(questions, responses, scores, strict=True):
        for number, (response, score) in enumerate(zip(samples, scored, strict=True)):
            yield {
                "id": q.id,
                "sample": number,
                "kind": q.kind,
                "subject": q.subject,
                "question": question_messages(q)[-1]["content"],
                "key": q.answer,
                "read": read_answer(response.text, q.options),
                "response": response.text,
                "finish": response.finish,
                "tokens": response.tokens,
                **score,
            }


def show(found: dict) -> None:
    """Prints one table per set."""
    for name, models in found["sets"].items():
        first = next(iter(models.values()))
        title = f"{name}: {first['n']} questions ({first['n_single']} single, {first['n_multi']} multi)"
        table = Table("checkpoint", "single", "multi strict", "multi elastic", "format", "unreadable", title=title)
        for checkpoint, m in models.items():
            keys = (
                "single_accuracy",
                "multi_strict_accuracy",
                "multi_elastic_accuracy",
                "format_rate",
                "unreadable_rate",
            )
            table.add_row(checkpoint, *("-" if m[k] is None else f"{m[k]:.1%}" for k in keys))
        stage.console.print(table)
        for pair, gain in found["gains"][name].items():
            stage.console.print(
                f"  accuracy {pair}: {gain['gain']:+.1%}, 95 % interval {gain['ci_low']:+.1%} to {gain['ci_high']:+.1%}"
            )


if __name__ == "__main__":
    stage.main(STAGE, run)
