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
from data_pipeline.llm.ledger import Ledger
from data_pipeline.records import Reject, read_jsonl, read_records
from data_pipeline.synthesis.files import step_folders
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.running.folder import RUNS, compare, read_manifest
from launch.running.trail import ENDS, NAMING

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
        console.print(f"[bold]{stage}[/bold]: {manifest['status']}, seed {manifest['seed']}, code {commit}")
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
    folder = RUNS / name / "data"
    versions, rejects = versions_of(folder), rejects_of(folder)
    found = [(pipeline, rows[id]) for pipeline, rows in versions.items() if id in rows]
    if not found and id not in rejects:
        there = {*rejects}.union(*versions.values())
        raise BadInput(f"row={id}: run {name} has no such row{did_you_mean(id, list(there))}")
    for pipeline, row in found:
        if len(found) > 1:
            console.print(f"[bold]{pipeline}[/bold]")
        show_version(folder, row, pipeline)
    for ending in endings(folder, id, rejects) or ["no file of the run says: the stage has not finished"]:
        console.print(f"ended: {ending}", markup=False)
    return 0


def versions_of(folder: Path) -> dict[str, dict[str, dict]]:
    """Returns {pipeline, "" without steps: {id: the last version of the row}}."""
    versions: dict[str, dict[str, dict]] = {}
    for place in step_folders(folder / "steps"):
        rows = versions.setdefault(place.parent.name, {})
        for _, row in read_jsonl(place / "rows.jsonl") if (place / "rows.jsonl").is_file() else ():
            rows[row["id"]] = row
    if not versions and (folder / "questions.jsonl").is_file():
        versions[""] = {row["id"]: row for _, row in read_jsonl(folder / "questions.jsonl")}
    return versions


def rejects_of(folder: Path) -> dict[str, list[str]]:
    """Returns {id: where and why it was rejected, by a step or before the training files}."""
    found: dict[str, list[str]] = {}
    files = [place / "rejects.jsonl" for place in step_folders(folder / "steps")]
    for path in [*files, folder / "questions.rejects.jsonl"]:
        of = f"{path.parent.parent.name}/{path.parent.name}" if path.parent != folder else "the training files"
        for reject in read_records(path, Reject) if path.is_file() else ():
            found.setdefault(reject.id, []).append(f"rejected by {of}: {reject.reason} ({reject.where})")
    return found


def last_before(folder: Path, pipeline: str, row: dict, id: str) -> dict | None:
    """Returns the last version of what a row was made from; of its own id, as it was while it was another kind."""
    found = None
    for place in step_folders(folder / "steps"):
        if place.parent.name == pipeline and (place / "rows.jsonl").is_file():
            for _, one in read_jsonl(place / "rows.jsonl"):
                if one["id"] == id and (id != row["id"] or one.keys() != row.keys()):
                    found = one
    return found


def show_version(folder: Path, row: dict, pipeline: str) -> None:
    """Prints the row, what it was made from, its whole trail with the calls, and what the steps wrote of it."""
    parents = row["meta"].get("parents", [])
    console.print_json(json.dumps({k: v for k, v in row.items() if k != "meta"}, ensure_ascii=False))
    for parent in parents:
        console.print(f"made from {parent}", style="bold", markup=False)
        if before := last_before(folder, pipeline, row, parent):
            console.print_json(json.dumps(before, ensure_ascii=False))
    with_calls = (folder / "ledger.sqlite").is_file()
    for entry in row["meta"].get("trail", []):
        console.print(f"{entry['step']}: {json.dumps(entry, ensure_ascii=False)}", markup=False)
        if with_calls and "row" in entry:
            with Ledger(folder / "ledger.sqlite") as ledger:
                for call in ledger.calls(entry["step"], entry["row"], entry.get("sample", 0)):
                    console.print(f"  {call.step}, {call.model}, {call.at}: {call.text}", markup=False)
    for place in step_folders(folder / "steps"):
        for path in sorted(place.glob("*.jsonl")):
            if path.name not in ("rows.jsonl", "rejects.jsonl"):
                for _, fact in read_jsonl(path):
                    if {row["id"], *parents} & {fact.get(key) for key in NAMING}:
                        told = json.dumps(fact, ensure_ascii=False)
                        console.print(f"  {place.name}/{path.name}: {told}", markup=False)


def endings(folder: Path, id: str, rejects: dict[str, list[str]]) -> list[str]:
    """Returns where a row stands now: in a training file, among the rejects, in another row, or in those made of it."""
    found = list(rejects.get(id, ()))
    for file, what in ENDS.items():
        if (folder / file).is_file() and any(row["id"] == id for _, row in read_jsonl(folder / file)):
            found.append(f"{what} ({file})")
            break  # the first that has it is the narrowest
    for place in step_folders(folder / "steps"):
        if (path := place / "clusters.jsonl").is_file():
            kept = [fact["kept"] for _, fact in read_jsonl(path) if fact["merged"] == id]
            found += [f"merged into {one} by {place.parent.name}/{place.name}" for one in kept]
    if not found:
        made = [row["id"] for rows in versions_of(folder).values() for row in rows.values()
                if id in row["meta"].get("parents", ())]  # fmt: skip
        found += [f"in {len(made)} rows made from it: {', '.join(made[:20])}"] if made else []
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
