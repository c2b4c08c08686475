"""Holds a recipe against the published numbers, as the frameworks themselves resolve it. Needs no GPU.

    python -m launch.audit recipe=psyche_r1 hardware=gpu8
    python -m launch.audit recipe=psyche_r1 hardware=gpu8 sft.learning_rate=2e-5
    python -m launch.audit recipe=psyche_r1_lora against=psyche_r1 hardware=gpu1
    python -m launch.audit recipe=psyche_r1 hardware=gpu cards=4

Prints published and resolved value, verdict and source for every stage that the card recipes/published/RECIPE.yaml has
numbers of, and says at its end which rows differ. STAGE.KEY=VALUE audits a variation; against=NAME holds a recipe that
has no card, a variant or your own, against that card. Exit code 1 on any difference.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import isclose
from typing import NamedTuple

import yaml
from omegaconf import DictConfig
from rich.table import Table

from data_pipeline.errors import BadInput, did_you_mean
from launch.cli import arguments, configuration
from launch.cli.arguments import GRPO, RECIPES, REPOSITORY, SFT
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.frameworks import llama_factory, verl
from launch.preflight import memory
from launch.preflight.batch_plan import plan_grpo, plan_sft

STAGES = {"sft": (SFT, plan_sft), "grpo": (GRPO, plan_grpo)}


class Row(NamedTuple):
    """One number of a card beside what the framework makes of the recipe."""

    name: str
    published: str
    resolved: str
    source: str
    verdict: str  # "ok" or what is wrong

    @property
    def differs(self) -> bool:
        return self.verdict != "ok"

    def __str__(self) -> str:
        return f"{self.name} {self.resolved}, published {self.published}"


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 all as published, 1 a difference, 2 wrong input."""
    return run_command(audit, __doc__, argv)


def audit(argv: list[str]) -> int:
    given = parse_words(argv, "the audit", ("recipe", "hardware", "cards", "nodes", "against"), STAGES)
    words = {"recipe": arguments.DEFAULT_RECIPE, "hardware": "gpu8"} | given.values
    against, varied = words.pop("against", ""), given.stages
    recipe, name = words["recipe"], against or words["recipe"]
    card = load_card(recipe, against)
    source = card.get("training_source", card["source"])
    stages, configs, asked = held_stages(recipe, name, card, varied), {}, {}
    with ThreadPoolExecutor() as pool:  # a stage's framework is asked while the next stage is composed
        for stage in stages:
            configs[stage] = composed(stage, words, varied[stage])
            asked[stage] = pool.submit(resolve, stage, [for_framework(stage, configs[stage])])
    console.print(
        f"recipe {recipe} on hardware {words['hardware']}, held against recipes/published/{name}.yaml: {source}",
    )
    differing = []
    for stage, resolved in asked.items():
        values = resolved.result()[0]
        if "error" in values:
            differing.append(f"{stage}: {refusal(values)}")
            continue
        rows = compare(card, stage, values)
        differing += [f"{stage}: {row}" for row in rows if row.differs]
        with_ = f" with {', '.join(varied[stage])}" if varied[stage] else ""
        show(f"{stage} of {recipe}{with_} on {words['hardware']}, against {name}", rows)
        for note in memory_notes(stage, configs[stage], card["stages"]["sft"]["model_name_or_path"]):
            console.print(f"  {note}")
    for stage in sorted(set(card["stages"]) - set(stages)):
        console.print(f"{stage}: not held, since there is no recipes/{recipe}/{stage}.yaml")
    for line in differing:
        console.print(f"  {line}")
    wrong = len(differing)
    console.print(f"{wrong} difference{'s' * (wrong != 1)}" if wrong else f"as published: {', '.join(stages)}")
    return 1 if wrong else 0


def held_stages(recipe: str, name: str, card: dict, varied: dict[str, list[str]]) -> list[str]:
    """Returns the stages that card and recipe have; raises BadInput without one, and for a variation of another."""
    of_card = [stage for stage in STAGES if stage in card["stages"]]
    held = [stage for stage in of_card if (RECIPES / recipe / f"{stage}.yaml").is_file()]
    if not held:
        arguments.check_recipe(recipe, of_card[0])
    for stage in (stage for stage in STAGES if varied[stage] and stage not in held):
        what = f"recipes/{recipe} has no {stage}.yaml" if stage in of_card else f"card {name} has no number of {stage}"
        raise BadInput(f"{stage}.{varied[stage][0]}: {what}, so that nothing is held against it")
    return held


