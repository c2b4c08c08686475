"""The data stage: questions of a public data set or of one's own table -> training files.

    python -m launch.data recipe=demo
    python -m launch.data recipe=demo source=cpsyexam source_path=DIR
    python -m launch.data recipe=demo source=table source_path=my.csv "source_options={columns: {stem: 题目}}"
    python -m launch.data status run=demo

Writes runs/NAME/data/: questions.jsonl, questions.rejects.jsonl (every row left out, with its reason), sft.jsonl and
dataset_info.json for LLaMA-Factory, grpo.jsonl and grpo_train.parquet for verl, heldout.jsonl and
grpo_validation.parquet for evaluation.
"""

import importlib
import pkgutil
import random
import time
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from data_pipeline import sources
from data_pipeline.export import exportable, llama_factory, verl
from data_pipeline.records import BadInput, Question, Reject, write_jsonl
from launch import runs, stage
from launch.arguments import Command, Stage, did_you_mean

STAGE = Stage("data", subcommands=("status",), has_hardware=False)


def run(config: DictConfig, command: Command) -> None:
    """Runs the stage; raises BadInput when nothing usable is left."""
    reader = find_reader(config.source)
    if config.dry_run:
        there = Path(config.source_path).exists()
        stage.show_plan(
            OmegaConf.to_container(config), ["python", "-m", "launch.data"], {}, ["rows unknown"] * (not there)
        )
        return None
    started = time.monotonic()
    questions, rejects = read(reader, config)
    total = len(questions) + len(rejects)
    questions = take(questions, rejects, config.select, config.seed)
    heldout, grpo, sft = split(questions, rejects, config.split, config.seed)
    if not sft and not grpo:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in count_reasons(rejects).most_common(3))
        raise BadInput(f"{config.source_path}: no question left of {total} ({reasons or 'the source is empty'})")

    for _ in exportable([*sft, *grpo], config.train_on_benchmark):
        pass  # what the exporters refuse is refused before anything is written

    folder = runs.begin(STAGE, config, {"source": Path(config.source_path)}, command)
    if folder.done:
        stage.console.print(f"data: {folder.path} is done already; delete it to make it again")
        return show_status(config.run)
    out, allowed = folder.path, config.train_on_benchmark
    write_jsonl(out / "questions.jsonl", [*sft, *grpo, *heldout])
    write_jsonl(out / "questions.rejects.jsonl", rejects)
    write_jsonl(out / "grpo.jsonl", grpo)
    write_jsonl(out / "heldout.jsonl", heldout)
    llama_factory.write(out, sft, train_on_benchmark=allowed)
    verl.write(out / "grpo_train.parquet", grpo, "train", allowed)
    verl.write(out / "grpo_validation.parquet", heldout or grpo, "validation", train_on_benchmark=True)
    names = ("questions.jsonl", "questions.rejects.jsonl", "sft.jsonl", "dataset_info.json", "grpo.jsonl",
             "grpo_train.parquet", "heldout.jsonl", "grpo_validation.parquet")  # fmt: skip
    counts = {
        "in": total,
        "out": len(sft) + len(grpo) + len(heldout),
        "rejected": len(rejects),
        "sft": len(sft),
        "grpo": len(grpo),
        "heldout": len(heldout),
        "reasons": dict(count_reasons(rejects).most_common()),
        "seconds": round(time.monotonic() - started, 2),
    }
    if counts["in"] != counts["out"] + counts["rejected"]:
        raise AssertionError(f"rows were lost: {counts}")
    folder.finish({name: out / name for name in names}, counts)
    return show_status(config.run)


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
        if isinstance(record, Question):
            key = (record.context, record.stem, *record.options)
            if key in seen:
                record = Reject(record.id, record.meta["where"], f"repeats another question: {seen[key]}")
            else:
                seen[key] = record.id
        (rejects if isinstance(record, Reject) else questions).append(record)
    return questions, rejects


