"""Rows of a broken sqlite file, read page by page: whatever else of the file is cut off, flipped or gone.

sqlite gives up at the first page that makes no sense. Here every page that may be a leaf of a table is read by itself,
of the file and of its write-ahead log, and of each row as much as is there; who asks says which of them are whole. The
format is sqlite's own, version 3 (https://www.sqlite.org/fileformat.html, sections 1.5, 1.6, 2.1 and 4).
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SIZES = tuple(2**power for power in range(9, 17))  # of pages
_LEAF = 0x0D
_WAL_HEAD, _FRAME_HEAD = 32, 24
_MOST = 1 << 28  # bytes of a row; a larger one is a wrong number


Bytes = bytes | mmap.mmap


class Row(NamedTuple):
    number: int  # rowid
    values: list  # None, int, float, str, or bytes that are no UTF-8


def rows(file: Path, begins: bytes) -> Iterator[Row]:
    """Yields the rows of all tables that can be read of an sqlite file and its -wal, some of them twice, or old.

    `begins` are the types of the first columns of the rows that are sought: where a page's own pointers are gone, a row
    is found by them.
    """
    content, log = _read(file), _read(Path(f"{file}-wal"))
    sizes = [size for size in (_size_of(content), _size_of_log(log)) if size in SIZES] or list(SIZES)
    for size in dict.fromkeys(sizes):
        versions = _Pages(content, log, size)
        for page in versions.all():
            yield from _of_page(page, versions, begins)


def _read(file: Path) -> bytes | mmap.mmap:
    if not file.is_file() or not file.stat().st_size:
        return b""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _size_of(content: Bytes) -> int:
    """Returns the size of the pages that the header names, 0 where there is no header."""
    if content[:16] != b"SQLite format 3\0" or len(content) < 18:
        return 0
    size = int.from_bytes(content[16:18], "big")
    return 65536 if size == 1 else size


def _size_of_log(log: Bytes) -> int:
    whole = len(log) >= _WAL_HEAD and log[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
    return int.from_bytes(log[8:12], "big") if whole else 0


class _Pages:
    """The pages of a file, and the versions of them that its log holds, newest first."""

    def __init__(self, content: Bytes, log: Bytes, size: int) -> None:
        self.content, self.size = content, size
        self.newer: dict[int, list[bytes]] = {}
        step = _FRAME_HEAD + size
        for at in range(_WAL_HEAD, len(log) - _FRAME_HEAD, step):
            number = int.from_bytes(log[at : at + 4], "big")
            self.newer.setdefault(number, []).insert(0, log[at + _FRAME_HEAD : at + step])

    def of(self, number: int) -> list[bytes]:
        """Returns the versions of a page, numbered from 1, the newest first."""
        at = (number - 1) * self.size
        page = self.content[at : at + self.size] if at >= 0 else b""
        return [*self.newer.get(number, ()), *([page] if page else [])]

    def all(self) -> Iterator[bytes]:
        for number in range(1, -(-len(self.content) // self.size) + 1):
            page = self.content[(number - 1) * self.size : number * self.size]
            yield page if number > 1 else bytes(100) + page[100:]
        for versions in self.newer.values():
            yield from versions


def _of_page(page: bytes, pages: _Pages, begins: bytes) -> Iterator[Row]:
    """Yields the rows of a page: where its pointers say, if it is a table's leaf, and wherever one begins."""
    size = pages.size
    if len(page) > 12 and page[0] == _LEAF:
        count = min(int.from_bytes(page[3:5], "big"), (len(page) - 8) // 2)
        for (at,) in struct.iter_unpack(">H", page[8 : 8 + 2 * count]):
            yield from _cell(page, at, size, pages)
    place = page.find(begins)
    while place > 0:
        for at in range(max(0, place - 19), place - 2):  # its length, its number, and the length of its types before it
            yield from _cell(page, at, size, pages, place - 1)
        place = page.find(begins, place + 1)


def _cell(page: bytes, at: int, size: int, pages: _Pages, payload_at: int | None = None) -> Iterator[Row]:
    """Yields the row that begins there, for each way in which its overflow pages may follow; nothing where there is
    none, or where its payload would not begin at `payload_at`.
    """
    try:
        length, at = _varint(page, at)
        number, at = _varint(page, at)
    except IndexError:
        return
    if not 0 < length <= _MOST or len(page) < at or payload_at not in (None, at):
        return
    most = size - 35
    least = (size - 12) * 32 // 255 - 23
    here = length
    if length > most:
        here = least + (length - least) % (size - 4)
        here = here if here <= most else least
    payload = page[at : at + here]
    if len(payload) < here:
        return
    if here == length:
        yield from _decoded(number, payload)
        return
    follows = int.from_bytes(page[at + here : at + here + 4], "big")
    for tail in _overflow(follows, length - here, pages):
        yield from _decoded(number, payload + tail)


def _overflow(number: int, length: int, pages: _Pages) -> Iterator[bytes]:
    """Yields what a chain of overflow pages holds: with their newest versions, and with their oldest."""
    for which in (0, -1):
        parts: list[bytes] = []
        left, follows = length, number
        while left > 0 and follows and (versions := pages.of(follows)):
            page = versions[which]
            parts.append(page[4 : 4 + left])
            left -= len(parts[-1])
            if len(page) < pages.size and left > 0:
                break
            follows = int.from_bytes(page[:4], "big")
        if left <= 0:
            yield b"".join(parts)


def _decoded(number: int, payload: bytes) -> Iterator[Row]:
    try:
        end, at = _varint(payload, 0)
        kinds, values = [], []
        if not 1 < end <= len(payload):
            return
        while at < end:
            kind, at = _varint(payload, at)
            kinds.append(kind)
        for kind in kinds:
            value, at = _value(payload, kind, at)
            values.append(value)
    except (IndexError, ValueError, struct.error):
        return
    if at == len(payload):
        yield Row(number, values)


def _value(payload: bytes, kind: int, at: int) -> tuple[object, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        part = payload[at:end]
        if len(part) < end - at:
            raise ValueError
        if kind % 2 == 0:
            return part, end
        try:
            return part.decode("utf-8"), end
        except UnicodeDecodeError:
            return part, end
    if kind in (0, 8, 9):
        return (None, 0, 1)[(0, 8, 9).index(kind)], at
    if kind in (10, 11):
        raise ValueError
    size = (0, 1, 2, 3, 4, 6, 8, 8)[kind]
    part = payload[at : at + size]
    if len(part) < size:
        raise ValueError
    return struct.unpack(">d", part)[0] if kind == 7 else int.from_bytes(part, "big", signed=True), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns (number, place behind it) of sqlite's numbers of one to nine bytes."""
    number = 0
    for place in range(8):
        byte = data[at + place]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + place + 1
    number = number << 8 | data[at + 8]
    return (number - (1 << 64) if number >= 1 << 63 else number), at + 9
