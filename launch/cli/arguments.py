"""The command line of every stage: `python -m launch.STAGE [SUBCOMMAND] [--hydra-flag] [KEY=VALUE ...]`.

`recipe=NAME` and `hardware=NAME` pick recipes/NAME/STAGE.yaml and recipes/hardware/NAME/STAGE.yaml; `base_model=` is
spelled as the framework spells it; every other KEY=VALUE is a Hydra override, whose value is quoted where Hydra's
grammar would not take it as it stands (Chinese, parentheses, blanks, commas in paths).
"""

import json
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.errors import BadInput, did_you_mean
from launch.cli.words import parse_words
from launch.frameworks import llama_factory, verl

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
NOT_RECIPES = {"hardware", "llm", "published"}
DEFAULT_RECIPE = "psyche_r1"
FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd"}


@dataclass(frozen=True)
class Stage:
    name: str
    subcommands: dict[str, tuple[str, ...]] = field(default_factory=dict)  # {name: the keys that it takes}
    positional: dict[str, int] = field(default_factory=dict)  # {subcommand: how many words without "=" it takes}
    has_recipe: bool = True
    has_hardware: bool = True
    has_llm: bool = False
    base_model_key: str | None = None  # how the framework spells base_model=


# What each stage's command line takes; the commands that look at other stages, such as the audit, read it here too.
DATA = Stage("data", subcommands={"status": ("run",)}, has_hardware=False, has_llm=True)
SFT = Stage("sft", base_model_key=llama_factory.BASE_MODEL)
GRPO = Stage("grpo", base_model_key=verl.BASE_MODEL)
MERGE = Stage("merge", has_recipe=False, has_hardware=False)
EVAL = Stage(
    "eval",
    subcommands={
        "rescore": ("run", "elastic_rule", "think_prefilled"),
        "compare": (),
        "rank": ("set", "people"),
        "agreement": (),
    },
    positional={"compare": 2, "rank": 99, "agreement": 99},
)
CHAT = Stage("chat", has_hardware=False)
SERVE = Stage("serve", has_recipe=False, has_hardware=False)


@dataclass
class Command:
    subcommand: str | None = None
    flags: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)  # recipe and hardware; all of a subcommand's KEY=VALUE
    positional: list[str] = field(default_factory=list)  # words of a subcommand without "="
    overrides: list[str] = field(default_factory=list)  # as Hydra takes them, recipe and hardware first
    typed: list[str] = field(default_factory=list)  # the words as they were given


def parse(stage: Stage, arguments: list[str]) -> Command:
    """Returns the command; raises BadInput for a word that is none, or a recipe, hardware or run that is not there."""
    command, given = Command(typed=list(arguments)), {}
    arguments = list(arguments)
    if arguments and "=" not in arguments[0] and not arguments[0].startswith(("-", "~")):
        return _subcommand(stage, *arguments)
    while arguments:
        argument = arguments.pop(0)
        if argument.startswith("-"):
            command.flags.append(argument)
            if argument in FLAGS_WITH_VALUE and arguments and "=" not in arguments[0]:
                command.flags.append(arguments.pop(0))
        elif argument.startswith("~"):
            command.overrides.append(argument)
        elif "=" in argument:
            key, value = argument.split("=", 1)
            if key in given and "--multirun" not in command.flags:
                raise BadInput(f"{key}= stands twice: {given[key]!r} and {value!r}")
            given[key] = value
        else:
            raise BadInput(f"{argument!r} is not KEY=VALUE")

    multirun = bool({"--multirun", "-m"} & set(command.flags))
    if "run" in given:
        check_run_name(given["run"], multirun)
    if "recipe" in given and not stage.has_recipe:
        raise BadInput(f"{stage.name} takes no recipe=")
    if "hardware" in given and not stage.has_hardware:
        raise BadInput(f"{stage.name} takes no hardware=")
    groups = []
    if stage.has_recipe:
        recipe = given.pop("recipe", None) or recipe_of_run(given.get("run")) or DEFAULT_RECIPE
        check_recipe(recipe, stage.name)
        command.words["recipe"] = recipe
        groups.append(f"+{recipe}={stage.name}")
        given.setdefault("run", recipe)
    if stage.has_hardware:
        hardware = given.pop("hardware", None) or detect_hardware()
        check_hardware(hardware, stage.name)
        command.words["hardware"] = hardware
        groups.append(f"+hardware/{hardware}={stage.name}")
    if stage.has_llm and "llm" in given:
        check_llm(given["llm"])
        groups.append(f"+llm={given.pop('llm')}")
    if stage.base_model_key and "base_model" in given:
        given[stage.base_model_key] = given.pop("base_model")
    command.overrides = groups + command.overrides + [f"{k}={quote(k, v, multirun)}" for k, v in given.items()]
    return command


def _subcommand(stage: Stage, name: str, *arguments: str) -> Command:
    if name not in stage.subcommands:
        known = ", ".join(stage.subcommands) or "none"
        raise BadInput(
            f"{stage.name} has no subcommand {name!r} (there is: {known}){did_you_mean(name, stage.subcommands)}"
        )
    positional = stage.positional.get(name, 0)
    words = parse_words(list(arguments), f"{stage.name} {name}", stage.subcommands[name], positional=positional)
    if "run" in words.values:
        check_run_name(words.values["run"])
    return Command(name, words=words.values, positional=words.positional)


