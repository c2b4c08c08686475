"""Data synthesis inside the data stage: the steps of the papers in order (`lines`), each in a folder of its own.

Passages become questions, posts and existing dialogues become dialogues. runs/NAME/data/steps/LINE/N_STEP/ holds
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
from pathlib import Path

import orjson
from omegaconf import DictConfig, OmegaConf

from data_pipeline import ahead, llm, prompts, recorded, records, sources, steps
from data_pipeline.records import BadInput, Dialogue, Passage, Question, Reject, read_records, write_jsonl
from launch.arguments import did_you_mean
from launch.stage import console

READS = {"questions": "passages", "posts": "posts", "dialogues": "dialogues"}  # a line and the key of its source
ASKING = ("generate_questions", "filter_quality", "write_rationales", "rewrite_empathy", "select_challenging",
          "plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")  # fmt: skip
MAKES = {"generate_questions": Question, "rewrite_empathy": Dialogue, "write_dialogue": Dialogue}  # of another kind


@dataclasses.dataclass
class Synthesised:
    """What synthesis gives the data stage; `finished` is False when `steps=` named a part only."""

    questions: list[Question]
    dialogues: list[Dialogue]
    counts: dict[str, dict]  # {"questions/1_clean": {"in", "out", "rejected", "merged", ...}}
    finished: bool


def run(config: DictConfig, folder: Path) -> Synthesised:
    """Runs what is not done yet; raises BadInput for settings and sources, BudgetSpent when the budget is spent."""
    wanted = wanted_steps(config)
    result = Synthesised([], [], {}, config.steps is None)
    asks = askers(config, folder / "ledger.sqlite")
    for line in active_lines(config):
        rows, rejects = read_source(line, config)
        (folder / "steps" / line / "0_read").mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "steps" / line / "0_read" / "rejects.jsonl", rejects)
        result.counts[f"{line}/0_read"] = {"in": len(rows) + len(rejects), "out": len(rows), "rejected": len(rejects)}
        rows = run_line(line, rows, wanted, config, folder / "steps" / line, asks, result)
        result.questions += [row for row in rows if isinstance(row, Question)]
        result.dialogues += [row for row in rows if isinstance(row, Dialogue)]
    return result


def active_lines(config: DictConfig) -> dict[str, list[str]]:
    """Returns {line: its steps} of the sources that are given; raises BadInput without any, or for an unknown step."""
    active = {line: list(config.lines[line]) for line, key in READS.items() if config[key] is not None}
    if not active:
        raise BadInput(
            "source=synthesis needs passages= (a folder of texts), posts= (a file of posts with replies) or "
            "dialogues={source: NAME, path: PATH}"
        )
    known = [m.name for m in pkgutil.iter_modules(steps.__path__)]
    for line, names in active.items():
        for name in names:
            if name not in known:
                raise BadInput(
                    f"lines.{line}: no step {name!r}; there is {', '.join(known)}{did_you_mean(name, known)}"
                )
    return active


def wanted_steps(config: DictConfig) -> set[str]:
    """Returns the steps that `steps=` names, all of them without it; raises BadInput for a name that is none."""
    there = list(dict.fromkeys(step for line in active_lines(config).values() for step in line))
    asked = list(config.steps) if config.steps is not None else there
    for step in asked:
        if step not in there:
            raise BadInput(f"steps: no step {step!r}; there is {', '.join(there)}{did_you_mean(str(step), there)}")
    return set(asked)


def read_source(line: str, config: DictConfig) -> tuple[list, list[Reject]]:
    """Returns (records, rejects) of a line's source, at most `limit` records."""
    source = config[READS[line]]
    name, path = (line, source) if isinstance(source, str) else (source.get("source"), source.get("path"))
    if line == "dialogues" and (not name or not path):
        raise BadInput(
            "dialogues: takes {source: NAME, path: PATH}, with a reader of dialogues in data_pipeline/sources/"
        )
    name = "passages" if line == "questions" else name
    names = [m.name for m in pkgutil.iter_modules(sources.__path__)]
    if name not in names:
        raise BadInput(f"{line}: no reader {name!r} in data_pipeline/sources/{did_you_mean(name, names)}")
    records = list(importlib.import_module(f"data_pipeline.sources.{name}").read(path))
    rows = [record for record in records if not isinstance(record, Reject)]
    if not rows:
        raise BadInput(f"{path}: no usable record in it")
    return rows[: config.limit], [record for record in records if isinstance(record, Reject)]


