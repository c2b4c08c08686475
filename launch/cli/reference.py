"""What every command takes: its words and keys with their comments, for `--help` and for docs/settings.md."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from data_pipeline import sources, steps
from data_pipeline.llm.server import Server
from launch.cli import arguments
from launch.cli.arguments import REPOSITORY, Stage
from launch.cli.comments import Setting, of_class, of_function, of_yaml
from launch.cli.configuration import CONF
from launch.frameworks import llama_factory, verl

LAUNCH = REPOSITORY / "launch"
FRAMEWORKS = {"sft": "LLaMA-Factory", "grpo": "verl"}
THEIR_KEYS = {
    "sft": "All of LLaMA-Factory's keys, each with what it does: python -m launch.frameworks.llama_factory --help "
    "(20 seconds). Explained at https://llamafactory.readthedocs.io",
    "grpo": "All of verl's keys with their values: python -m launch.grpo --cfg job, or a part of them: "
    "python -m launch.grpo --cfg job --package actor_rollout_ref.rollout. Explained at "
    "https://verl.readthedocs.io/en/latest/examples/config.html",
}
GIVEN_BY_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")


@dataclass(frozen=True)
class Section:
    title: str
    about: str
    settings: list[Setting]


def stages() -> dict[str, Stage]:
    """Returns {name: stage} in the order of the main job."""
    return {stage.name: stage for stage in vars(arguments).values() if isinstance(stage, Stage)}


def commands() -> list[str]:
    """Returns the names of all commands, the stages first."""
    others = sorted(file.stem for file in LAUNCH.glob("*.py") if file.stem != "__init__")
    return list(dict.fromkeys([*stages(), *others]))


def about(command: str) -> str:
    """Returns what the command's file says of itself: what it does, and examples."""
    return ast.get_docstring(ast.parse((LAUNCH / f"{command}.py").read_text(encoding="utf-8"))) or ""


def sections(stage: Stage) -> Iterator[Section]:
    """Yields what the stage takes: words, its keys, those of the framework that it sets, and what stands in them."""
    if words := _words(stage):
        yield Section("Words", "They pick what to run and where.", words)
    ours, theirs = _keys(stage)
    yield Section("Keys", "", ours)
    if theirs:
        framework = FRAMEWORKS[stage.name]
        told = f"Spelled as {framework} spells them; it has more, and they may be given too."
        yield Section(f"{framework}'s keys with a default of ours", told, theirs)
    yield from {"data": _of_data, "grpo": _of_grpo, "eval": _of_eval}.get(stage.name, lambda: ())()


def _words(stage: Stage) -> list[Setting]:
    file = f"{stage.name}.yaml"
    words = []
    if stage.has_recipe:
        told = f"what to run: recipes/NAME/{file}; without it the run's own if the run exists, else the default"
        words.append(Setting("recipe", arguments.DEFAULT_RECIPE, told))
    if stage.has_hardware:
        told = f"where to run: recipes/hardware/NAME/{file}; without it this machine is looked at"
        words.append(Setting("hardware", "", told))
    if stage.base_model_key:
        told = f"the model to start from, ID on the hub or a folder: short for {stage.base_model_key}"
        words.append(Setting("base_model", "", told))
    return words


def _keys(stage: Stage) -> tuple[list[Setting], list[Setting]]:
    """Returns (our keys, the framework's) of launch/conf/STAGE.yaml."""
    settings = of_yaml(CONF / f"{stage.name}.yaml")
    foreign = set(llama_factory.keys()) if stage.name == "sft" else set()

    def is_theirs(setting: Setting) -> bool:
        root = setting.key.split(".")[0]
        return root in foreign or (stage.name == "grpo" and root not in verl.OURS)

    return [s for s in settings if not is_theirs(s)], [s for s in settings if is_theirs(s)]


def _of_data() -> Iterator[Section]:
    for name in steps.step_names():
        step, module = steps.find_step(name, "the help"), importlib.import_module(f"{steps.__name__}.{name}")
        yield Section(f"Step {name}", _first_paragraph(module), _under(f"synthesis.{name}", of_class(step.settings)))
    for name in _modules(sources):
        reader = sources.find_reader(name)
        key = _options_key(inspect.signature(reader.read).return_annotation)
        yield Section(f"Source {name}", _first_paragraph(reader), _under(key, of_function(reader.read, "path")))
    told = "Also under selectors.NAME and models.STEP, over these. recipes/llm/ has some that are filled in."
    yield Section("Whom the steps ask", told, _under("llm", of_class(Server)))


def _options_key(returns: object) -> str:
    """Returns the key of a reader's options: questions come by source=, others by the pipeline that takes them."""
    for record, key in (("Passage", "passages"), ("Post", "posts"), ("Dialogue", "dialogues")):
        if record in str(returns):
            return f"{key}.options"
    return "source_options"


def _of_grpo() -> Iterator[Section]:
    from reward import judge, psyche

    key = "reward.custom_reward_function.reward_kwargs"
    rule = of_function(psyche.compute_score, *GIVEN_BY_VERL)
    yield Section("Reward reward/psyche.py", _first_paragraph(psyche), _under(key, rule))
    more = of_function(judge.compute_score, *GIVEN_BY_VERL, *(setting.key for setting in rule))
    told = f"{_first_paragraph(judge)} Beside these it takes those of reward/psyche.py."
    yield Section("Reward reward/judge.py", told, _under(key, more))


def _of_eval() -> Iterator[Section]:
    from eval.contract import benchmark_names, find_benchmark

    for name in benchmark_names():
        load = find_benchmark(name, "the help").load
        if options := of_function(load, "path"):
            told = f"{_first_paragraph(importlib.import_module(load.__module__))} A set with benchmark: {name}."
            yield Section(f"Benchmark {name}", told, _under("sets.NAME.options", options))


def _under(prefix: str, settings: list[Setting]) -> list[Setting]:
    return [replace(setting, key=f"{prefix}.{setting.key}") for setting in settings]


def _modules(package: ModuleType) -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(str(package.__file__)).parent)])]


def _first_paragraph(module: ModuleType) -> str:
    return " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
