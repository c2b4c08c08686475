"""A disk of few kilobytes under a folder, where this machine lets us mount one; all else keeps its own."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """Mounts it at the folder, which is made; gives what makes it larger. Skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount("-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        folder.rmdir()
        pytest.skip("a disk of its own cannot be mounted here (it takes root); nothing else was changed")
    try:
        yield lambda larger: mount("-o", f"remount,size={larger}k", str(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def filled_when(there: Path, folder: Path, kilobytes: int) -> Iterator[None]:
    """Leaves so much of the disk under `folder` as soon as `there` exists; all of it again at the end."""
    filler, ended = folder / "filler", threading.Event()

    def fill() -> None:
        while not there.exists():
            if ended.wait(0.05):
                return
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - 1024 * kilobytes)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        filler.unlink(missing_ok=True)


def used(folder: Path) -> int:
    """Returns the kilobytes that a folder's files take, in pages of 4."""
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return sum(-(-file.stat().st_size // 4096) * 4 for file in files)