def askers(config: DictConfig, ledger: Path) -> dict:
    """Returns {"main": Ask or None, "selectors": {name: Ask}, "models": {step: Ask}, "servers": {step: Server}}, whom
    the steps ask that ask one server; raises BadInput for wrong settings of a server. Those of a selector, and of a
    step under `models`, stand over those of `llm`.
    """
    base = llm_settings(config)
    if base is None or not config.selectors:
        if "select_challenging" in wanted_steps(config):
            missing = "selectors is empty: name one" if base else "llm is not named: say llm=openai, vllm or deepseek"
            raise BadInput(f"select_challenging asks selector models, but {missing} (recipes/llm/)")
    if base is None:
        return {"main": None, "selectors": {}, "models": {}, "servers": {}}
    if "replies" in base:
        ask = recorded.asker(Path(base["replies"]))
        return {"main": ask, "selectors": dict.fromkeys(config.selectors or (), ask), "models": {}, "servers": {}}

    def servers(key: str) -> dict[str, llm.Server]:
        own = OmegaConf.to_container(config[key] or OmegaConf.create({}), resolve=True)
        return {name: llm.server_from({**base, **(more or {})}, f"{key}.{name}") for name, more in own.items()}

    def asks(named: dict[str, llm.Server]) -> dict:
        return {name: llm.asker(server, ledger, name, config.budget) for name, server in named.items()}

    main, own = llm.server_from(base, "llm"), servers("models")
    return {
        "main": asks({"data": main})["data"],
        "selectors": asks(servers("selectors")),
        "models": asks(own),
        "servers": {step: own.get(step, main) for step in ASKING if step != "select_challenging"},
    }


def llm_settings(config: DictConfig) -> dict | None:
    """Returns who is asked: {"replies": folder}, or a server's settings; None when nobody is named.

    A server named on the command line takes the place of the recorded replies that a recipe names.
    """
    base = OmegaConf.to_container(config.llm, resolve=True) if config.llm else None
    if base and base.get("base_url"):
        base.pop("replies", None)
    return base


def settings_of(step: str, config: DictConfig):
    """Returns the step's Settings as the recipe has them; raises BadInput for an unknown or wrong one."""
    module = importlib.import_module(f"data_pipeline.steps.{step}")
    given = OmegaConf.to_container(config.synthesis.get(step) or OmegaConf.create({}), resolve=True)
    known = [f.name for f in dataclasses.fields(module.Settings)]
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known)
            raise BadInput(f"synthesis.{step}: no setting {key!r}; there is {', '.join(known)}{hint}")
    return module.Settings(**given)


def run_line(
    line: str, rows: list, wanted: set[str], config: DictConfig, folder: Path, asks: dict, result: Synthesised
) -> list:
    """Returns the rows after the last step of the line; the counts of its steps join `result`."""
    kind, context, asked = type(rows[0]), {}, set()
    for number, step in enumerate(config.lines[line], 1):
        place = folder / f"{number}_{step}"
        settings = settings_of(step, config)
        key = _key(step, rows, settings, context, config)
        done = _read_state(place)
        kind = MAKES.get(step, kind)
        if done and done["key"] == key:
            rows = list(read_records(place / "rows.jsonl", kind))
            counts = done["counts"]
        elif step not in wanted:
            if any(later in wanted for later in config.lines[line][number:]):
                raise BadInput(f"steps: {line} need {step} before; add it to steps=")
            break
        else:
            if step not in asked:
                asked = _ask_ahead(line, number, rows, wanted, asks, context, config, folder)
            rows, counts = _run_step(step, rows, settings, asks, context, place, key, config)
            console.print(f"  {line}: {step}: {_told(counts)}")
        if rows and isinstance(rows[0], Passage):
            context["passages"] = rows
        result.counts[f"{line}/{number}_{step}"] = counts
    return rows


