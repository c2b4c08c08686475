"""Ledgers that are damaged in every way that a disk, a copy or a person damages files; and what of them is there."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipeline.llm.ledger import Call, Ledger

PAGE = 4096


def call(number: int, chance: random.Random) -> Call:
    """Returns a call; one in five has a reply that does not fit onto a page."""
    length = chance.choice((20, 200, 700, 1500, 9000))
    text = "".join(chance.choice("不知道今天怎么了abcdefgh 。\n") for _ in range(length))
    key = f"{chance.getrandbits(256):064x}"
    finish, error = ("failed", "HTTP 500: boom") if number % 11 == 0 else ("stop", "")
    cost = None if number % 3 else number / 7
    return Call(key, "step", f"row {number}", 0, "m", "http://127.0.0.1:9/v1", finish, text, text[:50], error, number,
                length, cost, 0.25, 1, f"2026-01-01T00:00:{number % 60:02d}.000+00:00", "m-0301")  # fmt: skip


def make(folder: Path, seed: int, count: int = 300, waiting: int = 40) -> tuple[Path, list[Call]]:
    """Returns a ledger and its calls, the last `waiting` of which stand in its write-ahead log alone."""
    chance = random.Random(seed)
    calls = [call(number, chance) for number in range(1, count + 1)]
    path = folder / "ledger.sqlite"
    made = folder / "made"
    with Ledger(made) as ledger:
        ledger.add(calls[: count - waiting])
    ledger = Ledger(made)
    for start in range(count - waiting, count, 4):
        ledger.add(calls[start : start + 4])
    for end in ("", "-wal"):  # as a kill leaves them
        shutil.copyfile(f"{made}{end}", f"{path}{end}")
    with ledger:
        pass
    return path, calls


def places(path: Path) -> dict[str, list[list[tuple[str, int, int]]]]:
    """Returns {key: [the (file, first byte, last byte) of one copy of its row, ...]}, found by sqlite's own words.

    By brute force, and by nothing of `salvage`: a row's bytes are those between its key and its checksum, which stand
    there as text; on overflow pages it has the whole pages that hold any of its reply.
    """
    from data_pipeline.llm.ledger import checksum

    found: dict[str, list[list[tuple[str, int, int]]]] = {}
    copy = path.with_name("whole")
    for end in ("", "-wal"):
        shutil.copyfile(f"{path}{end}", f"{copy}{end}")
    db = sqlite3.connect(copy)
    rows = [Call(*values[1:-1]) for values in db.execute("SELECT * FROM calls")]
    db.close()
    contents = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}
    for row in rows:
        safe = checksum(row).encode()
        for end, content in contents.items():
            at = content.find(row.key.encode() + b"step")
            while at >= 0:
                last = content.find(safe, at)
                if 0 <= last - at < PAGE:  # on one page
                    found.setdefault(row.key, []).append([(end, at - 40, last + len(safe))])
                at = content.find(row.key.encode() + b"step", at + 1)
    return found


def damages(chance: random.Random) -> Iterator[tuple[str, Callable[[Path], list[tuple[str, int, int]]]]]:
    """Yields endless (name, what damages a ledger and returns the (file, first, last) bytes that it has changed)."""
    while True:
        yield "cut", lambda path: _cut(path, "", chance)
        yield "flipped", lambda path: _flip(path, "", chance, chance.choice((1, 8, 64, 512)))
        yield "header", lambda path: _overwrite(path, "", 0, chance.choice((16, 100, 4096)), chance)
        yield "wal cut", lambda path: _cut(path, "-wal", chance)
        yield "wal flipped", lambda path: _flip(path, "-wal", chance, 8)
        yield "wal header", lambda path: _overwrite(path, "-wal", 0, 32, chance)
        yield "hole", lambda path: _overwrite(path, "", chance.randrange(size(path, "")), PAGE * 3, chance)


def size(path: Path, end: str) -> int:
    return Path(f"{path}{end}").stat().st_size


def _cut(path: Path, end: str, chance: random.Random) -> list[tuple[str, int, int]]:
    whole, kept = size(path, end), chance.randrange(size(path, end))
    with Path(f"{path}{end}").open("r+b") as file:
        file.truncate(kept)
    return [(end, kept, whole)]


def _flip(path: Path, end: str, chance: random.Random, count: int) -> list[tuple[str, int, int]]:
    at = [chance.randrange(size(path, end)) for _ in range(count)]
    with Path(f"{path}{end}").open("r+b") as file:
        for place in at:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << chance.randrange(8))]))
    return [(end, place, place) for place in at]


def _overwrite(path: Path, end: str, at: int, length: int, chance: random.Random) -> list[tuple[str, int, int]]:
    with Path(f"{path}{end}").open("r+b") as file:
        file.seek(at)
        file.write(chance.choice((bytes(length), chance.randbytes(length)))[: size(path, end) - at])
    return [(end, at, at + length)]
