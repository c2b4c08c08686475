"""The page of one run: what its stages have written, put together for people; alone.py makes one file of it."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from data_pipeline.errors import BadInput
from data_pipeline.llm.ledger import totals
from data_pipeline.synthesis.files import told_by_steps
from eval import report, responses
from eval.charts import Chart, chart, smooth
from eval.contract import Table
from eval.figures import Measured
from launch.cli import comments
from launch.cli.arguments import RECIPES, REPOSITORY
from launch.cli.configuration import CONF
from launch.pages import texts
from launch.running import overview
from launch.running.folder import compare, ledger_of
from launch.running.lines import tail
from launch.running.overview import Run

COSTS = ("step", "model", "calls", "failures", "prompt_tokens", "completion_tokens", "cost")
COMMAND, HARDWARE, RECIPE, DEFAULT = "command line", "hardware", "recipe", "default"
AUDIT_SECONDS = 300


@dataclass(frozen=True)
class FileState:
    stage: str
    kind: str  # "input" or "output"
    path: str
    sha256: str | None
    today: str = ""


@dataclass(frozen=True)
class SettingRow:
    key: str
    value: str
    kind: str  # COMMAND, HARDWARE, RECIPE or DEFAULT: what set it
    comment: str  # what stands beside it there, with its source


@dataclass
class RunPage:
    """What the template of a run shows. `alone`: in a file of its own, which nobody can ask anything."""

    run: Run
    alone: bool = False
    figures: list[tuple[str, str]] = field(default_factory=list)
    funnel: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[Chart]] = field(default_factory=dict)
    sections: list[report.Section] = field(default_factory=list)
    samples: list[report.Samples] = field(default_factory=list)
    conversation: list[dict] = field(default_factory=list)
    costs: list[Table] = field(default_factory=list)
    lineage: list[FileState] = field(default_factory=list)
    verified: bool = False
    forced: list[str] = field(default_factory=list)
    code: str = ""
    settings: dict[str, list[SettingRow]] = field(default_factory=dict)
    audit: str = ""  # the command; "" where the recipe has nothing published to be held against
    audit_said: str = ""
    audit_code: int = 0
    logs: dict[str, list[str]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return any(stage.state == overview.RUNNING for stage in self.run.stages)


def gather(run: Run, alone: bool = False, verify: bool = False) -> RunPage:
    """Returns the page of a run; `verify` compares every recorded file with what is there now, which reads them all."""
    made = RunPage(run, alone, verified=verify)
    made.funnel, made.notes = overview.funnel(run), notes_of(run)
    made.curves = {stage: drawn(of) for stage, of in overview.curves(run).items()}
    try:
        made.sections, made.samples = evaluation(run, alone)
    except (BadInput, OSError, ValueError) as error:
        made.notes.append(str(error))
    made.conversation = conversation(run)
    made.figures = figures(run)
    made.costs = costs(run)
    made.lineage = lineage(run, verify)
    made.forced = [f"{s.name}: continued by force at {one['at']}: {'; '.join(one['differences'])}"
                   for s in run.stages for one in s.manifest.get("forced", [])]  # fmt: skip
    made.code = code(run)
    made.settings = {stage.name: rows for stage in run.stages if (rows := settings(run, stage.name))}
    made.audit = audit_command(run)
    made.logs = {f"{stage.name}/{file.name}": tail(file) for stage in run.stages
                 for file in sorted((run.path / stage.name).glob("*.log"))}  # fmt: skip
    return made


def notes_of(run: Run) -> list[str]:
    counts = overview.data_counts(run)
    notes = (
        [f"not compared with any benchmark: {why}"]
        if counts and (why := counts.decontaminated.not_decontaminated)
        else []
    )
    return notes + [f"{step}: {told}" for step, told in told_by_steps(run.path / "data" / "steps").items()]


def drawn(curves: dict[str, dict[str, overview.Points]]) -> list[Chart]:
    """Returns the charts of a training; a line of many ups and downs has its mean over five beside it."""
    charts = []
    for name, lines in curves.items():
        if name == "reward" and len(lines.get("mean", [])) > 10:
            lines = {**lines, "mean of five": smooth(lines["mean"])}
        if made := chart(name, "step", lines):
            charts.append(made)
    return charts


def evaluation(run: Run, with_samples: bool) -> tuple[list[report.Section], list[report.Samples]]:
    """Returns the tables of an evaluation, and the responses side by side, which reads all of them; [] without one."""
    folder = run.path / "eval"
    if not (folder / "metrics.json").is_file():
        return [], []
    measured = Measured.read(folder / "metrics.json")
    rows = {}
    for name, results in measured.sets.items() if with_samples else ():
        files = {c: folder / responses.file_name(c, name) for c in results}
        rows |= {(c, name): responses.read_rows(file) for c, file in files.items() if file.is_file()}
    sections = report.page(run.name, measured, rows, _judged(folder)).sections
    samples = [replace(one, title=f"{section.title}: {one.title}") for section in sections for one in section.samples]
    return sections, samples


def _judged(folder: Path) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for file in sorted(folder.glob("judgements.*.jsonl")):
        with file.open("rb") as lines:
            found.setdefault(file.name.split(".", 2)[2].removesuffix(".jsonl"), []).extend(map(orjson.loads, lines))
    return found


def conversation(run: Run) -> list[dict]:
    """Returns the turns of a demo's scripted conversation, [] without one."""
    file = run.path / "chat" / "transcript.json"
    return orjson.loads(file.read_bytes())["messages"] if file.is_file() else []