def _ask_ahead(line, number: int, rows: list, wanted, asks, context, config: DictConfig, folder: Path) -> set[str]:
    """Asks ahead for the steps from `number` on that ask one server each, two or more in a row; returns their names.

    Not under a budget, which is to be spent in the order of the steps.
    """
    names = config.lines[line][number - 1 :]
    names = list(itertools.takewhile(lambda step: step in asks["servers"] and step in wanted, names))
    if len(names) < 2 or not rows or config.budget is not None:
        return set()

    def bound(step: str):
        module, settings = importlib.import_module(f"data_pipeline.steps.{step}"), settings_of(step, config)
        return lambda alone, ask: module.run(alone, settings, ask, **_more(step, context))

    steps_ahead = [ahead.Step(bound(step), asks["servers"][step]) for step in names]
    title = f"{line}: {names[0]} to {names[-1]}"
    ahead.ask_ahead(rows, steps_ahead, folder.parent.parent / "ledger.sqlite", title)
    return set(names)


def _more(step: str, context: dict) -> dict:
    return {"passages": context["passages"]} if step == "filter_quality" else {}


def _run_step(step, rows, settings, asks, context, place: Path, key: str, config) -> tuple[list, dict]:
    module = importlib.import_module(f"data_pipeline.steps.{step}")
    ask = asks["selectors"] if step == "select_challenging" else asks["models"].get(step, asks["main"])
    if step in ASKING and not ask:
        cure = "name one under selectors" if config.llm else "say llm=openai, vllm, deepseek or recorded"
        raise BadInput(f"{step} asks a model: {cure} (recipes/llm/)")
    started, ids = time.monotonic(), [row.id for row in rows]
    found = module.run(rows, settings, ask, **_more(step, context))
    steps.check_balance(step, ids, found)
    merged = len(found.report.get("merged_ids", ()))
    counts = {
        "in": len(ids),
        "out": len(found.rows),
        "rejected": len(found.rejects),
        "merged": merged,
        "seconds": round(time.monotonic() - started, 2),
    }
    place.mkdir(parents=True, exist_ok=True)
    write_jsonl(place / "rows.jsonl", found.rows)
    write_jsonl(place / "rejects.jsonl", found.rejects)
    for name, table in found.files.items():
        write_jsonl(place / f"{name}.jsonl", table)
    if step == "review":
        module.write_sample(place, found.files["sample"])  # sheets for people
    (place / "report.json").write_text(json.dumps(found.report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    state = {"key": key, "counts": counts, "settings": dataclasses.asdict(settings)}
    partial = place / "step.partial"
    partial.write_text(json.dumps(state, ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(place / "step.json")
    return found.rows, counts


def _read_state(place: Path) -> dict | None:
    try:
        return json.loads((place / "step.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _key(step: str, rows: list, settings, context: dict, config: DictConfig) -> str:
    """Returns the hash of all that a step's output depends on: rows, settings, prompts, code and who is asked."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
    digest.update(json.dumps(dataclasses.asdict(settings), sort_keys=True, default=str).encode())
    for verdicts in getattr(settings, "verdicts", ()):  # files that people edit
        digest.update(Path(verdicts).read_bytes() if Path(verdicts).is_file() else b"")
    for file in sorted([*Path(steps.__file__).parent.glob(f"{step}*.*"), *Path(records.__file__).parent.glob("*.*")]):
        digest.update(file.read_bytes())  # the step, its rules, and the modules it may use
    if step in ASKING:
        for template in sorted(Path(prompts.__file__).parent.glob("*.jinja")):
            digest.update(template.read_bytes())
        who = {k: OmegaConf.to_container(config[k]) if config[k] else None for k in ("llm", "selectors", "models")}
        digest.update(json.dumps(who, sort_keys=True).encode())
    return digest.hexdigest()


def done_steps(folder: Path) -> dict[str, dict]:
    """Returns the counts of the steps that have been run, {"questions/1_clean": {...}}, in their order."""
    found = {p.parent.parent.name + "/" + p.parent.name: _read_state(p.parent) for p in folder.glob("*/*/step.json")}
    return {
        name: found[name]["counts"] for name in sorted(found, key=lambda n: (list(READS).index(n.split("/")[0]), n))
    }


def _told(counts: dict) -> str:
    parts = [f"{counts['in']} in", f"{counts['out']} out", f"{counts['rejected']} rejected"]
    parts += [f"{counts['merged']} merged"] if counts["merged"] else []
    return ", ".join(parts) + f" ({counts['seconds']} s)"
