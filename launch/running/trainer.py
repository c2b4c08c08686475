"""A trainer as a child process: its output in a log, its progress on the terminal, its exception when it fails."""

import ctypes
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from data_pipeline.safety.shown import text_column
from launch.cli.entry import StageFailed, console
from launch.running.failure import cause

SILENT = 600  # seconds without a line in the log after which that is told


def run_trainer(
    command: list[str],
    env: dict[str, str],
    log: Path,
    progress: Callable[[], tuple[int, int | None, str]],
    title: str,
    keep_open: tuple[int, ...] = (),
) -> None:
    """Runs `command` to its end with its output in `log`; shows progress() = (done, total, text) meanwhile.

    Raises StageFailed with the end of the log when it does not exit with 0. The trainer ends with this process.
    """
    console.print(title, style="bold", end="")
    console.print(f": {shlex.join(command)}\n  log: {log}")
    with log.open("ab") as file:
        start = file.tell()  # what stands before is of earlier attempts
        process = subprocess.Popen(
            command,
            env={**os.environ, **{k: str(v) for k, v in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            preexec_fn=end_with_parent,
        )
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _show_progress(process, progress, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        signal.signal(signal.SIGTERM, previous)
    if process.returncode != 0:
        code = process.returncode
        how = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.Signals(-code).name})"
        failure = cause(log, start, max(0, -code))
        raise StageFailed(f"{failure.context}\n\n{title} ended with {how}: {failure.line}{failure.more}\nlog: {log}")


def _show_progress(process: subprocess.Popen, progress: Callable[[], tuple[int, int | None, str]], log: Path) -> None:
    """Shows progress() until the process has ended; a log without a new line is told and never acted upon."""
    columns = (text_column("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task, told = bar.add_task("starting", total=None), time.monotonic()
        size, heard = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            if log.stat().st_size != size:
                size, heard = log.stat().st_size, time.monotonic()
            elif time.monotonic() - heard >= SILENT:
                silence = f"no new line in {log} for {SILENT / 60:g} minutes"
                console.print(f"  {silence}; process {process.pid} lives, and is waited for")
                heard = time.monotonic()
            done, total, text = progress()
            bar.update(task, completed=done, total=total, description=text or "starting")
            if not console.is_terminal and time.monotonic() - told >= 20:
                console.print(f"  {done}/{total or '?'} {text}")
                told = time.monotonic()
        done, total, text = progress()
        bar.update(task, completed=done, total=total, description=text)
    if not console.is_terminal:
        console.print(f"  {done}/{total or '?'} {text}")


def end_with_parent() -> None:
    """For a child process, before it begins: SIGTERM comes when its parent is gone, however that ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed stage leaves no trainer behind


def _interrupt(*_) -> None:
    raise KeyboardInterrupt
