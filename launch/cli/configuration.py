"""Composes a stage's configuration from launch/conf, the recipe, the hardware and the command line, and is strict.

A key that neither we nor the framework know is an error, wherever it stands; a key that LLaMA-Factory knows may be
given although the recipe does not list it, and each of its keys is held to the values that it takes. Composing imports
no framework: verl's own YAML is read from its folder.
"""

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ValidationError

from data_pipeline.errors import BadInput, did_you_mean, first_fault
from data_pipeline.safety.credentials import check_settings
from data_pipeline.safety.safe_yaml import load_yaml_file
from launch.cli import arithmetic, environment, moved, recipe_files  # noqa: F401  (the resolvers of the first two)
from launch.cli.arguments import RECIPES, Command, Stage, plain_keys
from launch.frameworks import llama_factory, verl

CONF = Path(__file__).parent.parent / "conf"
# verl's dictionaries that hold whatever the thing behind them takes; an empty one in verl's own files is open too.
OPEN_KEYS = (
    "ray_kwargs.ray_init",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "reward.custom_reward_function.reward_kwargs",
    "sets",
    "llm",
    "selectors",
    "models",
    "passages",
    "posts",
    "dialogues",
    "synthesis",
)
REPLACED = ("selectors", "dialogues")  # given as a whole they take the recipe's place; `selectors.NAME.model=` joins it
# What may stand where a key of verl's or ours has a default of this type: a number may be of either kind
LIKE_DEFAULT: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a number", (int, float)),
    float: ("a number", (int, float)),
}
UNUSED = ("reward.reward_model.", "critic.", "distillation.")  # parts of verl that GRPO with a rule reward never reads

Keys = TypeVar("Keys", bound=BaseModel)
# Hydra reads a name or a message of digits as a number
Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


def load_config(file: Path) -> DictConfig:
    """Returns the content of a YAML file of ours, which is a dictionary."""
    return cast(DictConfig, OmegaConf.load(file))


def as_dict(config: DictConfig) -> dict[str, Any]:
    """Returns a configuration, or a part of it, as plain dictionaries and lists."""
    return cast(dict[str, Any], OmegaConf.to_container(config))


def checked(config: DictConfig, keys: type[Keys]) -> Keys:
    """Returns a stage's configuration as `keys`; raises BadInput that names key, value and bound that do not fit."""
    try:
        return keys.model_validate(as_dict(config))
    except ValidationError as error:
        raise BadInput(first_fault("", error)) from None


def search_path(stage: Stage) -> list[str]:
    """Returns Hydra's further folders: the recipes, and for GRPO verl's own configuration, found without an import."""
    folders = [RECIPES] + ([verl.config_folder()] if stage.name == "grpo" else [])
    return [f"file://{folder}" for folder in folders]


def hydra_overrides(stage: Stage, command: Command) -> list[str]:
    """Returns the command's overrides as Hydra takes them, the search path first.

    Hydra's `++` goes before keys of open dictionaries, and before those that only LLaMA-Factory knows; it joins what it
    is given to what is there, so that REPLACED keys are deleted before. Raises BadInput for a key that nobody knows.
    """
    folders = ",".join("'" + folder.replace("'", "\\'") + "'" for folder in search_path(stage))
    overrides = [f"hydra.searchpath=[{folders}]"]
    ours = load_config(CONF / f"{stage.name}.yaml")
    open_places = _open_places(ours)
    for override in command.overrides:
        key = override.split("=", 1)[0]
        if open_places & set(_places(key)):
            overrides += [f"++{key}=null"] if key in REPLACED and key in ours else []
            override = f"++{override}"
        elif stage.name == "sft" and re.fullmatch(r"\w+", key) and key not in set(ours):  # `in` would not see "???"
            if key not in llama_factory.keys():
                raise BadInput(_unknown(key, "sft", [*llama_factory.keys(), *map(str, ours)]))
            override = f"++{override}"
        overrides.append(override)
    return overrides


def compose_stage(stage: Stage, command: Command) -> DictConfig:
    """Returns the composed configuration, interpolations resolved; raises BadInput with the key and the cure."""
    check_files(stage, command)
    overrides = hydra_overrides(stage, command)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            reference = reference_of(stage)
            config = compose(stage.name, overrides)
            _refuse_unknown(stage, reference, config, [o for o in overrides if o.startswith("+")])
            OmegaConf.resolve(config)
            if any(r"\U" in override for override in overrides):
                plain = OmegaConf.create(plain_keys(as_dict(config)), flags={"struct": True})
                config = cast(DictConfig, plain)
        except (HydraException, OmegaConfBaseException) as error:
            raise BadInput(_readable(error, stage, reference)) from None
        except yaml.MarkedYAMLError as error:
            at = error.problem_mark
            where = f"{at.name} line {at.line + 1}, column {at.column + 1}: " if at else ""
            raise BadInput(f"{where}not YAML ({error.problem})") from None
    check_settings(as_dict(config))
    environment.check_plain(as_dict(config))
    for key, value in _leaves(config):
        moved.check_value(key, value)
        if value == "???" and not key.startswith(UNUSED):
            raise BadInput(f"{key} has no value: say {key}=... or set it in the recipe")
    if stage.base_model_key:  # a framework's, which compares no value with what it takes
        with recipe_files.named(command, stage.name):
            _check_values(stage, reference, config)
    return config


