"""Writes small xlsx files, part by part, so that a test can hold what a spreadsheet program would not write today."""

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"


class Raw(str):
    """A cell as it stands in the file: the attributes and content of its element, {0} for its place."""


def write_workbook(path: Path, sheets: dict[str, list[list]], merged: tuple[str, ...] = ()) -> Path:
    """Writes rows of texts, numbers and Raw cells; None is no cell. `merged` are ranges of the first sheet: "A2:A4"."""
    names = list(sheets)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{TYPES}.sheet.main+xml"/>'
        + "".join(
            f'<Override PartName="/xl/worksheets/s{n}.xml" ContentType="{TYPES}.worksheet+xml"/>'
            for n in range(len(names))
        )
        + "</Types>",
        "_rels/.rels": _links([("officeDocument", "xl/workbook.xml")]),
        "xl/_rels/workbook.xml.rels": _links([("worksheet", f"worksheets/s{n}.xml") for n in range(len(names))]),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{LINKS}"><sheets>'
        + "".join(f'<sheet name={quoteattr(name)} sheetId="{n + 1}" r:id="r{n}"/>' for n, name in enumerate(names))
        + "</sheets></workbook>",
    }
    for n, rows in enumerate(sheets.values()):
        spans = "".join(f'<mergeCell ref="{span}"/>' for span in merged) if n == 0 else ""
        data = "".join(_row(number, cells) for number, cells in enumerate(rows, 1) if cells)
        cells = f"<mergeCells>{spans}</mergeCells>" if spans else ""
        parts[f"xl/worksheets/s{n}.xml"] = f'<worksheet xmlns="{MAIN}"><sheetData>{data}</sheetData>{cells}</worksheet>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return path


def _links(targets: list[tuple[str, str]]) -> str:
    links = "".join(
        f'<Relationship Id="r{n}" Type="{LINKS}/{kind}" Target="{t}"/>' for n, (kind, t) in enumerate(targets)
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{links}</Relationships>'
    )


def _row(number: int, cells: list) -> str:
    written = []
    for place, cell in enumerate(cells):
        at = f"{chr(65 + place)}{number}"
        if isinstance(cell, Raw):
            written.append(cell.format(at))
        elif isinstance(cell, str):
            written.append(f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>')
        elif cell is not None:
            written.append(f'<c r="{at}"><v>{cell}</v></c>')
    return f'<row r="{number}">{"".join(written)}</row>'
