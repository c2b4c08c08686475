"""A run as one file to read and to hand on: its funnel, curves, evaluation, responses, costs, lineage and settings.

    python -m launch.report run=NAME [language=zh] [folder=FOLDER]

Writes report.html, which needs nothing else and asks nobody, and report.md into runs/NAME/ or the folder, readable for
their owner alone: they show what people and models said.
"""

import sys
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.pages import alone, texts
from launch.running import overview
from launch.running.folder import RUNS


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 written, 2 wrong input."""
    return run_command(write, __doc__, argv)


def write(argv: list[str]) -> int:
    words = parse_words(argv, "report", ("run", "language", "folder")).values
    name, language = words.get("run", ""), words.get("language", "en")
    if not name:
        raise BadInput("report of which run? `python -m launch.report run=NAME`")
    arguments.check_run_name(name)
    if language not in texts.LANGUAGES:
        raise BadInput(f"language={language}: {' or '.join(texts.LANGUAGES)}")
    run = overview.read_run(name)
    if not run.stages:
        there = sorted(p.name for p in RUNS.glob("*") if p.is_dir())
        raise BadInput(f"run={name}: no stage has run{did_you_mean(name, there)}")
    folder = Path(words.get("folder", run.path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = alone.write(run, folder, language=language)
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot write there ({error.strerror}); say folder=FOLDER") from None
    console.print("\n".join(map(str, files.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