def check_files(stage: Stage, command: Command) -> None:
    """Raises BadInput for a recipe or hardware file that is more than data, or could hold a key."""
    for folder in (RECIPES / command.words.get("recipe", ""), RECIPES / "hardware" / command.words.get("hardware", "")):
        if (file := folder / f"{stage.name}.yaml").is_file():
            check_settings(load_yaml_file(file) or {})


def _check_values(stage: Stage, reference: DictConfig, config: DictConfig) -> None:
    """Raises BadInput for a value that LLaMA-Factory's key does not take, or that is unlike the default of another."""
    theirs = llama_factory.keys() if stage.name == "sft" else {}
    for key, value in as_dict(config).items():
        if key in theirs:
            llama_factory.check_value(key, value)
    defaults = {key: value for key, value in _leaves(reference) if key not in theirs}
    for key, value in _leaves(config):
        told, kinds = LIKE_DEFAULT.get(type(defaults.get(key)), ("", ()))
        if kinds and value is not None and type(value) not in kinds:
            raise BadInput(f"{key}={value}: expected {told}, as its default {defaults[key]}")


def reference_of(stage: Stage) -> DictConfig:
    """Returns the stage's keys before recipe and command line, from our file and, for GRPO, verl's own composed one.

    Composing them again would take as long as the configuration itself; a test holds that the keys are the same.
    """
    ours = load_config(CONF / f"{stage.name}.yaml")
    if stage.name != "grpo":
        return ours
    del ours["defaults"]
    reference = OmegaConf.create({"model_engine": None, **verl.defaults()})
    reference.merge_with(ours)
    return reference


def _refuse_unknown(stage: Stage, reference: DictConfig, config: DictConfig, added: list[str]) -> None:
    """Raises BadInput for keys that the stage does not have, and for a value where it has a dictionary."""
    explicit = {re.sub(r"^\++", "", a).split("=", 1)[0] for a in added}
    keys = llama_factory.keys() if stage.name == "sft" else {}
    known, open_places = dict(_leaves(reference, containers=True)), _open_places(reference)
    for key, value in _leaves(config, containers=True):
        if known.get(key) is dict and value is not dict and value is not None:
            raise BadInput(f"{stage.name}: {key}={value!r}: expected a dictionary, {{name: value, ...}}")
        parents = _places(key)[1:]
        if key in known or key in keys or key in explicit or any(p in explicit for p in parents):
            continue
        if open_places & set(_places(key)):
            continue
        raise BadInput(f"{stage.name}: {_unknown(key, stage.name, [*known, *keys])}")


def _places(key: str) -> list[str]:
    """Returns the dotted key and its parents."""
    return [key, *(key.rsplit(".", i)[0] for i in range(1, key.count(".") + 1))]


def _open_places(config: DictConfig) -> set[str]:
    """Returns the dictionaries that take any key: those that are empty here, and OPEN_KEYS."""
    nodes = dict(_leaves(config, containers=True))
    with_children = {place for key in nodes for place in _places(key)[1:]}
    return {key for key, value in nodes.items() if value is dict and key not in with_children} | set(OPEN_KEYS)


def _leaves(config: DictConfig, prefix: str = "", containers: bool = False):
    """Yields (dotted key, raw value) of every leaf; with `containers` also (dotted key, dict) of every inner node."""
    for key in config:
        name = f"{prefix}{key}"
        if OmegaConf.is_missing(config, key):
            yield name, "???"
            continue
        # its annotation names fewer kinds of keys than a DictConfig has
        unresolved = OmegaConf.is_interpolation(config, key)  # pyright: ignore[reportArgumentType]
        value = None if unresolved else config[key]
        if isinstance(value, DictConfig):
            if containers:
                yield name, dict
            yield from _leaves(value, f"{name}.", containers)
        else:
            yield name, None if isinstance(value, ListConfig) else value


def _unknown(key: str, stage: str, known: list[str]) -> str:
    if new := moved.new_key(key):
        return f"{key} was renamed; it is {new} now"
    return f"unknown key {key!r}{did_you_mean(key, known) or f'; `python -m launch.{stage} --cfg job` lists the keys'}"


def _readable(error: Exception, stage: Stage, reference: DictConfig) -> str:
    """Returns the first useful lines of Hydra's message, with the nearest key where a key is not there."""
    text = str(error)
    if (missing := re.search(r"Key '([^']+)' is not in struct|Could not override '([^']+)'", text)) is not None:
        full = re.search(r"full_key: (\S+)", text)
        override = re.search(r"Could not override '([^']+)'", text)
        key = (override and override[1]) or (full and full[1]) or missing[1]
        return _unknown(key, stage.name, [k for k, _ in _leaves(reference, containers=True)])
    below: BaseException | None = error
    while below := below.__cause__ or below.__context__:
        if isinstance(below, BadInput):  # of a resolver of ours
            return str(below)
    return "configuration: " + " ".join(text.split("\n")[:3])
