"""The figures of a data stage: of each step, of decontamination, and of the manifest, which holds both.

`as_json` gives them as they stand in step.json and manifest.json. "in" is a word of Python, so the field is `into`.
"""

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

IN: dict[str, Any] = {"validation_alias": AliasChoices("into", "in"), "serialization_alias": "in"}


class Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Returns {name as in the files: figure} of those that were given."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class StepCounts(Figures):
    """Rows of a step; in = out + rejected + merged, but where a step makes several rows of one."""

    into: int = Field(**IN)
    out: int
    rejected: int
    merged: int = 0
    failed: int = 0  # requests that brought no reply: the same command asks them again
    seconds: float | None = None  # None: the source was read


class Decontamination(Figures):
    """What was compared with the benchmarks; `not_decontaminated` alone says why nothing was."""

    not_decontaminated: str = ""
    benchmark_items: int = 0
    n: int = 0
    threshold: float = 0
    into: int = Field(default=0, **IN)
    out: int = 0
    rejected: int = 0
    kinds: dict[str, int] = {}  # rows by the kind of their strongest overlap


class DataCounts(Figures):
    """`counts` of the data stage's manifest."""

    into: int = Field(**IN)
    out: int
    rejected: int
    sft: int  # questions and dialogues
    dialogues: int
    grpo: int  # both
    grpo_dialogues: int = 0
    heldout: int
    decontaminated: Decontamination
    reasons: dict[str, int]  # rejects by their code
    steps: dict[str, StepCounts] = {}  # of a synthesis: {"questions/1_clean": ...}
    sft_rows: int = 0  # thoughts=last makes one of every counselor turn
    seconds: float = 0
