"""A rubric in YAML: dimensions with scale and anchors, of each of which a judge is asked in a call of its own.

    title: Listening
    source: ours
    language: zh            # of the prompt, zh or en
    total: mean             # sum, mean or none; made here, never by the judge
    dimensions:
      listening:
        asks: does the reply take up what the client said?
        scale: [0, 2]
        anchors: {0: takes up nothing, 1: names the topic, 2: says back what it means to the client}
        best: high          # or low; what a reply without an answer part is worth lies at the other end
        unsure: false       # true lets the judge say that it cannot tell

The judge quotes the reply first and scores then; a score beyond the scale, prose, or an object of another shape
cannot be read. `total` is missing where any dimension is."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from data_pipeline.errors import BadInput, first_fault
from data_pipeline.llm.structured import parse
from data_pipeline.prompts import render_file
from data_pipeline.safety.safe_yaml import load_yaml_file
from eval import tables
from eval.contract import Answered, Item, Judge, Table
from eval.figures import SetMetrics
from eval.judging.judges import judge_scores
from eval.judging.transcripts import Transcript

PROMPTS = Path(__file__).parent
TOTAL = "total"
Language = Literal["zh", "en"]


class Dimension(BaseModel, extra="forbid", frozen=True):
    asks: str = Field(min_length=1)
    scale: tuple[int, int]
    anchors: dict[int, str] = Field(default_factory=dict)
    best: Literal["high", "low"] = "high"
    unsure: bool = False

    @model_validator(mode="after")
    def _anchored(self) -> "Dimension":
        low, high = self.scale
        if low >= high:
            raise ValueError("scale takes [LOW, HIGH], the lower one first")
        if {low, high} - self.anchors.keys():
            raise ValueError(f"anchors say what {low} and {high} mean; without them every judge has a scale of its own")
        if odd := [n for n in self.anchors if not low <= n <= high]:
            raise ValueError(f"anchor {odd[0]} is beyond the scale {low} to {high}")
        return self

    @property
    def worst(self) -> int:
        return self.scale[self.best == "low"]


class Rubric(BaseModel, extra="forbid", frozen=True):
    title: str
    source: str
    language: Language = "zh"
    total: Literal["sum", "mean", "none"] = "none"
    dimensions: dict[str, Dimension] = Field(min_length=1)

    @model_validator(mode="after")
    def _named(self) -> "Rubric":
        for name in self.dimensions:
            if not name.isidentifier() or name == TOTAL or name.endswith(("_unsure", "_ci")):
                raise ValueError(
                    f"dimension {name!r}: a name has letters, digits and '_', and is not total, *_unsure, *_ci"
                )
        return self

    @property
    def names(self) -> list[str]:
        """Of all scores that its judge gives."""
        return [
            score
            for name, one in self.dimensions.items()
            for score in ([name, f"{name}_unsure"] if one.unsure else [name])
        ]


def check_language(language: str) -> None:
    """Raises BadInput for a language that there are no prompts in."""
    if language not in ("zh", "en"):
        raise BadInput(f"options.language={language}: there is zh, en")


@cache
def read_rubric(file: Path) -> Rubric:
    """Returns the rubric; raises BadInput, naming file, key and value, for one that cannot be."""
    try:
        content = load_yaml_file(file)
        return Rubric.model_validate(content)
    except FileNotFoundError:
        raise BadInput(f"{file}: no such rubric") from None
    except ValidationError as error:
        raise BadInput(f"{file}: {first_fault('', error)}") from None


def calls(rubric: Rubric, seen: Callable[[Item], Mapping[str, Any]]) -> list[Judge]:
    """Returns a call for each dimension.

    `seen` says what the judge sees beside the reply: {"history": [(speaker, text)], "reference": text or "", "poor":
    text or ""}, all but the history left out where there is none.
    """

    def shown(item: Item, answer: str) -> Mapping[str, Any]:
        return {"reference": "", "poor": "", **seen(item), "reply": answer}

    return [_call(rubric.language, name, one, "dimension", shown) for name, one in rubric.dimensions.items()]


def session_calls(rubric: Rubric, who: Literal["counselor", "client"]) -> list[Judge]:
    """Returns a call for each dimension of a rubric of whole sessions: what it rates is what `who` said in them.

    Where that is the client, the judge sees its profile, which the item's facts hold.
    """

    def shown(item: Item, answer: str) -> Mapping[str, Any]:
        profile = item.facts["profile"] if who == "client" else None
        return {"who": who, "profile": profile, "sessions": Transcript.loads(answer).sessions}

    return [_call(rubric.language, name, one, "session", shown) for name, one in rubric.dimensions.items()]


def _call(
    language: Language, name: str, one: Dimension, prompt: str, seen: Callable[[Item, str], Mapping[str, Any]]
) -> Judge:
    shape = _shape(one.scale, one.unsure)
    unsure = f"{name}_unsure"

    def messages(item: Item, answer: str) -> list[dict]:
        file = PROMPTS / f"{prompt}.{language}.jinja"
        text = render_file(file, name=name, dimension=one, **seen(item, answer))
        return [{"role": "user", "content": text}]

    def read(reply: str) -> dict[str, float | None]:
        try:
            score = parse(reply, shape).model_dump()["score"]
        except ValueError:
            return dict.fromkeys((name, unsure) if one.unsure else (name,))
        if one.unsure:
            return {name: None, unsure: 1.0} if score == "unsure" else {name: float(score), unsure: 0.0}
        return {name: float(score)}

    def quotes(reply: str) -> list[str]:
        evidence = parse(reply, shape).model_dump()["evidence"].strip()
        return [evidence] if evidence else []

    return Judge((name, unsure) if one.unsure else (name,), messages, read, quotes=quotes, shape=shape)


@cache
def _shape(scale: tuple[int, int], unsure: bool) -> type[BaseModel]:
    number = Annotated[int, Field(strict=True, ge=scale[0], le=scale[1])]
    score: Any = number | Literal["unsure"] if unsure else number
    return create_model("Verdict", __config__={"extra": "forbid"}, evidence=(str, ...), score=(score, ...))


def scores(rubric: Rubric, one: Answered) -> list[dict[str, float | None]]:
    """Returns the scores of each response to an item, with the total that the rubric has: None where one is missing."""
    worst = {name: float(dimension.worst) for name, dimension in rubric.dimensions.items()}
    made = judge_scores(one, rubric.names, {**dict.fromkeys(rubric.names, 0.0), **worst})
    if rubric.total != "none":
        for row in made:
            values = [row.get(name) for name in rubric.dimensions]
            known = [value for value in values if value is not None]
            total = sum(known) / (len(values) if rubric.total == "mean" else 1)
            row[TOTAL] = total if len(known) == len(values) else None
    return made


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    """Returns the tables of a set that only judges score."""
    return [tables.own_overview(results), tables.own_by_cell(results)]
