"""Milliseconds of a processor that the light rooms' imports take, in fresh processes, beside `import openai`.

python -m tests.benchmarks.imports [ROUNDS] [REPOSITORY]

A room is all of its modules. With REPOSITORY, another checkout of this one (an earlier state), its rooms are timed in
the same rounds. Printed are the least and the median of the rounds, an empty Python's taken off: the processor's time,
since nothing here waits and a busy machine then changes little. No bar is set; tests/test_rooms.py holds what the rooms
must not import.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.test_rooms import LIGHT, REPOSITORY


def code(repository: Path, *rooms: str) -> str:
    """Returns the program that imports every module of the rooms."""
    files = sorted(file for room in rooms for file in (repository / room).rglob("*.py"))
    names = (".".join(file.relative_to(repository).with_suffix("").parts) for file in files)
    return "\n".join(f"import {name.removesuffix('.__init__')}" for name in names)


def programs(repositories: list[Path]) -> Iterator[tuple[str, str, Path]]:
    """Yields (label, program, folder to run it in)."""
    yield "empty", "", REPOSITORY
    yield "openai", "import openai", REPOSITORY
    for repository in repositories:
        beside = "" if repository == REPOSITORY else f" of {repository}"
        for rooms in (*((room,) for room in LIGHT), LIGHT):
            yield f"{', '.join(rooms)}{beside}", code(repository, *rooms), repository


def milliseconds(program: str, folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main(rounds: int, repositories: list[Path]) -> None:
    timed = {label: [] for label, _, _ in programs(repositories)}
    for number in range(rounds + 1):
        for label, program, folder in programs(repositories):
            took = milliseconds(program, folder)
            if number:  # the first round writes the byte code
                timed[label].append(took)
    least, usual = min(timed["empty"]), median(timed["empty"])
    for label, took in timed.items():
        if label != "empty":
            print(f"{min(took) - least:7.0f} ms at least, {median(took) - usual:7.0f} ms in the median: {label}")


if __name__ == "__main__":
    words = sys.argv[1:]
    count = int(words.pop(0)) if words and words[0].isdigit() else 7
    main(count, [REPOSITORY, *map(Path, words)])
