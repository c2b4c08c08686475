"""A stage as a child process, as a user would start it: how long it takes, and its memory."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

LOOK = 0.25  # seconds between two looks at a child
WEIGHED = 2.0  # seconds between two looks at its memory, which cost more


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int  # exit code; negative: the signal
    seconds: float
    peak: int  # bytes of its process tree
    late: bool = False  # it was ended, since it took longer than it may


def call(
    stage: str,
    words: list[str],
    stdin: IO | None = None,
    output: IO | None = None,
    look: Callable[[], None] | None = None,
    limit: float | None = None,
) -> Ended:
    """Runs `python -m launch.STAGE WORDS`, its output in the file `output` if there is one; calls `look` meanwhile."""
    started, peak, weighed = time.monotonic(), 0, 0.0
    argv = [sys.executable, "-m", f"launch.{stage}", *words]
    process = subprocess.Popen(argv, stdin=stdin, stdout=output, stderr=subprocess.STDOUT if output else None)
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak, weighed
        while not finished.wait(LOOK):
            if time.monotonic() - weighed >= WEIGHED:
                peak, weighed = max(peak, tree_memory(process.pid)), time.monotonic()
            if look:
                look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    late = False
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        late, code = True, end(process)
    except KeyboardInterrupt:
        process.wait()
        raise
    finally:
        finished.set()
        watcher.join()
    return Ended(code, time.monotonic() - started, peak, late)


def end(process: subprocess.Popen) -> int:
    """Ends a child as Ctrl-C would, which a stage hands to its trainer; returns its exit code."""
    process.terminate()
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tree_memory(pid: int) -> int:
    """Returns the memory of a process and its descendants in bytes, pages that they share counted once (PSS)."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def last_words(log: Path) -> str:
    """Returns what a stage said at its end: the paragraph of its error, else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    paragraph = text.split("\n\n")[-1]
    lines = [line for line in paragraph.splitlines() if line.strip()] or ["its log says nothing"]
    begins = [n for n, line in enumerate(lines) if line.startswith(("error: ", "failed: ", "GRPO ended", "SFT ended"))]
    return "\n".join(lines[begins[-1] :] if begins else lines[-1:])
