"""What checkpoints held when they were written: a hash of every file, in `checkpoints.json` of the stage's folder.

A trainer writes no hash, and loads altered weights without a word. A thread here takes them while it trains.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.records import write_text
from launch.running.folder import file_sha256

FILE = "checkpoints.json"
LOOK = 2.0  # seconds between two looks for a new checkpoint; ours


@contextmanager
def recording(stage: Path, complete: Callable[[bool], list[Path]]) -> Iterator[None]:
    """Records the hashes of checkpoints as long as the block lasts; complete(ended) are those that are whole by now."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK):
            record(stage, complete(False))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        record(stage, complete(True))


def record(stage: Path, checkpoints: list[Path]) -> None:
    """Adds the hashes of those that have none yet; forgets those that the trainer has deleted."""
    known = recorded(stage)
    new = [folder for folder in checkpoints if folder.name not in known]
    gone = [name for name in known if not any(folder.name == name for folder in checkpoints)]
    if not new and not gone:
        return
    for folder in new:
        try:
            known[folder.name] = of(folder)
        except OSError:  # the trainer keeps so many and has just deleted it, or the disk is full
            continue
    kept = {name: files for name, files in known.items() if name not in gone}
    with suppress(OSError):  # the trainer itself will say that the disk is full
        write_text(stage / FILE, json.dumps(kept, indent=1) + "\n")


def recorded(stage: Path) -> dict[str, dict[str, str]]:
    """Returns {checkpoint: {file: sha256}}, {} where nothing has been recorded or can be read."""
    try:
        return json.loads((stage / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def of(folder: Path) -> dict[str, str]:
    """Returns {file: sha256} of a checkpoint, its files read side by side."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with ThreadPoolExecutor(8) as threads:
        digests = threads.map(file_sha256, files)
        return {str(file.relative_to(folder)): digest for file, digest in zip(files, digests, strict=True)}


def changed(stage: Path, folder: Path) -> str | None:
    """Returns which file of a checkpoint is not as it was written; None where all are, or nothing was recorded."""
    known = recorded(stage).get(folder.name)
    if known is None:
        return None
    now = of(folder)
    for name in known:
        if known[name] != now.get(name):
            return f"{name} is not as it was written" if name in now else f"{name} is missing"
    return None
