"""The part of the data stage's configuration that synthesis reads, checked; and each step's settings out of it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipeline.errors import BadInput, did_you_mean, first_fault
from data_pipeline.llm.places import Where, place
from data_pipeline.steps import Step, StepSettings, find_step

READS = {"questions": "passages", "posts": "posts", "dialogues": "dialogues"}  # a pipeline and the key of its source


class Source(BaseModel):
    """Where a pipeline's records come from: a reader in data_pipeline/sources/, and the path that it reads."""

    model_config = ConfigDict(extra="forbid")

    source: str
    path: str
    options: dict[str, Any] = {}


class Configuration(BaseModel):
    """Keys of launch/conf/data.yaml; the stage has others, which are not read here."""

    model_config = ConfigDict(extra="ignore")

    run: str
    passages: str | dict | None = None
    posts: str | dict | None = None
    dialogues: dict | None = None
    pipelines: dict[str, list[str]]
    executor: Literal["machine", "ray"] = "machine"
    shared: str | None = None  # a place that all nodes see
    steps: list[str] | None = None
    tokens_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    resume: str = "auto"
    limit: int | None = None
    budget: float | None = None
    ledger: str | None = None
    join: bool = False
    llm: dict[str, Any] | None = None
    selectors: dict[str, dict | None] = {}
    models: dict[str, dict | None] = {}
    synthesis: dict[str, dict[str, Any] | None] = {}

    def sources(self) -> dict[str, Source]:
        """Returns {pipeline: source} of those that are given; raises BadInput without any."""
        given = {name: getattr(self, key) for name, key in READS.items() if getattr(self, key) is not None}
        if not given:
            raise BadInput(
                "source=synthesis needs passages= (a folder of texts), posts= (a file of posts with replies) or "
                "dialogues={source: NAME, path: PATH}"
            )
        return {name: _source(READS[name], value) for name, value in given.items()}

    def ledger_at(self, folder: Path) -> Where:
        """Returns where calls are kept; `folder` is the stage's."""
        return place(self.ledger, folder)

    def active(self) -> dict[str, list[str]]:
        """Returns {pipeline: its steps} of the sources that are given; BadInput for a step that there is not."""
        active = {name: self.pipelines.get(name, []) for name in self.sources()}
        for name, steps in active.items():
            for step in steps:
                find_step(step, f"pipelines.{name}")
        return active

    def wanted(self) -> set[str]:
        """Returns the steps that `steps=` names, all of them without it; raises BadInput for a name that is none."""
        there = list(dict.fromkeys(step for steps in self.active().values() for step in steps))
        for step in self.steps or ():
            if step not in there:
                raise BadInput(f"steps: no step {step!r}; there is {', '.join(there)}{did_you_mean(str(step), there)}")
        return set(there if self.steps is None else self.steps)

    def settings(self, name: str, step: Step) -> StepSettings:
        """Returns the step's settings; raises BadInput that names key, value and bound for one that cannot be."""
        given = self.synthesis.get(name) or {}
        known = list(step.settings.model_fields)
        for key in given:
            if key not in known:
                hint = did_you_mean(key, known)
                raise BadInput(f"synthesis.{name}: no setting {key!r}; there is {', '.join(known)}{hint}")
        try:
            return step.settings(**given)
        except ValidationError as error:
            raise BadInput(first_fault(f"synthesis.{name}", error)) from None

    def files_of_people(self) -> dict[str, list[str]]:
        """Returns {"synthesis.STEP": files that people fill in} of the active steps whose settings name such files."""
        steps = {name: find_step(name, "pipelines") for names in self.active().values() for name in names}
        return {
            f"synthesis.{name}": getattr(self.settings(name, step), step.people)
            for name, step in steps.items()
            if step.people
        }


def configuration(given: dict[str, Any]) -> Configuration:
    """Returns the synthesis part of the stage's configuration; raises BadInput that names the key, of any step."""
    try:
        config = Configuration.model_validate(given)
    except ValidationError as error:
        raise BadInput(first_fault("", error)) from None
    for name in config.synthesis:
        config.settings(name, find_step(name, "synthesis"))
    for name in config.models:
        find_step(name, "models")
    return config


def _source(key: str, value: str | dict) -> Source:
    if isinstance(value, str):
        value = {"source": key, "path": value}
    try:
        return Source.model_validate(value)
    except ValidationError:
        raise BadInput(
            f"{key}={value}: takes {{source: NAME, path: PATH}}, with a reader in data_pipeline/sources/"
            + (", or a path" if key != "dialogues" else "")
            + "; what the reader itself takes stands under options: {source: NAME, path: PATH, options: {...}}"
        ) from None


def path_of(source: Source) -> Path:
    return Path(source.path)
