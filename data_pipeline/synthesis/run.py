"""Data synthesis inside the data stage: the steps of the papers in order (`pipelines`), each in a folder of its own.

Passages become questions, posts and existing dialogues become dialogues. runs/NAME/data/steps/PIPELINE/N_STEP/ holds
rows.jsonl, rejects.jsonl, report.json, what else the step tells, and step.json: counts, and the hash of all that went
in. A step whose hash is the same is not run again; calls are in runs/NAME/data/ledger.sqlite, so that none is paid for
twice.
"""

import dataclasses
import hashlib
import importlib
import itertools
import json
import pkgutil
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from omegaconf import DictConfig, OmegaConf

from data_pipeline import prompts, records, steps
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import Dialogue, Passage, Question, Reject, read_records, write_jsonl
from data_pipeline.sources import find_reader
from data_pipeline.synthesis import prefetch
from data_pipeline.synthesis.servers import ASKING, askers, plain

READS = {"questions": "passages", "posts": "posts", "dialogues": "dialogues"}  # a pipeline and the key of its source
MAKES = {"generate_questions": Question, "rewrite_empathy": Dialogue, "write_dialogue": Dialogue}  # of another kind


@dataclasses.dataclass
class Synthesised:
    """What synthesis gives the data stage; `finished` is False when `steps=` named a part only."""

    questions: list[Question]
    dialogues: list[Dialogue]
    counts: dict[str, dict]  # {"questions/1_clean": {"in", "out", "rejected", "merged", ...}}
    finished: bool


def run(config: DictConfig, folder: Path, say: Callable[[str], None]) -> Synthesised:
    """Runs what is not done yet and tells `say` of each step.

    Raises BadInput for settings and sources, BudgetSpent when the budget is spent.
    """
    wanted = wanted_steps(config)
    asks = askers(config, folder / "ledger.sqlite", wanted)
    result = Synthesised([], [], {}, config.steps is None)
    for name in active_pipelines(config):
        pipeline = _Pipeline(name, config, folder, wanted, asks, say, result.counts)
        rows = pipeline.run(pipeline.read())
        result.questions += [row for row in rows if isinstance(row, Question)]
        result.dialogues += [row for row in rows if isinstance(row, Dialogue)]
    return result


def active_pipelines(config: DictConfig) -> dict[str, list[str]]:
    """Returns {pipeline: its steps} of the sources that are given; BadInput without any, or for an unknown step."""
    active = {pipeline: list(config.pipelines[pipeline]) for pipeline, key in READS.items() if config[key] is not None}
    if not active:
        raise BadInput(
            "source=synthesis needs passages= (a folder of texts), posts= (a file of posts with replies) or "
            "dialogues={source: NAME, path: PATH}"
        )
    known = [m.name for m in pkgutil.iter_modules(steps.__path__)]
    for pipeline, names in active.items():
        for name in names:
            if name not in known:
                raise BadInput(
                    f"pipelines.{pipeline}: no step {name!r}; there is {', '.join(known)}{did_you_mean(name, known)}"
                )
    return active


def wanted_steps(config: DictConfig) -> set[str]:
    """Returns the steps that `steps=` names, all of them without it; raises BadInput for a name that is none."""
    there = list(dict.fromkeys(step for pipeline in active_pipelines(config).values() for step in pipeline))
    asked = list(config.steps) if config.steps is not None else there
    for step in asked:
        if step not in there:
            raise BadInput(f"steps: no step {step!r}; there is {', '.join(there)}{did_you_mean(str(step), there)}")
    return set(asked)


