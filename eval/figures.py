"""The figures of an evaluation, and the file that holds them: `metrics.json`, written and read back here alone.

Accuracies and rates are in [0, 1], intervals are of 95 % (eval/intervals.py), None where there is none. In the file a
cell's and a set's further scores stand beside the common keys, each under its own name, `NAME_ci` its interval.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.records import write_text
from eval.intervals import Interval

ACCURACY = "accuracy"


@dataclass
class Mean:
    """Of one score over the items that have a value; None where none has."""

    value: float | None
    interval: Interval | None


@dataclass
class Choice:
    """Of multiple-choice questions that have a key; None without one. Failed and unreadable responses are wrong."""

    accuracy: float | None  # by flexible-extract, as elastic accuracy and pass@k
    accuracy_ci: Interval | None
    strict_match: float | None  # accuracy by strict-match
    strict_match_ci: Interval | None
    elastic: float | None
    elastic_ci: Interval | None
    format_rate: float | None
    pass_at: dict[str, float | None]


@dataclass
class Judgements:
    """How many scores a judge still owes: of responses that were to be judged. None without a judge."""

    judge_missing: int | None  # not judged: failed, or not to be read
    judge_failed: int | None  # the request failed; the same command asks it again
    unreadable_judgements: int | None


@dataclass
class Cell:
    """One cell of a benchmark's table."""

    items: int
    responses: int
    unreadable: int
    cut_by_length: int
    failed: int
    choice: Choice | None = None
    means: dict[str, Mean] = field(default_factory=dict)  # the benchmark's own scores
    judged: Judgements | None = None  # of a cell that a judge is asked about
    release_items: int | None = None  # of the full release

    def as_json(self) -> dict[str, Any]:
        parts = {"choice", "means", "judged", "release_items"}
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in parts}
        row |= asdict(self.choice) if self.choice else {}
        for name, mean in self.means.items():
            row |= {name: mean.value, f"{name}_ci": mean.interval}
        row |= asdict(self.judged) if self.judged else {}
        return row if self.release_items is None else row | {"release_items": self.release_items}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Cell":
        row = dict(row)
        counts = {name: row.pop(name) for name in ("items", "responses", "unreadable", "cut_by_length", "failed")}
        choice = _taken(Choice, row)
        judged = _taken(Judgements, row)
        release = row.pop("release_items", None)
        means = {name: Mean(row[name], row[f"{name}_ci"]) for name in row if f"{name}_ci" in row}
        return cls(**counts, choice=choice, means=means, judged=judged, release_items=release)


@dataclass
class SetMetrics:
    """All figures of one checkpoint on one set."""

    benchmark: str
    version: str  # of the scoring (eval/metrics.py)
    fingerprint: str  # of the items
    elastic_rule: str
    elastic_rule_source: str
    samples: int
    items: int
    responses: int
    unreadable: int
    cut_by_length: int
    failed: int
    judge: str | None  # the judge's model, where one was asked
    judge_missing: int | None
    judge_failed: int | None
    readings: dict[str, dict[str, Any]]  # {"flexible_extract", "strict_match": {"accuracy", "accuracy_ci", "readable"}}
    kinds: dict[str, dict[str, Any]]  # {"single", "multi": {"items", "accuracy", "elastic", ..._ci}} over all cells
    means: dict[str, Mean]  # the benchmark's own scores, over all items
    cells: dict[str, Cell]
    subjects: dict[str, dict[str, Any]]  # {subject: {"items", "accuracy", "accuracy_ci"}}
    published_columns: dict[str, float | None]  # 0..100, under the names of recipes/published
    notes: list[str]
    own: dict[str, Any] = field(default_factory=dict)  # what the benchmark adds: averages and the like

    def as_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "own"}
        means = {name: asdict(mean) for name, mean in self.means.items()}
        return {**row, "means": means, "cells": {name: c.as_json() for name, c in self.cells.items()}, **self.own}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "SetMetrics":
        names = [f.name for f in fields(cls) if f.name != "own"]
        shared = {name: row[name] for name in names} | {
            "means": {name: Mean(**mean) for name, mean in row["means"].items()},
            "cells": {name: Cell.from_json(cell) for name, cell in row["cells"].items()},
        }
        return cls(**shared, own={name: value for name, value in row.items() if name not in names})

    def taken_names(self) -> list[str]:
        """Returns the names of `own` that a shared figure has already."""
        return sorted({f.name for f in fields(self)} & set(self.own))


