"""Rows of one sheet of a workbook (xlsx, xlsm, xlsb, xls, ods), read by calamine."""

import datetime
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipeline.archives import open_zip
from data_pipeline.errors import BadInput
from data_pipeline.records import Fault
from data_pipeline.tables.delimited import HEADER_WITHIN, Fits, pick_header

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def sheet_rows(path: Path, sheet: str, fits: Fits, option: str) -> Iterator[tuple[int, str, dict | Fault]]:
    """Yields (number, sheet, {column: cell} or Fault) of every row that holds something, the header's aside.

    Numbers are the spreadsheet's. A cell that is merged over several rows stands in each of them. `sheet` may be empty
    where one sheet alone holds something; `option` says how a sheet is named, with SHEET in the place of its name. A
    formula without a stored value, an error and a date stand as a Fault in the place of their cell. Raises BadInput
    for what is no workbook and for a sheet that is not there or not named.
    """
    import python_calamine as calamine

    try:
        _check_size(path)
        with calamine.CalamineWorkbook.from_path(path) as book:
            name, opened = _choose(path, book, sheet, option)
            merged, first = _merged(opened), (opened.start or (0, 0))[1]
            top = list(islice(opened.iter_rows(), HEADER_WITHIN))
            numbered = [(number, [_plain(cell) for cell in cells]) for number, cells in enumerate(top, 1)]
            _, header_at, names = pick_header(path, {"": numbered}, fits)
            lost = dict(_valueless(path, name))
            above: dict[int, Any] = {}  # column: its merged cell
            for number, row in enumerate(opened.iter_rows(), 1):
                cells: list = [_plain(cell) for cell in row]
                for place, (begin, _) in merged.get(number, {}).items():
                    if place - first < len(cells):
                        above[place] = cells[place - first] if number == begin else above[place]
                        cells[place - first] = above[place]
                for place, why in lost.get(number, {}).items():
                    if place - first < len(cells):
                        cells[place - first] = Fault("a cell without a value", why)
                if number == header_at or all(cell == "" for cell in cells):
                    continue
                if number < header_at:
                    told = " ".join(str(cell) for cell in cells if cell != "")[:40]
                    yield number, name, Fault("above the header", f"which is row {header_at}; {told!r}")
                else:
                    yield number, name, {key: cell for key, cell in zip(names, cells, strict=False) if key}
    except (calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        raise BadInput(f"{path}: not a workbook that can be read: {error}") from None


def _choose(path: Path, book: Any, sheet: str, option: str) -> tuple[str, Any]:
    names = [one.name for one in book.sheets_metadata if str(one.visible).endswith(".Visible")]
    if sheet:
        if sheet not in book.sheet_names:
            raise BadInput(f"{path}: no sheet {sheet!r}; there is {', '.join(book.sheet_names)}")
        return sheet, book.get_sheet_by_name(sheet)
    filled = [name for name in names if book.get_sheet_by_name(name).start is not None]
    if not filled:
        raise BadInput(f"{path}: an empty workbook")
    if len(filled) > 1:
        which = " or ".join(option.replace("SHEET", name) for name in filled)
        raise BadInput(f"{path}: {len(filled)} sheets hold something; say which: {which}")
    return filled[0], book.get_sheet_by_name(filled[0])


def _check_size(path: Path) -> None:
    try:
        if zipfile.is_zipfile(path):
            open_zip(path).close()
    except zipfile.BadZipFile as error:
        raise BadInput(f"{path}: {error}; save the sheet as CSV and give that") from None


def _merged(sheet: Any) -> dict[int, dict[int, tuple[int, int]]]:
    """Returns {row: {column from 0: (first row, last row)}} of cells that are merged over several rows."""
    places: dict[int, dict[int, tuple[int, int]]] = {}
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
        for row in range(top + 1, bottom + 2) if bottom > top else ():
            places.setdefault(row, {})[left] = (top + 1, bottom + 1)
    return places


def _plain(cell: Any) -> Any:
    """Returns the cell as the spreadsheet means it: 2.0 is 2; a Fault for a date, which "1-2" becomes unasked."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, datetime.date | datetime.time | datetime.timedelta):
        return Fault("a date in place of a text", f"{cell}; format the column as text and type it anew")
    return cell


def _valueless(path: Path, sheet: str) -> Iterator[tuple[int, dict[int, str]]]:
    """Yields (row, {column from 0: why}) of cells that calamine gives as empty and that are not, in an xlsx file."""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no stubs

    if not zipfile.is_zipfile(path):
        return
    with open_zip(path) as archive:
        if not (part := _part(archive, sheet)):
            return
        with archive.open(part) as file:  # most sheets have neither
            if not any(b"<f" in piece or b't="e"' in piece for piece in iter(lambda: file.read(1 << 20), b"")):
                return
        safe = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": True}
        with archive.open(part) as file:
            for _, row in etree.iterparse(file, tag=f"{_MAIN}row", **safe):
                lost = {}
                for cell in row.iterchildren(f"{_MAIN}c"):
                    value = cell.findtext(f"{_MAIN}v") or ""
                    if cell.get("t") == "e":
                        lost[_column(cell.get("r", ""))] = f"an error, {value}"
                    elif not value and cell.find(f"{_MAIN}f") is not None and cell.get("t") != "str":
                        lost[_column(cell.get("r", ""))] = "a formula that no program has worked out; open and save it"
                if lost:
                    yield int(row.get("r", 0)), lost
                row.clear()
                while row.getprevious() is not None:
                    del row.getparent()[0]


def _part(archive: zipfile.ZipFile, sheet: str) -> str:
    """Returns the name of the archive's member that holds the sheet, "" where there is none."""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    names = archive.namelist()
    if not {"xl/workbook.xml", "xl/_rels/workbook.xml.rels"} <= set(names):
        return ""
    book = etree.fromstring(archive.read("xl/workbook.xml"), parser)
    links = etree.fromstring(archive.read("xl/_rels/workbook.xml.rels"), parser)
    ids = [one.xpath("@*[local-name()='id']") for one in book.iter("{*}sheet") if one.get("name") == sheet]
    for link in links:
        if ids and ids[0] and link.get("Id") == ids[0][0]:
            target = link.get("Target", "")
            part = target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl") / target)
            return part if part in names else ""
    return ""


def _column(place: str) -> int:
    """Returns the column from 0 of a cell's name: 27 of AB7."""
    number = 0
    for letter in place.rstrip("0123456789"):
        number = 26 * number + ord(letter) - 64
    return number - 1