def read_source(pipeline: str, config: DictConfig) -> tuple[list, list[Reject]]:
    """Returns (records, rejects) of a pipeline's source, at most `limit` records."""
    source = config[READS[pipeline]]
    name, path = (pipeline, source) if isinstance(source, str) else (source.get("source"), source.get("path"))
    if pipeline == "dialogues" and (not name or not path):
        raise BadInput(
            "dialogues: takes {source: NAME, path: PATH}, with a reader of dialogues in data_pipeline/sources/"
        )
    name = "passages" if pipeline == "questions" else name
    read = list(find_reader(name, f"{pipeline}.source").read(path))
    rows = [record for record in read if not isinstance(record, Reject)]
    if not rows:
        raise BadInput(f"{path}: no usable record in it")
    return rows[: config.limit], [record for record in read if isinstance(record, Reject)]


def settings_of(step: str, config: DictConfig):
    """Returns the step's Settings as the recipe has them; raises BadInput for an unknown or wrong one."""
    module = importlib.import_module(f"data_pipeline.steps.{step}")
    given = plain(config.synthesis[step]) if config.synthesis.get(step) else {}
    known = [f.name for f in dataclasses.fields(module.Settings)]
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known)
            raise BadInput(f"synthesis.{step}: no setting {key!r}; there is {', '.join(known)}{hint}")
    return module.Settings(**given)


