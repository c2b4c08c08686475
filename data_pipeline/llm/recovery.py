"""A broken ledger's rows, saved: every one that can be read of any damage, and never less than there was.

    python -m data_pipeline.llm.ledger recover FILE

The broken file stays beside, as FILE.broken. Where nothing can be read, or nothing is broken, all stays as it is.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import BadInput
from data_pipeline.llm import salvage
from data_pipeline.llm.calls import Call, checksum

_BEGINS = b"\0\x81\x0d"  # types of a row's first columns: no id of its own, a key of 64 characters
_KEY = re.compile("[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")
_KINDS = {str: str, int: int, float: float, float | None: (float, type(None))}
_ENDS = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Recovered:
    """What became of a ledger."""

    path: Path
    saved: int
    lost: int  # rows up to the last one that was read that cannot be, or that were altered
    replaced: bool

    def __str__(self) -> str:
        if not self.replaced:
            return f"{self.path}: {self.saved} calls saved: nothing is broken, and nothing was changed"
        lost = f"; {self.lost} rows cannot be read or were altered, and are asked again" if self.lost else ""
        return f"{self.path}: {self.saved} calls saved{lost}; the broken file is {self.path}.broken"


def recover(path: Path, write: Callable[[Path, list[Call]], None]) -> Recovered:
    """Puts a ledger with all calls that can be read in the place of a broken one; `write` makes it of them.

    Raises BadInput where there is no file, or nothing in it that can be read, which leaves it alone; OSError where the
    disk has no room for the new one.
    """
    path, broken = Path(path), Path(f"{path}.broken")
    if not path.is_file() or broken.exists():
        raise BadInput(f"ledger {path}: " + (f"{broken} exists; move it away" if broken.exists() else "no such file"))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        copy = Path(scratch) / "ledger"  # sqlite would write to what it opens
        for end in _ENDS[:2]:
            if Path(f"{path}{end}").is_file():
                shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        read, intact = _by_sqlite(copy)
        found = {number: [call] for number, call in read}
        for number, values in salvage.rows(path, _BEGINS):
            row = whole(values)
            if row and row.call not in (there := found.setdefault(number, [])) and (row.proven or not there):
                there.append(row.call)  # beside another: of a ledger that was put in the place of an earlier one
        calls = [call for number in sorted(found) for call in found[number]]
        if not calls:
            raise BadInput(
                f"ledger {path}: no call can be read of it; it is left as it is, and the calls are asked anew"
            )
        lost = max(0, max(number for number in found if found[number]) - len(calls))
        if intact and len(read) == len(calls):
            return Recovered(path, len(calls), 0, False)
        fresh = Path(scratch) / "fresh"
        write(fresh, calls)
        for end in reversed(_ENDS):
            if Path(f"{path}{end}").exists():
                os.replace(f"{path}{end}", f"{broken}{end}")
        os.replace(fresh, path)
    return Recovered(path, len(calls), lost, True)


class Whole(NamedTuple):
    call: Call
    proven: bool  # by its checksum, which rows of earlier versions lack


def whole(values: Sequence) -> Whole | None:
    """Returns the call of a row as it is stored, its own id first; None for one that is damaged or of another table.

    Of a row without a checksum every value has to be of its kind.
    """
    count = len(Call._fields)
    if not count <= len(values) <= count + 2:
        return None
    rest: list[Any] = list(values[1:])
    safe = rest.pop() if len(rest) > count else ""
    rest += [""] * (count - len(rest))
    kinds = [_KINDS[kind] for kind in Call.__annotations__.values()]
    rest = [float(v) if kind not in (int, str) and type(v) is int else v for v, kind in zip(rest, kinds, strict=True)]
    if not all(isinstance(value, kind) for value, kind in zip(rest, kinds, strict=True)) or not isinstance(safe, str):
        return None
    call = Call(*rest)
    if safe:
        return Whole(call, True) if safe == checksum(call) else None
    plain = _KEY.fullmatch(call.key) and _TIME.match(call.at) and not any("\0" in v for v in rest if isinstance(v, str))
    return Whole(call, False) if plain else None


def _by_sqlite(file: Path) -> tuple[list[tuple[int, Call]], bool]:
    """Returns the whole calls that sqlite reads, from both ends up to the first page that is broken, and whether the
    file is intact to it and every row as it was written.
    """
    rows: dict[int, Call] = {}
    intact, altered = True, 0
    try:
        db = sqlite3.connect(file)
    except sqlite3.Error:
        return [], False
    try:
        db.text_factory = bytes
        intact = db.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        db.execute("PRAGMA writable_schema = ON")  # reads a file that is shorter than it says
        for order in ("ASC", "DESC"):
            for number, values in _read(db, order):
                row = whole(values)
                altered += row is None
                if row and isinstance(number, int):
                    rows[number] = row.call
    except sqlite3.Error:
        intact = False
    finally:
        db.close()
    return sorted(rows.items()), intact and not altered


def _read(db: sqlite3.Connection, order: str) -> Iterator[tuple[object, list]]:
    try:
        for number, *values in db.execute(f"SELECT * FROM calls NOT INDEXED ORDER BY id {order}"):
            try:
                yield number, [None, *(v.decode() if isinstance(v, bytes) else v for v in values)]
            except UnicodeDecodeError:
                yield number, []
    except sqlite3.Error:
        return
