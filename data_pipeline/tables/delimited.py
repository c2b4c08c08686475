"""Rows of CSV and TSV files, with whatever usual separator. The file is read row by row, never as a whole."""

import csv
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from data_pipeline.encodings import other_encoding
from data_pipeline.errors import BadInput
from data_pipeline.records import Fault

SEPARATORS = ",\t;|"
HEADER_WITHIN = 20  # rows at the top among which the header is looked for; ours
Cells = list[str]
Fits = Callable[[list[str]], float]  # which share of the wanted columns a header has, 0 to 1


def delimited_rows(path: Path, encoding: str, sure: bool, fits: Fits) -> Iterator[tuple[int, dict | Fault]]:
    """Yields (number, {column: cell} or Fault) of every row that holds something, the header's aside.

    The number is the spreadsheet's: the first row is 1, empty ones count, and a cell may hold line breaks. The header
    is the row near the top that `fits` best, under the separator that makes it so; a row above it is a Fault. With
    `sure` every row stands in the encoding; without it those that do not are Faults. Raises BadInput for a file without
    a header or with a column name twice.
    """
    csv.field_size_limit(sys.maxsize)
    separator, header_at, names = _header(path, encoding, fits)
    with _open(path, encoding) as file:
        for number, cells in _records(file, separator):
            if isinstance(cells, Fault):
                yield number, cells
            elif number == header_at or not any(map(str.strip, cells)):
                continue
            elif not sure and (other := other_encoding(separator.join(cells), encoding)):
                yield number, Fault("not in the encoding of the file", f"{encoding}; {other[:40]!r}")
            elif number < header_at:
                if not cells[0].startswith("sep="):  # Excel's hint
                    yield number, Fault("above the header", f"which is row {header_at}; {separator.join(cells)[:40]!r}")
            elif len(cells) > len(names) and any(map(str.strip, cells[len(names) :])):
                detail = f"{len(cells)}, the header has {len(names)}; the last is {cells[-1][:40]!r}"
                yield number, Fault("more cells than columns", detail)
            else:
                if len(cells) < len(names):
                    cells += [""] * (len(names) - len(cells))
                yield number, dict(zip(names, cells, strict=False))


def pick_header(path: Path, tops: dict[str, list[tuple[int, Cells]]], fits: Fits) -> tuple[str, int, Cells]:
    """Returns (key, number, names) of the row that is the header; `tops` are {key: [(number, cells)]}.

    It is the row with the largest share of the wanted columns, if that is more than half, else the first; of several
    the one with most names. Raises BadInput without one, and for a name that stands twice.
    """
    best, score = None, (-1.0, 0, 0)
    for key, rows in tops.items():
        for number, cells in rows:
            names = [str(cell).strip() for cell in cells]
            share = fits(names)
            this = (share if share > 0.5 else 0, -number, sum(map(bool, names)))
            if any(names) and (best is None or this > score):
                best, score = (key, number, names), this
    if best is None:
        raise BadInput(f"{path}: an empty table")
    names = best[2]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BadInput(f"{path} row {best[1]}: the column {twice[0]!r} stands twice in the header; rename one of them")
    return best


def _header(path: Path, encoding: str, fits: Fits) -> tuple[str, int, Cells]:
    tops = {}
    for separator in SEPARATORS:
        with _open(path, encoding) as file:
            top = islice(_records(file, separator), HEADER_WITHIN)
            tops[separator] = [(number, cells) for number, cells in top if not isinstance(cells, Fault)]
    return pick_header(path, tops, fits)


def _open(path: Path, encoding: str) -> TextIO:
    return path.open(encoding=encoding, errors="surrogateescape", newline="")


def _records(file: TextIO, separator: str) -> Iterator[tuple[int, Cells | Fault]]:
    """Yields (number, cells) of every record; a Fault for one whose quotes are wrong."""
    reader, number = csv.reader(file, delimiter=separator, strict=True), 0
    while True:
        number, line = number + 1, reader.line_num + 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield (
                number,
                Fault("quotes that are not closed, or text behind them", f"lines {line} to {reader.line_num}: {error}"),
            )
