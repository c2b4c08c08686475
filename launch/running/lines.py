"""Lines of large files of records, by number: in memory is only where they begin, and only as far as somebody looked.

A file that grows or is written anew while it is read is another file: it is known by its size, time and inode.
"""

import mmap
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

BLOCK = 4 * 2**20  # bytes that are looked through at once
NEAR = 8 * 2**20  # bytes around the place where a row is looked for first
LONGEST = 2 * 2**20  # bytes of a line that is shown; a longer one is told, not parsed


@dataclass
class Lines:
    """The lines of one state of a file, numbered from 0."""

    path: Path
    size: int
    begins: array = field(default_factory=lambda: array("Q", [0]))  # of the lines found so far, and the next
    whole: bool = False  # all lines are found

    def _reach(self, number: int | None) -> None:
        """Finds where the lines up to `number` begin, all of them for None."""
        if self.whole or (number is not None and number + 1 < len(self.begins)):
            return
        with self.path.open("rb") as file:
            position = self.begins[-1]
            file.seek(position)
            while block := file.read(BLOCK):
                at = block.find(b"\n")
                while at >= 0:
                    self.begins.append(position + at + 1)
                    at = block.find(b"\n", at + 1)
                position += len(block)
                if number is not None and number + 1 < len(self.begins):
                    return
        if position > self.begins[-1]:  # a last line without an end: it is being written, or was cut off
            self.begins.append(position)
        self.whole = True

    def count(self) -> int:
        self._reach(None)
        return len(self.begins) - 1

    def slice(self, first: int, most: int) -> list[tuple[int, dict[str, Any]]]:
        """Returns (number, record) of `most` lines from `first` on, fewer at the end; {} for what is no record."""
        self._reach(first + most)
        last = min(first + most, len(self.begins) - 1)
        with self.path.open("rb") as file:
            return [(number, self._record(file.fileno(), number)) for number in range(first, last)]

    def record(self, number: int) -> dict[str, Any] | None:
        """Returns the record of a line, None where there is no such line."""
        found = self.slice(number, 1)
        return found[0][1] if found else None

    def _record(self, handle: int, number: int) -> dict[str, Any]:
        begin, end = self.begins[number], self.begins[number + 1]
        return parsed(os.pread(handle, end - begin, begin)) if end - begin <= LONGEST else {}

    def number_at(self, offset: int) -> int:
        """Returns the number of the line that holds the byte."""
        low, high = 0, len(self.begins)
        while low < high:
            middle = (low + high) // 2
            if self.begins[middle] <= offset:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def find(self, text: str, first: int = 0) -> Iterator[int]:
        """Yields the numbers of the lines from `first` on that hold the text, small and capital Latin letters as one.

        It is looked for as JSON writes it, in keys and values alike.
        """
        self._reach(None)
        wanted = _as_written(text)
        if not wanted or first >= len(self.begins) - 1:
            return
        with self.path.open("rb") as file:
            position, rest = self.begins[first], b""
            file.seek(position)
            folded = wanted.upper() != wanted  # Chinese has no capital letters, and is found twice as fast
            while block := file.read(BLOCK):
                block = rest + (block.lower() if folded else block)
                begin = position - len(rest)
                cut = block.rfind(b"\n") + 1
                at, last = block.find(wanted, 0, cut), -1
                while at >= 0:
                    number = self.number_at(begin + at)
                    if number != last:
                        yield number
                    last = number
                    at = block.find(wanted, self.begins[number + 1] - begin, cut)
                position = begin + len(block)
                rest = block[cut:]
            if wanted in rest:
                yield self.number_at(position - len(rest))


def parsed(line: bytes) -> dict[str, Any]:
    """Returns the record of a line, {} for what is none: a line that is being written, or of another hand."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}


def _as_written(text: str) -> bytes:
    return orjson.dumps(text.encode("utf-8", "replace").decode())[1:-1].lower()


def lines_of(path: Path) -> Lines | None:
    """Returns the lines of the file as it is now, None without one."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _lines(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=64)
def _lines(path: Path, size: int, modified: int, inode: int) -> Lines:
    return Lines(path, size)


def find_id(path: Path, id: str, near: float | None = None) -> int | None:
    """Returns the number of the first line whose record has the id, None without one. `near` is the part of the file,
    from 0 to 1, where it is looked for first: steps keep the order of their rows.
    """
    if (lines := lines_of(path)) is None or not lines.size:
        return None
    wanted = b'"id":' + orjson.dumps(id)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        guess = 0 if near is None else int(near * lines.size)
        for begin, end in ((max(0, guess - NEAR), min(lines.size, guess + NEAR)), (0, lines.size)):
            at = begin - 1
            while (at := content.find(wanted, at + 1, end)) >= 0:
                first, last = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
                if parsed(content[first : last if last >= 0 else None]).get("id") == id:  # not of something within it
                    lines.count()
                    return lines.number_at(at)
    return None


def mentions(path: Path, id: str) -> Iterator[int]:
    """Yields the numbers of the lines in which the id stands as a text of its own."""
    lines, wanted = lines_of(path), orjson.dumps(id)
    if lines is None or not lines.size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(wanted)
        while at >= 0:
            lines.count()
            number = lines.number_at(at)
            yield number
            at = content.find(wanted, lines.begins[number + 1])


def tail(path: Path, most: int = 80, size: int = 64 * 1024) -> list[str]:
    """Returns the last lines of a log, [] without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rsplit("\r", 1)[-1] for line in text.rstrip().splitlines()[-most:]]