@dataclasses.dataclass
class _Pipeline:
    """One pipeline of a run; the counts of its steps join `counts`, as "questions/1_clean"."""

    name: str
    config: DictConfig
    folder: Path  # runs/NAME/data
    wanted: set[str]
    asks: dict  # as `servers.askers` returns it
    say: Callable[[str], None]
    counts: dict[str, dict]
    passages: list[Passage] = dataclasses.field(default_factory=list)  # the latest, which filter_quality looks at

    def place(self, number: int, step: str) -> Path:
        return self.folder / "steps" / self.name / f"{number}_{step}"

    def read(self) -> list:
        """Returns the records of the pipeline's source; its rejects stand in 0_read."""
        rows, rejects = read_source(self.name, self.config)
        place = self.place(0, "read")
        place.mkdir(parents=True, exist_ok=True)
        write_jsonl(place / "rejects.jsonl", rejects)
        total = len(rows) + len(rejects)
        self.counts[f"{self.name}/0_read"] = {"in": total, "out": len(rows), "rejected": len(rejects)}
        return rows

    def run(self, rows: list) -> list:
        """Returns the rows after the last step."""
        kind, asked = type(rows[0]), set()
        for number, step in enumerate(self.config.pipelines[self.name], 1):
            place, settings = self.place(number, step), settings_of(step, self.config)
            key, done = _key(step, rows, settings, self.config), _read_state(place)
            kind = MAKES.get(step, kind)
            if done and done["key"] == key:
                rows, counts = list(read_records(place / "rows.jsonl", kind)), done["counts"]
            elif step not in self.wanted:
                if any(later in self.wanted for later in self.config.pipelines[self.name][number:]):
                    raise BadInput(f"steps: {self.name} need {step} before; add it to steps=")
                break
            else:
                if step not in asked:
                    asked = self.prefetch(number, rows)
                rows, counts = self.run_step(step, rows, settings, place, key)
                self.say(f"{self.name}: {step}: {_told(counts)}")
            if rows and isinstance(rows[0], Passage):
                self.passages = rows
            self.counts[f"{self.name}/{number}_{step}"] = counts
        return rows

    def prefetch(self, number: int, rows: list) -> set[str]:
        """Asks ahead for the steps from `number` on that ask one server each, two or more in a row; returns them.

        Not under a budget, which is to be spent in the order of the steps.
        """
        names = self.config.pipelines[self.name][number - 1 :]
        names = list(itertools.takewhile(lambda step: step in self.asks["servers"] and step in self.wanted, names))
        if len(names) < 2 or not rows or self.config.budget is not None:
            return set()

        def bound(step: str):
            module, settings = importlib.import_module(f"data_pipeline.steps.{step}"), settings_of(step, self.config)
            return lambda alone, ask: module.run(alone, settings, ask, **self.more(step))

        steps_ahead = [prefetch.Step(bound(step), self.asks["servers"][step]) for step in names]
        title = f"{self.name}: {names[0]} to {names[-1]}"
        prefetch.ask_ahead(rows, steps_ahead, self.folder / "ledger.sqlite", title)
        return set(names)

    def more(self, step: str) -> dict:
        return {"passages": self.passages} if step == "filter_quality" else {}

    def run_step(self, step: str, rows: list, settings, place: Path, key: str) -> tuple[list, dict]:
        """Returns (rows after the step, its counts), both written into `place` together with what else it tells."""
        module = importlib.import_module(f"data_pipeline.steps.{step}")
        selects = step == "select_challenging"
        ask = self.asks["selectors"] if selects else self.asks["models"].get(step, self.asks["main"])
        if step in ASKING and not ask:
            cure = "name one under selectors" if self.config.llm else "say llm=openai, vllm, deepseek or recorded"
            raise BadInput(f"{step} asks a model: {cure} (recipes/llm/)")
        started, ids = time.monotonic(), [row.id for row in rows]
        result = module.run(rows, settings, ask, **self.more(step))
        steps.check_balance(step, ids, result)
        counts = {
            "in": len(ids),
            "out": len(result.rows),
            "rejected": len(result.rejects),
            "merged": len(result.report.get("merged_ids", ())),
            "seconds": round(time.monotonic() - started, 2),
        }
        place.mkdir(parents=True, exist_ok=True)
        write_jsonl(place / "rows.jsonl", result.rows)
        write_jsonl(place / "rejects.jsonl", result.rejects)
        for name, table in result.files.items():
            write_jsonl(place / f"{name}.jsonl", table)
        if step == "review":
            module.write_sample(place, result.files["sample"])  # sheets for people
        report = json.dumps(result.report, ensure_ascii=False, indent=2)
        (place / "report.json").write_text(report + "\n", encoding="utf-8")
        state = {"key": key, "counts": counts, "settings": dataclasses.asdict(settings)}
        partial = place / "step.partial"
        partial.write_text(json.dumps(state, ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")
        partial.replace(place / "step.json")
        return result.rows, counts


def _read_state(place: Path) -> dict | None:
    try:
        return json.loads((place / "step.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _key(step: str, rows: list, settings, config: DictConfig) -> str:
    """Returns the hash of all that a step's output depends on: rows, settings, prompts, code and who is asked."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
    digest.update(json.dumps(dataclasses.asdict(settings), sort_keys=True, default=str).encode())
    for verdicts in getattr(settings, "verdicts", ()):  # files that people edit
        digest.update(Path(verdicts).read_bytes() if Path(verdicts).is_file() else b"")
    package = Path(records.__file__).parent
    shared = [file for room in (".", "llm", "safety") for file in (package / room).glob("*.*")]
    for file in sorted([*Path(steps.__file__).parent.glob(f"{step}*.*"), *shared]):
        digest.update(file.read_bytes())  # the step, its rules, and the modules it may use
    if step in ASKING:
        for template in sorted(Path(prompts.__file__).parent.glob("*.jinja")):
            digest.update(template.read_bytes())
        who = {k: OmegaConf.to_container(config[k]) if config[k] else None for k in ("llm", "selectors", "models")}
        digest.update(json.dumps(who, sort_keys=True).encode())
    return digest.hexdigest()


def done_steps(folder: Path) -> dict[str, dict]:
    """Returns the counts of the steps that have been run, {"questions/1_clean": {...}}, in their order."""
    states = {p.parent.parent.name + "/" + p.parent.name: _read_state(p.parent) for p in folder.glob("*/*/step.json")}
    in_order = sorted(states, key=lambda name: (list(READS).index(name.split("/")[0]), name))
    return {name: state["counts"] for name in in_order if (state := states[name])}


def _told(counts: dict) -> str:
    parts = [f"{counts['in']} in", f"{counts['out']} out", f"{counts['rejected']} rejected"]
    parts += [f"{counts['merged']} merged"] if counts["merged"] else []
    return ", ".join(parts) + f" ({counts['seconds']} s)"
