"""Where a run came from: the chain from evaluation back to raw files, and whether anything has changed since.

    python -m launch.lineage run=NAME
    python -m launch.lineage run=NAME row=ID

Prints every stage with its inputs, outputs and their state today. Exit code 1 when a file is missing or has changed.
With row= it prints what one synthesised question or dialogue was made of: passage or post, every call with its prompt's
hash, model and reply, verdicts and edits.
"""

import json
import sys
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.llm.ledger import Ledger
from data_pipeline.records import read_jsonl
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.running.folder import RUNS, read_manifest, sha256

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


def compare(file: dict) -> str:
    """Returns "as recorded", "missing", "CHANGED", or "on the hub" for what was no file."""
    if file["sha256"] is None:
        return "on the hub"
    now = sha256(Path(file["path"]))
    return "missing" if now is None else "as recorded" if now == file["sha256"] else "CHANGED"


def show_row(name: str, id: str) -> int:
    """Prints where one row of the data stage came from; raises BadInput for an id that it does not have."""
    folder = RUNS / name / "data"
    rows = {}
    for path in (folder / "questions.jsonl", folder / "dialogues.jsonl", *sorted(folder.glob("steps/*/*/rows.jsonl"))):
        for _, row in read_jsonl(path) if path.is_file() else ():
            rows.setdefault(row["id"], row)  # the exported form first
    if id not in rows:
        raise BadInput(f"row={id}: run {name} has no such row{did_you_mean(id, list(rows))}")
    row = rows[id]
    console.print_json(json.dumps({k: v for k, v in row.items() if k != "meta"}, ensure_ascii=False))
    for parent in row["meta"].get("parents", []):
        console.print(f"[bold]made from {parent}[/bold]")
        if parent in rows:
            console.print_json(json.dumps(rows[parent], ensure_ascii=False))
    with_calls = (folder / "ledger.sqlite").is_file()
    for entry in row["meta"].get("trail", []):
        console.print(f"{entry['step']}: {json.dumps(entry, ensure_ascii=False)}", markup=False)
        if with_calls and "row" in entry:
            with Ledger(folder / "ledger.sqlite") as ledger:
                for call in ledger.calls(entry["step"], entry["row"], entry.get("sample", 0)):
                    console.print(f"  {call.step}, {call.model}, {call.at}: {call.text}", markup=False)
    for path in sorted(folder.glob("steps/*/*/*.jsonl")):
        if path.name not in ("rows.jsonl", "rejects.jsonl"):
            for _, fact in read_jsonl(path):
                if {id, *row["meta"].get("parents", [])} & {fact.get("id"), fact.get("row"), fact.get("row_id")}:
                    console.print(
                        f"  {path.parent.name}/{path.name}: " + json.dumps(fact, ensure_ascii=False), markup=False
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