def in_earnest(stage: Stage, command: Command) -> list[str]:
    """Returns the command of a dry run without dry_run=: every word as it was typed, with recipe and hardware."""
    named = [f"{key}={value}" for key, value in command.words.items()]
    left_out = ("dry_run", *command.words)
    return ["python", "-m", f"launch.{stage.name}", *named,
            *(word for word in command.typed if word.split("=", 1)[0] not in left_out)]  # fmt: skip


def recipe_of_run(run: str | None) -> str | None:
    """Returns the recipe that an existing run was started with, from the configuration of its first stage."""
    if run and re.fullmatch(r"[\w.-]+", run):
        for stage in ("data", "sft", "grpo"):
            word = REPOSITORY / "runs" / run / stage / "recipe"
            if word.is_file():
                return word.read_text(encoding="utf-8").strip()
    return None


def check_recipe(recipe: str, stage: str) -> None:
    """Raises BadInput unless recipes/RECIPE/STAGE.yaml is there; a missing file would compose silently."""
    if "/" in recipe or not (RECIPES / recipe / f"{stage}.yaml").is_file():
        names = sorted(p.parent.name for p in RECIPES.glob(f"*/{stage}.yaml") if p.parent.name not in NOT_RECIPES)
        raise BadInput(
            f"recipe={recipe}: there is no recipes/{recipe}/{stage}.yaml; recipes with a {stage} stage: "
            f"{', '.join(names) or 'none'}{did_you_mean(recipe, names)}"
        )


def check_hardware(hardware: str, stage: str) -> None:
    """Raises BadInput unless recipes/hardware/HARDWARE/STAGE.yaml is there."""
    if "/" in hardware or not (RECIPES / "hardware" / hardware / f"{stage}.yaml").is_file():
        names = sorted(p.parent.name for p in RECIPES.glob(f"hardware/*/{stage}.yaml"))
        raise BadInput(
            f"hardware={hardware}: there is no recipes/hardware/{hardware}/{stage}.yaml; there is: "
            f"{', '.join(names)}{did_you_mean(hardware, names)}"
        )


def check_llm(name: str) -> None:
    """Raises BadInput unless recipes/llm/NAME.yaml is there."""
    if "/" in name or not (RECIPES / "llm" / f"{name}.yaml").is_file():
        names = sorted(p.stem for p in RECIPES.glob("llm/*.yaml"))
        raise BadInput(
            f"llm={name}: there is no recipes/llm/{name}.yaml; there is: {', '.join(names)}{did_you_mean(name, names)}"
        )


@cache
def count_gpus() -> int:
    """Returns the number of GPUs that nvidia-smi lists, 0 without one; asks no framework."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def detect_hardware() -> str:
    """Returns "gpu", which takes all cards that nvidia-smi lists, or "cpu"."""
    return "gpu" if count_gpus() else "cpu"


def check_run_name(run: str, multirun: bool = False) -> None:
    """Raises BadInput unless the name is plain: letters (of any script), digits, '.', '_' and '-'."""
    if multirun and ("," in run or "$" in run):
        return
    if not re.fullmatch(r"[\w.-]+", run) or run.startswith(".") or len(run) > 100:
        raise BadInput(
            f"run={run}: a run name is a plain name of letters, digits, '.', '_' and '-' (no slash, no blank)"
        )


def quote(key: str, value: str, multirun: bool = False) -> str:
    """Returns the value as Hydra's grammar takes it: unchanged where it parses as one value, else in quotes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    _refuse_twice(key, value)
    try:
        parsed = OverridesParser.create().parse_override(f"{key}={value}")
        if key == "run" and not multirun and not isinstance(parsed.value(), str):
            return quoted(value)  # run=2024 is a name
        if multirun or not parsed.is_sweep_override():
            return value
    except HydraException:
        pass
    if value.lstrip().startswith(("{", "[")):
        try:
            return _in_hydras_grammar(yaml.safe_load(value))
        except yaml.YAMLError:
            pass  # a name that begins with a bracket
    return quoted(value)


def _refuse_twice(key: str, value: str) -> None:
    """Raises BadInput for a dictionary in which a name stands twice: Hydra would take the last one and say nothing."""
    if not value.lstrip().startswith(("{", "[")):
        return
    try:
        nodes = [yaml.compose(value, yaml.SafeLoader)]
    except yaml.YAMLError:
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            names = [name.value for name, _ in node.value if isinstance(name.value, str)]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise BadInput(f"{key}: {twice} stands twice in {value}; give each a name of its own")
            nodes += [inner for _, inner in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _in_hydras_grammar(value: object) -> str:
    """Returns a list, dictionary or scalar of YAML as Hydra writes it, every text in quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(key)}:{_in_hydras_grammar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_hydras_grammar, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _key(key: object) -> str:
    """Returns the key of a dictionary in signs that Hydra's grammar has: 配 is \\U0000914d, as Python writes it."""
    return re.sub(r"[^\w.+/-]", lambda sign: f"\\U{ord(sign[0]):08x}", str(key), flags=re.ASCII)


def plain_keys(value: Any) -> Any:
    """Returns dictionaries, at any depth, with the keys as they were before `_key`."""
    if isinstance(value, list):
        return [plain_keys(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    signs = re.compile(r"\\U([0-9a-f]{8})")
    return {signs.sub(lambda s: chr(int(s[1], 16)), str(key)): plain_keys(inner) for key, inner in value.items()}


def quoted(value: str) -> str:
    """Returns the text in Hydra's quotes."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)  # Hydra's rule: backslashes count only before a quote
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"
