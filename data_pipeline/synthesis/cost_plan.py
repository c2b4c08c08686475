"""What a synthesis would ask and pay, before anything is: `python -m launch.data ... dry_run=true`."""

import importlib
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline import llm
from data_pipeline.synthesis import run, servers


def plan(config: DictConfig, ledger: Path) -> list[str]:
    """Returns what a dry run says: calls of every step, and tokens and cost of those whose prompts are known.

    The first asking step of each pipeline is asked for its requests; later ones are counted from the settings.
    """
    notes, wanted = [], run.wanted_steps(config)
    base = servers.llm_settings(config)
    server = llm.server_from(base, "llm") if base and "replies" not in base else None
    for pipeline, in_order in run.active_pipelines(config).items():
        source = config[run.READS[pipeline]]
        path = source if isinstance(source, str) else source.get("path", "")
        if not Path(path).exists():
            notes.append(f"{pipeline}: rows unknown, {path} is not there")
            continue
        rows, _ = run.read_source(pipeline, config)
        count, known = len(rows), True
        notes.append(f"{pipeline}: {count} {run.READS[pipeline]}")
        for step in in_order:
            if step not in wanted:
                continue
            settings = run.settings_of(step, config)
            if step not in servers.ASKING:
                if known:
                    rows = importlib.import_module(f"data_pipeline.steps.{step}").run(rows, settings, None).rows
                    count = len(rows)
                continue
            if known:
                requests = _requests(step, rows, settings)
                told = f"{len(requests)} calls"
                if server:
                    e = llm.estimate(server, requests, ledger)
                    cost = "unknown without prices" if e.cost is None else f"{e.cost:.4f}"
                    told += f", {e.calls} not in the ledger: about {e.prompt_tokens:,} tokens in, cost {cost}"
                notes.append(f"  {step}: {told}")
                known = False
            calls, count = _calls(step, count, settings, len(config.selectors or ()))
            if notes[-1].split(":")[0].strip() != step:
                notes.append(f"  {step}: at most {calls} calls; tokens are known when the step before has run")
    return notes


def _requests(step: str, rows: list, settings) -> list[llm.Request]:
    """Returns the first requests of a step, without asking anybody."""
    seen: list[llm.Request] = []

    class _Stop(Exception):
        pass

    def ask(requests: list[llm.Request]):
        seen.extend(requests)
        raise _Stop

    try:
        importlib.import_module(f"data_pipeline.steps.{step}").run(rows, settings, ask)
    except _Stop:
        pass
    return seen


def _calls(step: str, rows: int, settings, selectors: int) -> tuple[int, int]:
    """Returns (calls of a step at most, rows after it at most)."""
    if step == "generate_questions":
        return rows, rows * (settings.single + settings.multi)
    if step == "write_rationales":
        return rows * (1 + settings.rounds * (3 if settings.judge else 2)), rows
    if step == "select_challenging":
        return rows * selectors * settings.samples, rows
    if step == "rewrite_empathy":
        return 2 * rows, rows
    if step == "reason_reply":
        return 2 * 3 * rows, rows  # three rounds, as plan_dialogue plans at most, each asked twice at worst
    return rows, rows