def take(questions: list[Question], rejects: list[Reject], select: DictConfig, seed: int) -> list[Question]:
    """Returns the questions that the recipe's limits take, in their order; the others join `rejects`."""
    taken, left = [], []
    for q in questions:
        length = len(q.context) + len(q.stem) + sum(map(len, q.options))
        too_long = select.max_question_chars is not None and length > select.max_question_chars
        too_long |= select.max_rationale_chars is not None and len(q.rationale) > select.max_rationale_chars
        if q.kind == "open" or too_long:
            left.append((q, "an open question, whose answer no rule can check" if q.kind == "open" else "too long"))
        else:
            taken.append(q)
    for kind in ("single", "multi"):
        if select[kind] is not None:
            # questions with a rationale first: they serve for both stages
            pool = sorted((q for q in taken if q.kind == kind), key=lambda q: not q.rationale)
            with_rationale = [q for q in pool if q.rationale]
            random.Random(seed).shuffle(with_rationale)
            chosen = {id(q) for q in (with_rationale + pool[len(with_rationale) :])[: select[kind]]}
            left += [(q, "outside the sample") for q in taken if q.kind == kind and id(q) not in chosen]
            taken = [q for q in taken if q.kind != kind or id(q) in chosen]
    rejects += [Reject(q.id, q.meta["where"], f"left out by the recipe: {why}") for q, why in left]
    return taken


def split(questions: list[Question], rejects: list[Reject], sizes: DictConfig, seed: int):
    """Returns (heldout, grpo, sft), drawn with the seed and with the same share of multi-answer questions in each.

    Questions without a rationale can only be GRPO prompts; when there are more of them than `sizes.grpo`, they all are.
    """
    order = list(questions)
    random.Random(seed).shuffle(order)
    share = sum(q.kind == "multi" for q in order) / max(1, len(order))

    def draw(pool: list[Question], size: int) -> list[Question]:
        multi = min(round(size * share), sum(q.kind == "multi" for q in pool))
        wanted = {"multi": multi, "single": size - multi}
        drawn = []
        for q in pool:
            if wanted[q.kind] > 0:
                wanted[q.kind] -= 1
                drawn.append(q)
        return drawn

    needed = sizes.heldout + sizes.grpo
    if needed > len(order):
        raise BadInput(
            f"split: {sizes.heldout} held-out questions and {sizes.grpo} GRPO prompts are wanted, but only "
            f"{len(order)} questions are left; lower split.heldout and split.grpo"
        )
    heldout = draw(order, sizes.heldout)
    held = {q.id for q in heldout}
    rest = [q for q in order if q.id not in held]
    bare = [q for q in rest if not q.rationale]
    grpo = bare + draw([q for q in rest if q.rationale], max(0, sizes.grpo - len(bare)))
    chosen = {q.id for q in grpo}
    return heldout, grpo, [q for q in rest if q.id not in chosen]


def count_reasons(rejects: list[Reject]) -> Counter:
    """Returns how often each reason stands; what follows its colon is detail."""
    return Counter(r.reason if r.reason.startswith("left out") else r.reason.split(":")[0] for r in rejects)


def status(command: Command) -> None:
    """`python -m launch.data status run=NAME`"""
    if "run" not in command.words:
        raise BadInput("status of which run? `python -m launch.data status run=NAME`")
    show_status(command.words["run"])


def show_status(name: str) -> None:
    """Prints where the rows went."""
    counts = runs.need(name, "data", f"python -m launch.data run={name}")["counts"]
    table = Table("rows", "", title=f"run {name}: data", title_justify="left")
    for label in ("in", "rejected", "out", "sft", "grpo", "heldout"):
        table.add_row(
            str(counts[label]),
            {"sft": "  of these SFT", "grpo": "  GRPO prompts", "heldout": "  held out"}.get(label, label),
        )
    for reason, number in counts["reasons"].items():
        table.add_row(str(number), f"rejected: {reason}")
    stage.console.print(table)


if __name__ == "__main__":
    stage.main(STAGE, run, {"status": status})
