"""What of the records goes where: questions read, benchmarks' rows taken out, the recipe's limits, the splits.

`settings` checks the keys of launch/conf/data.yaml that count here; all else takes these, typed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from data_pipeline import sources
from data_pipeline.counts import Decontamination
from data_pipeline.errors import BadInput, first_fault
from data_pipeline.export import llama_factory
from data_pipeline.export.training_files import Export
from data_pipeline.records import Dialogue, Question, Reject
from data_pipeline.synthesis import splits
from data_pipeline.synthesis.decontaminate import Overlaps, decontaminate
from data_pipeline.synthesis.splits import SplitSettings, TooFew, count_reasons


def _named(options: object) -> object:
    """Returns a reader's options by name: YAML takes some names for numbers."""
    return {str(name): value for name, value in options.items()} if isinstance(options, dict) else options


Options = Annotated[dict[str, Any], BeforeValidator(_named)]


class Benchmark(BaseModel):
    """A benchmark that no training row may overlap: the reader of its questions, and where they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    path: str
    options: Options = {}


class Against(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    against: list[Benchmark] = []
    n: int = Field(default=13, ge=1)
    threshold: float = Field(default=0.7, gt=0, le=1)


class Selection(SplitSettings):
    """The keys of launch/conf/data.yaml from records to training files; the stage has others."""

    run: str
    source: str
    source_path: str | None = None
    source_options: Options = {}
    thoughts: Literal["every", "last", "none"] = "every"
    system: str | None = None
    train_on_benchmark: bool = False
    decontaminate: Against = Against()


# Changed, they make another export of the same steps: nothing is asked anew.
OF_EXPORT = tuple(name for name in Selection.model_fields if name not in ("run", "source", "source_path"))


def settings(given: Mapping[str, Any]) -> Selection:
    """Returns the settings; raises BadInput that names key and value: "split.grpo=-1: Input should be ..."."""
    try:
        return Selection.model_validate(given)
    except ValidationError as error:
        raise BadInput(first_fault("", error)) from None


def read(asked: Selection) -> tuple[list[Question], list[Reject]]:
    """Returns the source's questions without exact repetitions, and the rejects so far; BadInput for other records."""
    questions, rejects, seen = [], [], {}
    for record in sources.read(asked.source, asked.source_path or "", **asked.source_options):
        if not isinstance(record, Question | Reject):
            raise BadInput(
                f"source={asked.source} reads {type(record).__name__.lower()}s, not questions; they go through the "
                'steps: source=synthesis with passages=PATH, posts=PATH or "dialogues={source: NAME, path: PATH}"'
            )
        if isinstance(record, Question):
            key = (record.context, record.stem, *record.options)
            if key in seen:
                record = Reject(record.id, record.meta["where"], "repeats another question", seen[key])
            else:
                seen[key] = record.id
        (rejects if isinstance(record, Reject) else questions).append(record)
    return questions, rejects


@dataclass(frozen=True)
class Compared:
    """The benchmarks' questions, or why nothing is compared."""

    why_not: str = ""
    questions: list[Question] = field(default_factory=list)


def read_benchmarks(asked: Selection) -> Compared:
    """Returns the questions of all benchmarks; raises BadInput for one that cannot be read."""
    if asked.train_on_benchmark:
        return Compared("train_on_benchmark=true")
    if not asked.decontaminate.against:
        return Compared("no benchmark given")
    found = []
    for one in asked.decontaminate.against:
        records = sources.read(one.source, one.path, "decontaminate.against.source", **one.options)
        found += [record for record in records if isinstance(record, Question)]
    return Compared(questions=found)


def benchmarks_there(asked: Selection) -> tuple[list[str], Compared]:
    """Returns what a dry run says of benchmarks that are not there yet, and the questions of all when they are."""
    absent = [one.path for one in asked.decontaminate.against if not Path(one.path).exists()]
    if not absent:
        return [], read_benchmarks(asked)
    return [f"decontaminate.against: {path} is not there, nothing is compared here" for path in absent], Compared(
        "absent"
    )


def without_benchmarks(rows: list[Any], compared: Compared, asked: Selection) -> tuple[list, list[Reject], Overlaps]:
    """Returns (rows, questions or dialogues, that overlap no benchmark, a Reject of each other, the overlaps).

    Without a benchmark nothing is compared, and the counts of the overlaps say why.
    """
    if compared.why_not:
        return rows, [], Overlaps(Decontamination(not_decontaminated=compared.why_not))
    return decontaminate(rows, compared.questions, asked.decontaminate.n, asked.decontaminate.threshold)


def of_questions(questions: list[Question], rejects: list[Reject], compared: Compared, asked: Selection) -> Export:
    """Returns what of questions that are there goes where; raises TooFew, with the rejects so far, where too few are
    left.
    """
    total = len(questions) + len(rejects)
    questions, unfit = fit(questions, asked)
    questions, overlapping, overlaps = without_benchmarks(questions, compared, asked)
    questions, left = splits.take(questions, asked)
    rejects = [*rejects, *unfit, *overlapping, *left]
    try:
        if not questions:
            raise TooFew(f"{asked.source_path}: no question left of {total}" + ("" if total else " (nothing is in it)"))
        return Export(*splits.split(questions, asked), [], [], rejects, overlaps)
    except TooFew as error:
        error.rejects = rejects
        raise


def of_synthesised(rows: list[Question | Dialogue], compared: Compared, asked: Selection) -> Export:
    """Returns what of synthesised rows goes where; raises TooFew as `of_questions`."""
    kept, unfit = fit(rows, asked)
    kept, rejects, overlaps = without_benchmarks(kept, compared, asked)
    rejects += unfit
    questions = [row for row in kept if isinstance(row, Question)]
    dialogues, flagged = splits.without_crisis([row for row in kept if isinstance(row, Dialogue)], asked)
    rejects += flagged
    try:
        prompts, dialogues = splits.draw_prompts(dialogues, asked)
        dialogues, unmixed = splits.mix(dialogues, len(questions), asked)
        questions, left = splits.take(questions, asked)
        rejects += [*unmixed, *left]
        heldout, grpo, sft, beyond = splits.split_selected(questions, asked)
        rejects += beyond
        if not (sft or grpo or dialogues or prompts):
            raise TooFew(f"no row to train on is left of {len(rows)} questions and dialogues")
    except TooFew as error:
        error.rejects = rejects
        raise
    return Export(heldout, grpo, sft, dialogues, prompts, rejects, overlaps)


def fit(rows: list[Any], asked: Selection) -> tuple[list[Any], list[Reject]]:
    """Returns (the rows that can be trained on as the recipe says; Rejects of the others)."""
    faults = [(row, llama_factory.unfit(row, asked.thoughts)) for row in rows]
    rejects = [Reject(row.id, row.meta.get("where", row.id), *fault) for row, fault in faults if fault]
    return [row for row, fault in faults if not fault], rejects


def told(rejects: Iterable[Reject]) -> str:
    """Returns the most frequent reasons: "3 x no answer, 1 x broken JSON"."""
    return ", ".join(f"{n} x {reason}" for reason, n in count_reasons(rejects).most_common(5))