def figures(run: Run) -> list[tuple[str, str]]:
    """Returns (label, text) of the run's counts, the few that people ask for first."""
    found: list[tuple[str, str]] = []
    if counts := overview.data_counts(run):
        found += [("rows read", f"{counts.into:,}"), ("left out", f"{counts.rejected:,}"),
                  ("SFT rows", f"{counts.sft_rows or counts.sft:,}"), ("GRPO prompts", f"{counts.grpo:,}"),
                  ("held out", f"{counts.heldout:,}")]  # fmt: skip
    for name, first, last, label in (("sft", "loss_first", "loss_last", "SFT loss"),
                                     ("grpo", "reward_first5", "reward_last5", "GRPO reward")):  # fmt: skip
        stage = run.stage(name)
        counts = stage.manifest.get("counts", {}) if stage else {}
        if counts.get(first) is not None and counts.get(last) is not None:
            found.append((label, f"{counts[first]:.2f} → {counts[last]:.2f}"))
    seconds = [stage.manifest["wall_s"] for stage in run.stages if "wall_s" in stage.manifest]
    cost = [c for stage in run.stages if (c := stage.manifest.get("cost")) is not None]
    found += [("time", texts.duration(sum(seconds)))] if seconds else []
    return found + ([("cost", f"{sum(cost):,.2f}")] if cost else [])


def costs(run: Run) -> list[Table]:
    """Returns what models were asked and what it cost, by stage: as its manifest says, or the ledger while it runs."""
    made = []
    for stage in run.stages:
        calls = stage.manifest.get("calls")
        if calls is None:
            try:
                calls = totals(ledger_of(run.path / stage.name))
            except BadInput:
                calls = []
        rows = [[texts.number(call[key]) for key in COSTS] for call in calls]
        made.append(Table(stage.name, COSTS, rows))
    return [table for table in made if table.rows]


def lineage(run: Run, verify: bool) -> list[FileState]:
    files = []
    for stage in reversed(run.stages):
        for kind in ("inputs", "outputs"):
            for file in stage.manifest.get(kind, {}).values():
                today = compare(file) if verify else ""
                files.append(FileState(stage.name, kind[:-1], file["path"], file["sha256"], today))
    return files


def code(run: Run) -> str:
    """Returns a line for each state of the code, seed and packages with which stages were made."""
    said = {}
    for manifest in (stage.manifest for stage in run.stages if stage.manifest):
        of, packages = manifest["code"], ", ".join(f"{n} {version}" for n, version in manifest["packages"].items())
        changed = " with local changes" if of["changed"] else ""
        said[f"{of['commit'] or 'no commit'}{changed}; seed {manifest['seed']}; {packages}"] = None
    return "\n".join(said)


def settings(run: Run, stage: str) -> list[SettingRow]:
    """Returns the configuration of a stage beside where each value comes from and what is written there. Of verl's own
    keys only those that one of our files or the command line names.
    """
    state, resolved = run.stage(stage), overview.settings(run, stage)
    if state is None or not resolved:
        return []
    files = ((HARDWARE, RECIPES / "hardware" / state.hardware / f"{stage}.yaml"),
             (RECIPE, RECIPES / state.recipe / f"{stage}.yaml"), (DEFAULT, CONF / f"{stage}.yaml"))  # fmt: skip
    known: dict[str, tuple[str, comments.Setting]] = {}
    for kind, file in files:
        if file.is_file():
            for one in comments.of_yaml(file):
                known.setdefault(one.key, (kind, one))
    rows = []
    for key, value in resolved.items():
        parents = [key, *(key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1))]
        kind, setting = next((known[name] for name in parents if name in known), ("", None))
        if setting is None:
            continue
        said = texts.plain(value) if value is not None else "null"
        given = setting.key == key and setting.default and not _same(setting.default, value)
        rows.append(SettingRow(key, said, COMMAND if given else kind, setting.comment))
    return sorted(rows, key=lambda row: (COMMAND, HARDWARE, RECIPE, DEFAULT).index(row.kind))


def _same(written: str, value: object) -> bool:
    """Returns whether a value is what the YAML file says, as far as it says one: ${...} says where it comes from."""
    if "${" in written or written.startswith(("&", "*")):
        return True
    read = yaml.safe_load(written)
    if isinstance(read, str) and not isinstance(value, str):
        try:
            return float(read) == value  # 1e-5 is a text in YAML 1.1
        except (TypeError, ValueError):
            return False
    return overview.flat({"": read}) == overview.flat({"": value}) or read == value


def audit_command(run: Run) -> str:
    """Returns the command that holds the run's recipe against its published numbers, "" without a card of them."""
    recipe = run.first("recipe")
    hardware = run.first("hardware")
    if not (RECIPES / "published" / f"{recipe}.yaml").is_file():
        return ""
    return f"python -m launch.audit recipe={recipe}" + (f" hardware={hardware}" if hardware else "")


def hold(page: RunPage) -> None:
    """Runs the audit of the page's run, in a process of its own since it imports the frameworks."""
    if page.audit:
        words = page.audit.split()[1:]
        try:
            done = subprocess.run(
                [sys.executable, *words], capture_output=True, text=True, timeout=AUDIT_SECONDS, cwd=REPOSITORY
            )
            page.audit_said, page.audit_code = (done.stdout + done.stderr).strip(), done.returncode
        except subprocess.TimeoutExpired:
            page.audit_said, page.audit_code = f"no end after {AUDIT_SECONDS} s", 1
