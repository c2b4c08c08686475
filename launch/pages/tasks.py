"""Who judges what: the plan of a review, drawn once, and how far each reviewer has come.

runs/NAME/reviews/plan.KIND.json holds which records of which file are judged by whom: a share of them by everybody, for
agreement, the rest in ranges, one for each. Verdicts stand beside it in REVIEWER.jsonl (data_pipeline/reviews.py).
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson

from data_pipeline import reviews
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Post, Question, parse_record, write_text
from data_pipeline.reviews import Review
from data_pipeline.steps import review as step
from data_pipeline.verdicts import Record, content_hash
from launch.running import trail
from launch.running.lines import find_id, lines_of
from launch.running.overview import Run
from launch.running.trail import Table

TYPES: dict[str, type] = {"question": Question, "rationale": Question, "dialogue": Dialogue, "post": Post}
MOST = 5000  # records of one plan; ours
RESAMPLES, SEED = 1000, 42  # of the interval of kappa; ours


@dataclass(frozen=True)
class Task:
    """One record to be judged: where it lay when the plan was drawn, and what it said."""

    line: int
    id: str
    content: str


@dataclass(frozen=True)
class Plan:
    kind: str
    table: str  # the file of the records, as trail.Table.key
    seed: int
    overlap: float  # share of the records that everybody judges
    reviewers: list[str]
    tasks: list[Task]
    shared: int  # the first so many of the tasks are everybody's

    def of(self, reviewer: str) -> list[Task]:
        """Returns what one reviewer judges, in an order of their own; nothing for a stranger."""
        if reviewer not in self.reviewers:
            return []
        place, number = self.reviewers.index(reviewer), len(self.reviewers)
        rest = self.tasks[self.shared :]
        own = rest[place * len(rest) // number : (place + 1) * len(rest) // number]
        mine = [*self.tasks[: self.shared], *own]
        random.Random(f"{self.seed} {reviewer}").shuffle(mine)
        return mine


def folder_of(run: Run) -> Path:
    return run.path / "reviews"


def plans(run: Run) -> dict[str, Plan]:
    """Returns {kind: plan} of those that were drawn."""
    return {kind: plan for kind in reviews.KINDS if (plan := plan_of(run, kind))}


def plan_of(run: Run, kind: str) -> Plan | None:
    """Returns the plan, None without one; raises BadInput for one that was edited into something else."""
    file = folder_of(run) / f"plan.{kind}.json"
    try:
        return _plan(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=32)
def _plan(file: Path, modified: int) -> Plan:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        return Plan(**{**row, "tasks": [Task(*one) for one in row["tasks"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{file}: not a plan of a review ({error}); move it away and draw a new one") from None


def tables_for(run: Run, kind: str) -> list[Table]:
    """Returns the files whose records may be judged as that kind, the likeliest first: what goes into a pipeline's step
    `review`, else what its last step gives, then the others.
    """
    found: list[Table] = []
    for of in trail.tables(run.path / "data").values():
        for table in of:
            if table.name in (trail.ROWS, "questions.jsonl", "dialogues.jsonl") and _is(table, kind):
                found.append(table)
    before = {places[n - 1] for places in [[table.place for table in found]] for n, place in enumerate(places)
              if n and place.endswith("_review")}  # fmt: skip
    return sorted(found, key=lambda table: (table.place not in before, -found.index(table)))


def _is(table: Table, kind: str) -> bool:
    lines = lines_of(table.path)
    first = lines.record(0) if lines else None
    wanted = {"question": "stem", "rationale": "rationale", "dialogue": "turns", "post": "replies"}[kind]
    return bool(first and first.get(wanted))


def draw(run: Run, kind: str, table: Table, size: int, overlap: float, names: Sequence[str]) -> Plan:
    """Draws the plan and writes it; raises BadInput for settings that make none, and where one stands already."""
    names = [reviews.check_reviewer(name) for name in dict.fromkeys(names)]
    if not names:
        raise BadInput("who reviews? Name one reviewer or more")
    if not 1 <= size <= MOST or not 0 <= overlap <= 1:
        raise BadInput(f"1 to {MOST} records, a share of 0 to 1 for everybody")
    file = folder_of(run) / f"plan.{kind}.json"
    if file.exists():
        raise BadInput(f"{file} is there already; move it away to draw anew: the verdicts stay")
    lines: list[int] = []  # of the records that may be judged; the records themselves pass by

    def passing() -> Iterator[Record]:
        for number, record in _records(table, kind):
            if wanted(record, kind):
                lines.append(number)
                yield record

    places = step.sample(passing(), size, SEED)
    if not places:
        raise BadInput(f"{table.key}: no {kind} in it to be judged")
    tasks = []
    for line in (lines[place] for place in places):
        record = _record_at(table.path, line, kind)
        assert record is not None  # it has been read just now
        tasks.append(Task(line, record.id, content_hash(record)))
    random.Random(SEED).shuffle(tasks)
    shared = round(overlap * len(tasks)) if len(names) > 1 else 0
    plan = Plan(kind, table.key, SEED, overlap, names, tasks, shared)
    file.parent.mkdir(parents=True, exist_ok=True)
    row = asdict(plan) | {"tasks": [[task.line, task.id, task.content] for task in tasks]}
    write_text(file, json.dumps(row, ensure_ascii=False) + "\n", 0o600)
    return plan


def wanted(record: Record, kind: str) -> bool:
    """Returns whether a record is judged as that kind: of questions with a rationale that, of posts those flagged."""
    if kind == "rationale":
        return isinstance(record, Question) and bool(record.rationale)
    return bool(record.meta.get("crisis")) if kind == "post" else True


def _records(table: Table, kind: str) -> Iterator[tuple[int, Record]]:
    with table.path.open("rb") as file:
        for number, line in enumerate(file):
            yield number, parse_record(TYPES[kind], table.path, number + 1, line)


def record_of(run: Run, plan: Plan, task: Task) -> Record | None:
    """Returns the record as it is now, None for one that is gone."""
    path = trail.path_of(run.path / "data", plan.table)
    record = _record_at(path, task.line, plan.kind)
    if record is None or record.id != task.id:
        number = find_id(path, task.id)
        record = None if number is None else _record_at(path, number, plan.kind)
    return record


def _record_at(path: Path, line: int, kind: str) -> Record | None:
    lines = lines_of(path)
    row = lines.record(line) if lines else None
    try:
        return parse_record(TYPES[kind], path, line + 1, orjson.dumps(row)) if row else None
    except BadInput:
        return None  # of another shape now


@dataclass(frozen=True)
class Progress:
    reviewer: str
    tasks: int
    done: int  # accepted, corrected, rejected or unsure
    skipped: int
    verdicts: Mapping[str, int]
    seconds: float | None  # in the median


def progress(run: Run, plan: Plan) -> list[Progress]:
    made = []
    for name in plan.reviewers:
        last = latest(run, plan, name)
        mine = [last[task.id] for task in plan.of(name) if task.id in last]
        times = sorted(one.seconds for one in mine if one.seconds)
        words = Counter(one.verdict for one in mine)
        made.append(Progress(name, len(plan.of(name)), len(mine) - words["skipped"], words["skipped"], words,
                             times[len(times) // 2] if times else None))  # fmt: skip
    return made


def latest(run: Run, plan: Plan, reviewer: str) -> dict[str, Review]:
    """Returns {id: the reviewer's last verdict on it} of the plan's kind."""
    given = reviews.read(reviews.file_of(folder_of(run), reviewer))
    return {item: one for (kind, item), one in reviews.latest(given).items() if kind == plan.kind}


@dataclass
class Results:
    """What came of a review so far."""

    reviewers: list[str]
    judged: int = 0  # records with a decided verdict
    common: int = 0  # by two or more
    agreed: float | None = None
    kappa: float | None = None
    interval: tuple[float, float] | None = None
    whole: bool = False  # everybody has judged what everybody was to judge
    aside: list[tuple[str, str, str]] = field(default_factory=list)  # (reviewer, id, why): verdicts that hold no more
    disagreements: list[tuple[Task, dict[str, Review]]] = field(default_factory=list)


def results(run: Run, plan: Plan) -> Results:
    """Returns agreement with its interval (records resampled), verdicts that hold no more, and disagreements; these
    only once everybody has judged the shared ones, so that nobody sees another's verdict before their own.
    """
    made = Results(plan.reviewers)
    given = {name: latest(run, plan, name) for name in plan.reviewers}
    by_task: list[tuple[Task, dict[str, Review]]] = []
    for task in plan.tasks:
        of = {name: last[task.id] for name, last in given.items() if task.id in last}
        if not of:
            continue
        record = record_of(run, plan, task)
        now = content_hash(record) if record else None
        for name, one in list(of.items()):
            if one.content != now:
                made.aside.append((name, task.id, "it has changed since" if now else "it is gone"))
                del of[name]
        if decided := {name: one for name, one in of.items() if one.verdict in reviews.DECIDED}:
            by_task.append((task, decided))
    made.judged = len(by_task)
    common = [{name: one.verdict for name, one in of.items()} for _, of in by_task if len(of) > 1]
    made.common = len(common)
    names = sorted({name for of in common for name in of})
    made.whole = all(task.id in given[name] for task in plan.tasks[: plan.shared] for name in plan.reviewers)
    if common:
        made.agreed, made.kappa = step.kappa_of(common, names)
        made.interval = _interval(common, names)
    if made.whole:
        made.disagreements = [(task, of) for task, of in by_task if len({one.verdict for one in of.values()}) > 1]
    return made


def _interval(common: list[dict[str, str]], names: list[str]) -> tuple[float, float] | None:
    """Returns the 95 % percentile interval of kappa, None where too few resamples have one."""
    draw, found = random.Random(SEED), []
    for _ in range(RESAMPLES if len(common) <= 500 else RESAMPLES // 5):
        kappa = step.kappa_of(draw.choices(common, k=len(common)), names)[1]
        if kappa is not None:
            found.append(kappa)
    found.sort()
    return (found[int(0.025 * len(found))], found[int(0.975 * len(found))]) if len(found) > 100 else None
