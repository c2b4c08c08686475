"""Holds a recipe against the published numbers, as the frameworks themselves resolve it. Needs no GPU.

    python -m launch.audit recipe=psyche_r1 hardware=gpu8
    python -m launch.audit recipe=psyche_r1 hardware=gpu8 sft.learning_rate=2e-5

Prints published and resolved value, verdict and source for every stage of the recipe that has a card in
recipes/published/RECIPE.yaml; STAGE.KEY=VALUE audits a variation. Exit code 1 on any difference.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import isclose

import yaml
from rich.table import Table

from data_pipeline.errors import BadInput, did_you_mean
from launch.cli import arguments, configuration
from launch.cli.arguments import GRPO, RECIPES, REPOSITORY, SFT
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.frameworks import llama_factory, verl
from launch.preflight.batch_plan import plan_grpo, plan_sft

STAGES = {"sft": (SFT, plan_sft), "grpo": (GRPO, plan_grpo)}


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 all as published, 1 a difference, 2 wrong input."""
    return run_command(audit, __doc__, argv)


def audit(argv: list[str]) -> int:
    given = parse_words(argv, "the audit", ("recipe", "hardware"), STAGES)
    words = {"recipe": arguments.DEFAULT_RECIPE, "hardware": "gpu8"} | given.values
    card = load_card(words["recipe"])
    stages = [stage for stage in STAGES if stage in card["stages"]]
    settings = {stage: compose(stage, words, given.stages[stage]) for stage in stages}
    with ThreadPoolExecutor() as pool:
        resolved = dict(zip(stages, pool.map(lambda s: resolve(s, [settings[s]])[0], stages), strict=True))
    wrong = 0
    for stage in stages:
        rows = compare(card, stage, resolved[stage])
        wrong += sum(row[-1] != "ok" for row in rows)
        show(f"{stage}: {card.get('training_source', card['source'])}", rows)
    console.print(f"{wrong} difference{'s' * (wrong != 1)}" if wrong else "as published")
    return 1 if wrong else 0


def load_card(recipe: str) -> dict:
    """Returns recipes/published/RECIPE.yaml; raises BadInput when there is no training card of that name."""
    cards = {}
    for path in sorted(RECIPES.glob("published/*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "stages" in content:
            cards[path.stem] = content
    if recipe not in cards:
        raise BadInput(
            f"recipe={recipe}: nothing is published to hold it against; there are cards for {', '.join(cards)}"
            f"{did_you_mean(recipe, list(cards))}"
        )
    return cards[recipe]


def compose(stage: str, words: dict[str, str], overrides: list[str]) -> dict:
    """Returns what the framework would get; raises BadInput for unknown keys and impossible batches."""
    described, plan = STAGES[stage]
    command = arguments.parse(described, [f"recipe={words['recipe']}", f"hardware={words['hardware']}", *overrides])
    config = configuration.compose_stage(described, command)
    plan(config, None)
    if stage == "grpo":
        return verl.own_part(configuration.as_dict(config))
    known = set(llama_factory.keys())
    settings = {k: v for k, v in configuration.as_dict(config).items() if k in known}
    return {**settings, "_world": config.psyforge.processes * config.psyforge.nodes}


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


def compare(card: dict, stage: str, resolved: dict) -> list[tuple[str, str, str, str, str]]:
    """Returns (name, published, resolved, source, verdict) per number; the verdict is "ok" or says what is wrong."""
    if "error" in resolved:
        return [("", "", "", "the framework refuses the configuration", resolved["error"].split("\n")[0])]
    expected = [(name, value, "published") for name, value in card["stages"][stage].items()]
    for name, entry in card.get("derived", {}).get(stage, {}).items():
        expected.append((name, entry["value"], f"derived: {entry['why']}"))
    rows = []
    for name, value, source in expected:
        got = resolved.get(name)
        verdict = "ok" if name in resolved and same(value, got) else "DIFFERS"
        rows.append((name, str(value), str(got), source, verdict))
    return rows


def same(published: object, resolved: object) -> bool:
    """True for equal values of one kind; 2 and 2.0 are one, 1 and True are not."""
    if isinstance(published, bool) or isinstance(resolved, bool):
        return published is resolved
    if isinstance(published, int | float) and isinstance(resolved, int | float):
        return isclose(published, resolved, rel_tol=1e-9)
    return published == resolved


def show(title: str, rows: list[tuple]) -> None:
    table = Table("", "expected", "resolved", "verdict", "source", title=title, title_justify="left")
    for name, expected, got, source, verdict in rows:
        table.add_row(name, expected, got, verdict, source, style=None if verdict == "ok" else "bold red")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
