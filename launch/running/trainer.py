"""A trainer as a child process: its output in a log, its progress on the terminal, its exception when it fails."""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from launch.cli.entry import StageFailed, console

SHOWN = 25  # lines of a log in a message
_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
_WORKER = re.compile(
    r"^(?:\([\w.:-]+ (?:pid|ip)=[^)]*\) |\[rank\d+\]: ?)+"
)  # what Ray and torch put before a worker's line
# of an exception that is shown below it
_WRAPPER = re.compile(r"ray\.exceptions\.(RayTaskError\(|ActorDiedError: The actor died because of an error raised)")
SILENT = 600  # seconds without a line in the log after which that is told
# What people meet most, and what helps; of the exception's own line
CURES = (
    (r"CUDA out of memory", "the GPU is full: a smaller micro batch, or more cards= (dry_run=true estimates)"),
    (r"OutOfMemoryError|MemoryError", "the machine's memory is full: fewer workers, or a smaller base_model="),
    (r"[Aa]ddress already in use|EADDRINUSE", "another process listens at that port: end it, or name another port"),
    (
        r"ModuleNotFoundError|ImportError",
        "install it into .venv; what the locks have comes with bash launch/install.sh",
    ),
    (
        r"ActorDiedError|WorkerCrashedError|NodeDiedError",
        "a process or node of Ray's was lost, as when the system kills for memory (dmesg); the same command continues",
    ),
    (r"NCCL", "NCCL_DEBUG=INFO in psyforge.env tells more; NCCL_SOCKET_IFNAME names the network between nodes"),
    (r"No space left", "free the disk, or keep fewer checkpoints; the same command continues"),
)
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?:\(\w+\))?(?::|$)")


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
    console.print(f"[bold]{title}[/bold]: {shlex.join(command)}\n  log: {log}")
    with log.open("ab") as file:
        start = file.tell()  # what stands before is of earlier attempts
        process = subprocess.Popen(
            command,
            env={**os.environ, **{k: str(v) for k, v in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            preexec_fn=_end_with_parent,
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
        failure = cause(log, start)
        raise StageFailed(f"{failure.context}\n\n{title} ended with {how}: {failure.line}{failure.more}\nlog: {log}")


def _show_progress(process: subprocess.Popen, progress: Callable[[], tuple[int, int | None, str]], log: Path) -> None:
    """Shows progress() until the process has ended; a log without a new line is told and never acted upon."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
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


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed stage leaves no trainer behind


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Cause:
    line: str  # the exception that ended a trainer
    context: str  # the lines around it, of the log
    before: str = ""  # the exception that came most often before it: of workers whose failure the trainer gathers

    @property
    def more(self) -> str:
        """The exception before it and what helps, each on a line of its own, where there is one."""
        text = f"{self.line}\n{self.before}"
        cures = [cure for pattern, cure in CURES if re.search(pattern, text)]
        return "".join(f"\n{line}" for line in ([f"before it: {self.before}"] if self.before else []) + cures[:1])


def cause(log: Path, start: int = 0) -> Cause:
    """Returns the exception that ended a trainer, and the lines around it, from the log's byte `start` on.

    That is the last one that has a message: wrappers, such as torchrun's, end without one. Warnings that name an
    exception, and those of destructors ("Exception ignored in"), are none. Without any, the log's last lines.
    """
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    said = [_CONTROL.sub("", line) for line in re.split(r"[\r\n]+", text)]
    plain = [_WORKER.sub("", line) for line in said]
    ends, opened = [], {}  # lines that end a traceback; the worker whose traceback is open, and whether it is ignored
    for number, (line, whole) in enumerate(zip(plain, said, strict=True)):
        worker = whole[: len(whole) - len(line)]
        if line.startswith("Exception ignored in"):
            opened[worker] = True
        elif line.startswith("Traceback (most recent call last)"):
            opened[worker] = opened.get(worker, False)
        elif line.strip() and not line.startswith((" ", "\t")):
            ignored = opened.pop(worker, None)
            if ignored is False or (ignored is None and _EXCEPTION.match(line)):
                ends.append(number)
    told = [number for number in ends if ": " in plain[number].rstrip()]
    if not told and not ends:
        last = next((line for line in reversed(plain) if line.strip()), "its log says nothing")
        return Cause(last, "\n".join(said[-SHOWN:]).strip())
    end = (told or ends)[-1]
    earlier = [plain[number] for number in told[:-1] if plain[number] != plain[end]]
    counted = Counter(line for line in earlier if not _WRAPPER.match(line)).most_common(1)
    context = "\n".join(said[max(0, end - SHOWN + 5) : end + 5]).rstrip()
    return Cause(plain[end], context, f"{counted[0][0]} ({counted[0][1]} times)" if counted else "")