def load_card(recipe: str, against: str = "") -> dict:
    """Returns recipes/published/AGAINST.yaml, or RECIPE.yaml; raises BadInput without a training card of that name."""
    cards = {}
    for path in sorted(RECIPES.glob("published/*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "stages" in content:
            cards[path.stem] = content
    name, known = against or recipe, ", ".join(cards)
    if name not in cards:
        what = (
            f"against={against}: there is no such card; there is {known}"
            if against
            else f"recipe={recipe}: nothing is published to hold it against; against=NAME holds it against {known}"
        )
        raise BadInput(f"{what}{did_you_mean(name, list(cards))}")
    return cards[name]


def compose(stage: str, words: dict[str, str], overrides: list[str]) -> dict:
    """Returns what the framework would get; raises as `composed`."""
    return for_framework(stage, composed(stage, words, overrides))


def composed(stage: str, words: dict[str, str], overrides: list[str]) -> DictConfig:
    """Returns the stage's configuration; raises BadInput for unknown keys and impossible batches."""
    described, plan = STAGES[stage]
    given = [f"{key}={value}" for key, value in words.items()]
    config = configuration.compose_stage(described, arguments.parse(described, [*given, *overrides]))
    plan(config, None)
    return config


def memory_notes(stage: str, config: DictConfig, model: str) -> list[str]:
    """Returns what the stage takes of each GPU, and where the published numbers cannot stand."""
    if stage == "sft":
        return memory.for_sft(config, model, None, config.cutoff_len, check=False)
    longest = config.data.max_prompt_length + config.data.max_response_length
    return memory.for_grpo(config, model, None, longest, check=False)


def for_framework(stage: str, config: DictConfig) -> dict:
    """Returns the framework's part of the configuration, with `_world` for LLaMA-Factory's."""
    if stage == "grpo":
        return verl.own_part(configuration.as_dict(config))
    known = set(llama_factory.keys())
    settings = {k: v for k, v in configuration.as_dict(config).items() if k in known}
    return {**settings, "_world": config.cards * config.nodes}


def resolve(stage: str, settings: list[dict]) -> list[dict]:
    """Returns the framework's values for each settings, from a process apart; {"error": text} for those it refuses."""
    worlds = [str(s.pop("_world")) for s in settings if "_world" in s]
    if len(set(worlds)) > 1:
        raise ValueError("one process simulates one world size")
    env = {
        **os.environ,
        "DS_BUILD_OPS": "0",
        "HF_HUB_OFFLINE": "1",
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "launch.cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "launch.frameworks.values", stage, *worlds[:1]],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        env=env,
    )
    if done.returncode:
        raise RuntimeError(f"launch.frameworks.values {stage} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compare(card: dict, stage: str, resolved: dict) -> list[Row]:
    """Returns a row for every number of the card."""
    published = [(name, value, "published") for name, value in card["stages"][stage].items()]
    for name, entry in card.get("derived", {}).get(stage, {}).items():
        published.append((name, entry["value"], f"derived: {entry['why']}"))
    rows = []
    for name, value, source in published:
        got = resolved.get(name)
        verdict = "ok" if name in resolved and same(value, got) else "DIFFERS"
        rows.append(Row(name, str(value), str(got), source, verdict))
    return rows


def refusal(resolved: dict) -> str:
    return f"the framework refuses the configuration: {resolved['error'].splitlines()[0]}"


def same(published: object, resolved: object) -> bool:
    """True for equal values of one kind; 2 and 2.0 are one, 1 and True are not."""
    if isinstance(published, bool) or isinstance(resolved, bool):
        return published is resolved
    if isinstance(published, int | float) and isinstance(resolved, int | float):
        return isclose(published, resolved, rel_tol=1e-9)
    return published == resolved


def show(title: str, rows: list[Row]) -> None:
    """Prints the rows, names and values whole however narrow the terminal; only sources are folded."""
    table = Table("key", "published", "resolved", "verdict", title=title, title_justify="left")
    table.add_column("source", max_width=32)
    for row in rows:
        cells = (row.name, row.published, row.resolved, row.verdict, row.source)
        table.add_row(*cells, style="bold red" if row.differs else None)
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
