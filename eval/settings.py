"""The settings of an evaluation, checked: what is asked, of whom, and how it is scored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_pipeline import llm
from data_pipeline.errors import BadInput, did_you_mean, first_fault
from data_pipeline.llm.places import place
from data_pipeline.llm.recorded import Recorded
from eval.contract import Benchmark, Loaded, Scoring, benchmark_of_files, find_benchmark, load_items
from eval.judging.asking import Whom, whom
from eval.judging.judges import Panel
from eval.metrics import ELASTIC_RULES

TAKEN = ("endpoint", "base", "sft", "grpo")  # names that a report has for other models


class SetSettings(BaseModel):
    """One of `sets`: what is asked, and how often and at what temperature each of its items."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str | None = None  # of the data stage
    benchmark: str | None = None  # of eval/benchmarks
    path: str | None = None  # of the benchmark's files; without one the set is left out
    options: dict[str, Any] | None = None  # of the benchmark's loader
    samples: int = 1
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=0, ge=0)  # 0: all; None: a server's own
    repetition_penalty: float | None = Field(default=1.0, gt=0)  # 1: none; None: a server's own
    system: str | None = None  # a prompt's name or text, "" for none; None: the benchmark's own

    @field_validator("samples", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if not isinstance(value, int) or value < 1:
            raise ValueError("must be a positive whole number")
        return value

    @property
    def is_left_out(self) -> bool:
        return self.file is None and not self.path

    def place(self, data: Path) -> Path:
        """Returns the file or folder that is read; `data` is the folder of the data stage."""
        return data / self.file if self.file is not None else Path(self.path or "")


class EvalSettings(BaseModel):
    """Keys of launch/conf/eval.yaml that say what is measured; the command has others, which are not read here."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    run: str
    seed: int
    max_new_tokens: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    bootstrap: int = Field(ge=100)  # of fewer draws an interval is chance, and of one a point
    elastic_rule: str
    think_prefilled: bool
    engine: Literal["auto", "vllm", "transformers"]
    vllm: dict[str, Any]  # flags of its server
    sets: dict[str, SetSettings]
    endpoints: dict[str, llm.Server]  # by name, the one under `endpoint` by this word; {}: the models of the run
    checkpoints: list[str]  # RUN/CHECKPOINT of any run, beside them
    ledger: str | None = None  # where calls are kept; None: in the stage's folder
    client: Whom | None  # who plays the clients of sessions
    judges: dict[str, Whom]  # by name; the one under `judge` by its model's
    judge_repeats: int = Field(default=1, ge=1, le=100)

    @property
    def scoring(self) -> Scoring:
        return Scoring(self.elastic_rule, self.think_prefilled, self.bootstrap, self.seed)

    def scoring_of(self, benchmark: Benchmark) -> Scoring:
        """Of a transcript the thoughts have been taken off already."""
        return replace(self.scoring, think_prefilled=False) if benchmark.session else self.scoring

    @property
    def panel(self) -> Panel:
        return Panel(self.judges, self.judge_repeats)


def settings(given: Mapping[str, Any]) -> EvalSettings:
    """Returns the settings; raises BadInput that names key, value and bound for one that cannot be."""
    if given["elastic_rule"] not in ELASTIC_RULES:
        raise BadInput(f"elastic_rule={given['elastic_rule']}: known are {', '.join(ELASTIC_RULES)}")
    sets = {name: _set(name, one) for name, one in (given["sets"] or {}).items() if one is not None}
    client = whom(given["client"], "client") if given.get("client") else None
    place(given.get("ledger"), Path())
    made = {"endpoints": _endpoints(given), "judges": _judges(given), "client": client, "sets": sets}
    try:
        return EvalSettings.model_validate({"checkpoints": [], **given, **made})
    except ValidationError as error:
        raise BadInput(first_fault("", error)) from None


def _endpoints(given: Mapping[str, Any]) -> dict[str, llm.Server]:
    """Returns the servers by name; raises BadInput for two that are called the same."""
    servers = {}
    if (given["endpoint"] or {}).get("base_url"):
        servers["endpoint"] = llm.server_from(given["endpoint"], "endpoint")
    for name, one in (given.get("endpoints") or {}).items():
        if not isinstance(one, dict):
            raise BadInput(f"endpoints.{name}={one!r}: takes {{base_url: URL, model: NAME}}")
        if not re.fullmatch(r"[\w-]+", str(name)) or name in TAKEN:
            raise BadInput(f"endpoints.{name}: a name has letters, digits, '_' and '-', and is not {', '.join(TAKEN)}")
        server = llm.server_from(one, f"endpoints.{name}")
        same = next(
            (n for n, s in servers.items() if (s.model, s.extra_body) == (server.model, server.extra_body)), None
        )
        if same:
            raise BadInput(
                f"endpoints.{name}: {same} is of model {server.model!r} too, and what one has said would count as the "
                "other's; serve one of them under another name, or evaluate it under another run="
            )
        servers[str(name)] = server
    return servers


def _judges(given: Mapping[str, Any]) -> dict[str, Whom]:
    """Returns the judges by name; raises BadInput for two that are one."""
    servers: dict[str, Whom] = {}
    if (given["judge"] or {}).get("base_url"):
        server = llm.server_from(given["judge"], "judge")
        servers[server.model] = server
    for name, one in (given.get("judges") or {}).items():
        if not isinstance(one, dict):
            raise BadInput(f"judges.{name}={one!r}: takes {{base_url: URL, model: NAME}}")
        server = whom(one, f"judges.{name}")
        same = next((n for n, other in servers.items() if _of(other) == _of(server)), None)
        if same or name in servers:
            raise BadInput(f"judges.{name}: {same or name} is a judge already, of the same model or name; name another")
        servers[name] = server
    return servers


def _of(one: Whom) -> tuple:
    """What a judge's ledger knows it by, or the folder of its replies."""
    return (one.replies,) if isinstance(one, Recorded) else (one.model, str(one.extra_body))


def _set(name: str, given: Any) -> SetSettings:
    key, known = f"sets.{name}", list(SetSettings.model_fields)
    if not name.replace("_", "").replace("-", "").isalnum():
        raise BadInput(f"{key}: a set's name has letters, digits, '_' and '-'; it becomes part of a file's name")
    if not isinstance(given, dict):
        raise BadInput(f"{key}={given!r}: takes {{benchmark: NAME, path: PATH}} or {{file: NAME}}")
    if odd := sorted(set(given) - set(known)):
        raise BadInput(f"{key}: unknown {', '.join(odd)}; known are {', '.join(known)}{did_you_mean(odd[0], known)}")
    try:
        made = SetSettings.model_validate(given)
    except ValidationError as error:
        raise BadInput(first_fault(key, error)) from None
    if (made.file is None) == (made.benchmark is None):
        raise BadInput(f"{key}: takes either file= (of the data stage) or benchmark= with path=")
    return made


@dataclass(frozen=True)
class EvaluationSet:
    """A set with its benchmark and items."""

    name: str
    asked: SetSettings
    benchmark: Benchmark
    loaded: Loaded


def load_set(name: str, asked: SetSettings, data: Path) -> EvaluationSet:
    """Returns the set with its items; `data` is the folder of the data stage.

    Raises BadInput for a benchmark that there is not, options that it does not take, and what its loader refuses.
    """
    key = f"sets.{name}"
    if asked.benchmark is None:
        benchmark = benchmark_of_files()
    else:
        benchmark = find_benchmark(asked.benchmark, f"{key}.benchmark")
    return EvaluationSet(name, asked, benchmark, load_items(benchmark, asked.place(data), asked.options or {}, key))
