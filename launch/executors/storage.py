"""A place that every node of a cluster sees: a folder of a shared file system, or s3://BUCKET/PREFIX; by pyarrow.

What pyarrow reads besides (gs://, abfs://, hdfs://) goes the same way and was not tried. Keys come from the
environment of each node (AWS_ACCESS_KEY_ID...), or from its role; an address that holds them is refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow
from pyarrow import fs

from data_pipeline.errors import BadInput

IN_ONE_MOVE = ("s3", "gcs", "abfs")  # of these a file that is not finished is never seen


def is_address(place: str) -> bool:
    """Returns whether a place is an address (s3://...) and no path of this machine."""
    return "://" in place


def shown(place: str) -> str:
    """Returns the place as messages may show it: without options, and without what may be a key."""
    return place.split("?")[0].rsplit("@", 1)[-1] if is_address(place) else place


@cache
def _opened(place: str) -> tuple[fs.FileSystem, str]:
    """Returns (the file system, the path in it) of a place; raises BadInput for one that pyarrow does not know."""
    try:
        if not is_address(place):
            return fs.LocalFileSystem(), str(Path(place).absolute())
        if urlsplit(place).username or not urlsplit(place).netloc:
            raise ValueError("expected s3://BUCKET/PREFIX, the keys in the environment")
        return fs.FileSystem.from_uri(place)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{shown(place)}: no place that can be read and written: {error}") from None


def refusal(place: str, error: Exception, key: str = "shared=") -> BadInput:
    """Returns what is said of an error of the file system: a missing bucket, a missing permission, a full disk."""
    told = str(error).split(" (Request ID")[0]
    cure = "name another place, or see to it that it is there and that all nodes may list, read and write it"
    return BadInput(f"{key}{shown(place)}: {told}; {cure}")


@contextmanager
def explained(place: str, key: str = "shared=") -> Iterator[None]:
    """Raises BadInput for what the file system refuses."""
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise refusal(place, error, key) from None


def copy_out(place: str, folder: Path) -> Path:
    """Returns where in a folder of this machine the file or folder at a place is now; what is there unchanged stays.

    Raises BadInput for what is not there, or may not be read.
    """
    system, path = _opened(place)
    with explained(place, ""):
        about = system.get_file_info(path)
        if about.type == fs.FileType.NotFound:
            raise BadInput(f"{shown(place)}: no such file or folder")
        files = [about] if about.is_file else system.get_file_info(fs.FileSelector(path, recursive=True))
        target = folder / about.base_name
        for file in filter(lambda one: one.is_file, files):
            copy = target / os.path.relpath(file.path, path) if file is not about else target
            there = copy.stat() if copy.is_file() else None
            if there is None or there.st_size != file.size or there.st_mtime_ns < (file.mtime_ns or 0):
                copy.parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(file.path, str(copy.absolute()), system, fs.LocalFileSystem())
    return target


@dataclass(frozen=True)
class Store:
    """Files by name below a place; every node opens it by itself. What cannot be read or written is an OSError."""

    place: str

    def _at(self, name: str) -> tuple[fs.FileSystem, str]:
        system, path = _opened(self.place)
        return system, f"{path}/{name}" if name else path

    def open(self, name: str) -> pyarrow.NativeFile:
        """Returns a file that can be read from any byte on."""
        system, path = self._at(name)
        return system.open_input_file(path)

    def read(self, name: str) -> bytes:
        """Returns what `write` wrote."""
        system, path = self._at(name)
        with system.open_input_stream(path, compression="zstd") as file:
            return file.read()

    def write(self, name: str, content: bytes, compression: str | None = "zstd") -> None:
        """Writes a file in one move: no other node sees half of it, however this one ends."""
        system, path = self._at(name)
        folder, _, _ = path.rpartition("/")
        partial = path if system.type_name in IN_ONE_MOVE else f"{path}.{uuid4().hex}.partial"
        if partial != path:
            system.create_dir(folder)
        with system.open_output_stream(partial, compression=compression) as file:
            file.write(content)
        if partial != path:
            system.move(partial, path)

    def copy_in(self, path: Path, name: str) -> None:
        """Copies a file of this machine to the place, unless one of its size is there."""
        system, target = self._at(name)
        if system.get_file_info(target).size != path.stat().st_size:
            if system.type_name not in IN_ONE_MOVE:
                system.create_dir(target.rpartition("/")[0])
            fs.copy_files(str(path.absolute()), target, fs.LocalFileSystem(), system)

    def names(self, folder: str) -> set[str]:
        """Returns the names of the files directly in a folder, which need not be there."""
        system, path = self._at(folder)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return {one.base_name for one in found if one.is_file}

    def delete(self, folder: str) -> None:
        """Deletes a folder with all that is in it, if it is there."""
        system, path = self._at(folder)
        if system.get_file_info(path).type != fs.FileType.NotFound:
            system.delete_dir(path)
