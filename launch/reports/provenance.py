"""What a data card says of where its rows come from and what was done to them: sources with licences, models, prompts,
benchmarks, what was left out and why, what cleaning took out, and what that means for people's privacy.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from data_pipeline import prompts
from data_pipeline.counts import DataCounts
from data_pipeline.export.selection import Benchmark
from data_pipeline.records import Dialogue, Question, Reject, read_jsonl, read_records
from data_pipeline.sources import find_reader
from data_pipeline.synthesis.files import step_folders
from data_pipeline.synthesis.splits import count_reasons
from eval.contract import Table

OWN = "not known here: name it before you publish"
PRIVACY = (
    "Contact data (numbers, addresses, accounts) is taken out by rules, which do not find everything. Names, places "
    "and stories that only one person has stay in the texts and may tell who somebody is. Have people read a sample, "
    "and ask what the sources' licences and the law say of such data, before you publish or train."
)
USE = (
    "Made with PsyForge for research. Not for diagnosis or treatment, not for people in crisis. What models wrote "
    "(questions, rationales, replies, thoughts) may be wrong, and is not the word of a professional."
)


@dataclass(frozen=True)
class Origin:
    """A source as it was read."""

    reader: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class About:
    """What the stage knows of a run beside its rows."""

    run: str
    recipe: str
    seed: int
    started: str  # UTC, as the manifest has it
    code: str
    origins: list[Origin]
    benchmarks: list[Benchmark] = field(default_factory=list)
    replies: str = ""  # the folder of recorded replies that stood in for a model
    system: str = ""  # the system prompt of dialogues: its name, or the text


def figures(about: About, costs: list[dict]) -> list[tuple[str, str]]:
    """Returns (label, text) of the run as a whole."""
    priced = [c["cost"] for c in costs if c["cost"] is not None]
    cost = (
        f"{sum(priced):,.4f} in the currency of the prices" if priced else "no prices were given" if costs else "none"
    )
    made = [
        ("run", about.run),
        ("recipe", f"recipes/{about.recipe}/data.yaml"),
        ("seed", str(about.seed)),
        ("begun", about.started),
        ("finished", datetime.now(UTC).isoformat(timespec="seconds")),
        ("code", about.code),
        ("cost of the model calls", cost),
    ]
    if about.replies:
        made.append(("models", f"none: recorded replies out of {Path(about.replies).name}/ stood in for them"))
    return made


def sources_table(origins: list[Origin]) -> Table:
    rows = [
        [Path(one.path).name, one.reader, getattr(find_reader(one.reader), "LICENCE", OWN), (one.sha256 or "")[:12]]
        for one in origins
    ]
    return Table("sources", ("file", "read by", "licence", "sha256"), rows)


def models_table(costs: list[dict]) -> Table:
    """Returns the models that were asked, under which names they answered, and what that took."""
    keys = ("step", "model", "served", "calls", "failures", "prompt_tokens", "completion_tokens", "cost")
    head = ("asked by", "model asked for", "the server answered as", *keys[3:])
    rows = [[str(c[k]).replace(",", ", ") if k == "served" else str(c[k]) for k in keys] for c in costs]
    return Table("models, and what their calls took", head, rows)


def prompts_table(rows: Iterable[Question | Dialogue], trained: list[str]) -> Table:
    """Returns the prompts that made the rows, named where they are as they were, and the system prompts `trained`."""
    names = {prompts.prompt_hash(file.stem): file.stem for file in Path(prompts.__file__).parent.glob("*.jinja")}
    used = Counter((e["step"], e["prompt"]) for row in rows for e in row.meta.get("trail", ()) if "prompt" in e)
    known = {key: number for key, number in used.items() if key[1] in names}
    table = [[step, names[digest], digest, str(number)] for (step, digest), number in sorted(known.items())]
    own = Counter()
    for (step, digest), number in used.items():
        if digest not in names:
            own[step] += number
    table += [[step, "of each row, or changed since (launch.lineage shows it)", "", str(n)] for step, n in own.items()]
    for name in trained:
        named = name in names.values()
        table.append(["training", name if named else "as given", prompts.prompt_hash(name) if named else "", ""])
    return Table("prompts", ("step", "prompt", "hash", "rows"), table)


def overlaps_table(about: About, counts: DataCounts) -> Table:
    """Returns what was compared with which benchmark at which threshold, and how much was taken out for it."""
    done = counts.decontaminated
    if done.not_decontaminated:
        return Table("decontamination", ("", ""), [])
    names = ", ".join(f"{one.source} ({Path(one.path).name})" for one in about.benchmarks)
    kinds = ", ".join(f"{n} x {kind}" for kind, n in done.kinds.items() if n) or "none"
    cells = {
        "benchmarks": names,
        "questions in them": f"{done.benchmark_items:,}",
        "rows compared": f"{done.into:,}",
        "counts as the same text": f"{done.n} characters in a row",
        "threshold": f"{done.threshold:g} of a benchmark's text stands in the row",
        "taken out": f"{done.rejected:,} ({kinds})",
    }
    return Table("compared with benchmarks, so that none is trained on", ("", ""), [[*pair] for pair in cells.items()])


def rejects_table(steps: Path, counts: DataCounts) -> Table:
    """Returns why rows were left out: by reading and by every step, and at last before the training files."""
    rows = []
    for place in step_folders(steps):
        if (file := place / "rejects.jsonl").is_file():
            codes = count_reasons(read_records(file, Reject))
            rows += [[f"{place.parent.name}/{place.name}", code, str(n)] for code, n in codes.most_common()]
    last = "training files" if rows or counts.steps else "reading and training files"
    rows += [[last, reason, str(n)] for reason, n in counts.reasons.items()]
    return Table("left out, and why", ("by", "reason", "rows"), rows)


def cleaning_table(steps: Path, rows: Iterable[Question | Dialogue]) -> Table:
    """Returns what cleaning took out of the sources: as the steps wrote it down, else as the rows' trails say."""
    taken = Counter[tuple[str, str]]()
    for file in (place / "removed.jsonl" for place in step_folders(steps)):
        for _, fact in read_jsonl(file) if file.is_file() else ():
            taken[fact["kind"], fact["rule"]] += 1
    if not taken:  # a table's reader has cleaned
        for entry in (entry for row in rows for entry in row.meta.get("trail", ()) if "removed" in entry):
            taken.update({("", rule): number for rule, number in entry["removed"].items()})
    return Table("taken out by cleaning", ("kind", "rule", "places"), [[*k, str(n)] for k, n in taken.most_common()])
