"""Where a run came from: the chain from evaluation back to raw files, and whether anything has changed since.

    python -m launch.lineage run=NAME

Prints every stage with its inputs, outputs and their state today. Exit code 1 when a file is missing or has changed.
"""

import sys
from pathlib import Path

from data_pipeline.records import BadInput
from launch import arguments, runs
from launch.stage import console, run_plain

STAGES = ("eval", "merge", "grpo", "sft", "data")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 all as it was, 1 something changed, 2 wrong input."""
    return run_plain(lineage, __doc__, argv)


def lineage(argv: list[str]) -> int:
    words = dict(argument.split("=", 1) for argument in argv if "=" in argument)
    if set(words) != {"run"} or len(argv) != 1:
        raise BadInput("lineage of which run? `python -m launch.lineage run=NAME`")
    arguments.check_run_name(words["run"])
    return show(words["run"])


def show(name: str) -> int:
    """Prints the chain; returns 1 when a recorded file is missing or differs, else 0."""
    manifests = {stage: manifest for stage in STAGES if (manifest := runs.read_manifest(name, stage))}
    if not manifests:
        there = sorted(p.name for p in runs.RUNS.glob("*") if p.is_dir()) if runs.RUNS.is_dir() else []
        raise BadInput(f"run={name}: no stage has run{arguments.did_you_mean(name, there)}")
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
    now = runs.sha256(Path(file["path"]))
    return "missing" if now is None else "as recorded" if now == file["sha256"] else "CHANGED"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