@dataclass
class Difference:
    """Of one score between two lists of responses to the same items, item by item, with its paired interval."""

    score: str  # ACCURACY, or one of the benchmark's own
    cell: str | None  # None: the whole set
    items: int  # that have a value on both sides
    before: float
    after: float
    gain: float
    ci_low: float | None  # None: of one item, or no item differs from another
    ci_high: float | None

    @property
    def verdict(self) -> str:
        if self.ci_low is None or self.ci_high is None:
            return "unclear"
        return "better" if self.ci_low > 0 else "worse" if self.ci_high < 0 else "unclear"

    def told(self, value: float | None, signed: bool = True) -> str:
        """Returns an accuracy in percent, any other score as it is; "-" for None."""
        if value is None:
            return "-"
        sign = "+" if signed else ""
        return f"{value:{sign}.1%}" if self.score == ACCURACY else f"{value:{sign}.2f}"

    @property
    def interval(self) -> str:
        return "-" if self.ci_low is None else f"{self.told(self.ci_low)} to {self.told(self.ci_high)}"


@dataclass
class Measured:
    """What metrics.json holds. `gains` has the differences in accuracy under "A -> B", `differences` those of all
    scores.
    """

    sets: dict[str, dict[str, SetMetrics]]  # {set: {checkpoint: figures}}
    parameters_b: dict[str, float | None]  # billions of parameters of each checkpoint
    models: dict[str, str]
    differences: dict[str, dict[str, list[Difference]]] = field(default_factory=dict)  # {set: {"A -> B": ...}}
    labels: dict[str, str] = field(default_factory=dict)  # {checkpoint: "MODEL (DATE)"}, of servers and other runs

    def as_json(self) -> dict[str, Any]:
        gains = {
            name: {
                pair: {k: getattr(d, k) for k in ("items", "gain", "ci_low", "ci_high")}
                for pair, differences in pairs.items()
                for d in differences
                if d.score == ACCURACY
            }
            for name, pairs in self.differences.items()
        }
        sets = {name: {c: metrics.as_json() for c, metrics in results.items()} for name, results in self.sets.items()}
        return {"sets": sets, "parameters_b": self.parameters_b, "models": self.models, "labels": self.labels,
                "gains": gains,
                "differences": {n: {p: [asdict(d) for d in ds] for p, ds in pairs.items()}
                                for n, pairs in self.differences.items()}}  # fmt: skip

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Returns what a metrics.json holds; raises BadInput for one of another version."""
        row = json.loads(path.read_text(encoding="utf-8"))
        try:
            return cls._from_json(row)
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"{path}: of another version of PsyForge ({error}); evaluate again under another run=NAME"
            ) from None

    @classmethod
    def _from_json(cls, row: dict[str, Any]) -> "Measured":
        sets = {name: {c: SetMetrics.from_json(r) for c, r in results.items()} for name, results in row["sets"].items()}
        differences = {
            name: {pair: [Difference(**d) for d in ds] for pair, ds in pairs.items()}
            for name, pairs in row["differences"].items()
        }
        return cls(sets, row["parameters_b"], row["models"], differences, row.get("labels", {}))


def _taken(kind: type, row: dict[str, Any]) -> Any:
    """Takes the fields of `kind` out of the row and returns the object, None where they are not there."""
    names = [f.name for f in fields(kind)]
    if names[0] not in row:
        return None
    return kind(**{name: row.pop(name) for name in names})


def share(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """Returns "12.3%", with bounds "12.3% [10.0, 15.0]"; "-" without a value."""
    if value is None:
        return "-"
    return f"{value:.1%}" + (f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else "")


def interval(value: float | None, bounds: Sequence[float] | None, scale: float = 100) -> str:
    """Returns "12.34 [10.00, 15.00]", scaled; "-" without a value."""
    if value is None:
        return "-"
    return f"{scale * value:.2f}" + (f" [{scale * bounds[0]:.2f}, {scale * bounds[1]:.2f}]" if bounds else "")
