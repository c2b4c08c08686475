"""Where a run came from: the chain from evaluation back to raw files, and whether anything has changed since.

    python -m launch.lineage run=NAME
    python -m launch.lineage run=NAME row=ID

Prints every stage with its inputs, outputs and their state today. Exit code 1 when a file is missing or has changed.
With row= it prints what became of one question, dialogue, post or passage: its last version, what that was made of,
every call with its prompt's hash, model and reply, verdicts and edits, and where it ended.
"""

import json
import sys
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import read_jsonl
from data_pipeline.safety.shown import shown
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.running import trail
from launch.running.folder import RUNS, compare, read_manifest

STAGES = ("eval", "merge", "grpo", "sft", "data")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 all as it was, 1 something changed, 2 wrong input."""
    return run_command(lineage, __doc__, argv)


def lineage(argv: list[str]) -> int:
    words = parse_words(argv, "lineage", ("run", "row")).values
    if "run" not in words:
        raise BadInput("lineage of which run? `python -m launch.lineage run=NAME`, and row=ID for one row of its data")
    arguments.check_run_name(words["run"])
    return show_row(words["run"], words["row"]) if "row" in words else show(words["run"])


def show(name: str) -> int:
    """Prints the chain; returns 1 when a recorded file is missing or differs, else 0."""
    manifests = {stage: manifest for stage in STAGES if (manifest := read_manifest(name, stage))}
    if not manifests:
        there = sorted(p.name for p in RUNS.glob("*") if p.is_dir()) if RUNS.is_dir() else []
        raise BadInput(f"run={name}: no stage has run{did_you_mean(name, there)}")
    changed = 0
    for stage, manifest in manifests.items():
        commit = (manifest["code"]["commit"] or "no commit")[:12] + (
            " + changes" if manifest["code"]["changed"] else ""
        )
        console.print(f"{stage}:", style="bold", end=" ")
        console.print(f"{manifest['status']}, seed {manifest['seed']}, code {commit}")
        for kind in ("inputs", "outputs"):
            for label, file in manifest.get(kind, {}).items():
                state = compare(file)
                changed += state in ("missing", "CHANGED")
                style = "bold red" if state in ("missing", "CHANGED") else None
                console.print(
                    f"  {kind[:-1]} {label}: {file['path']} {(file['sha256'] or '')[:12]} {state}", style=style
                )
        for forced in manifest.get("forced", []):
            console.print(f"  continued by force at {forced['at']}: {'; '.join(forced['differences'])}")
    console.print("every file is as recorded" if not changed else f"{changed} files are missing or have changed")
    return 1 if changed else 0


def show_row(name: str, id: str) -> int:
    """Prints what became of one row of the data stage; raises BadInput for an id that it does not have."""
    data = RUNS / name / "data"
    last, ended = trail.last_version(data, id), trail.endings(data, id)
    versions = trail.versions(data, last) if last else []
    found = {one.table.place.split("/")[0]: one for one in versions if one.table.place != trail.STEPLESS}
    if not found and versions:
        found = {"": versions[-1]}
    if not found and not ended:
        raise BadInput(f"row={id}: run {name} has no such row{did_you_mean(id, ids_of(data))}")
    for pipeline, version in found.items():
        if len(found) > 1:
            console.print(pipeline, style="bold")
        show_version(data, version)
    if versions and not ended and (made := trail.children(data, versions[-1].record, 1000)):
        ended = [f"in {len(made)} rows made from it: {', '.join(made[:20])}"]
    for ending in ended or ["no file of the run says: the stage has not finished"]:
        console.print(f"ended: {ending}")
    return 0


def ids_of(data: Path) -> list[str]:
    """Returns the ids of all rows and rejects, for the nearest one to a word that is none."""
    wanted = (trail.ROWS, trail.REJECTS, "questions.jsonl", "questions.rejects.jsonl")
    files = [table.path for of in trail.tables(data).values() for table in of if table.name in wanted]
    return list({str(row["id"]) for file in files for _, row in read_jsonl(file)})


def show_version(data: Path, version: trail.Version) -> None:
    """Prints the row, what it was made from, its whole trail with the calls, and what the steps wrote of it."""
    row = version.record
    parents = row["meta"].get("parents", [])
    _print_json({k: v for k, v in row.items() if k != "meta"})
    for parent in parents:
        console.print(f"made from {parent}", style="bold")
        if before := trail.last_before(data, version, parent):
            _print_json(before.record)
    for asked in trail.trail(data, row):
        console.print(f"{asked.step}: {json.dumps(asked.facts, ensure_ascii=False)}")
        for call in asked.calls:
            console.print(f"  {call.step}, {call.model}, {call.at}: {call.text}")
    for table, fact in trail.facts(data, {row["id"], *parents}):
        if table.place != trail.STEPLESS and table.name != trail.REJECTS:
            told = json.dumps(fact, ensure_ascii=False)
            console.print(f"  {table.place.split('/')[1]}/{table.name}: {told}")


def _print_json(row: dict) -> None:
    console.print_json(shown(json.dumps(row, ensure_ascii=False)))  # the codes of `shown` are JSON's own


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
