"""Files of 2 MB and less that would take gigabytes: what a reader has to refuse before it unpacks or expands them."""

import io
import zipfile
import zlib
from pathlib import Path

CONTAINER = '<?xml version="1.0"?><container><rootfiles><rootfile full-path="p.opf"/></rootfiles></container>'


def zeros(name: str, megabytes: int, filler: bytes = b"\0") -> tuple[str, bytes]:
    return name, filler * (megabytes << 20)


def epub(file: Path, pages: int = 60, megabytes: int = 30, filler: bytes = b"<p>") -> Path:
    """An EPUB of pages that pack a thousand to one."""
    items = "".join(f'<item id="i{n}" href="{n}.xhtml"/>' for n in range(pages))
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(pages))
    page = (filler * ((megabytes << 20) // len(filler)))[: megabytes << 20]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        book.writestr("META-INF/container.xml", CONTAINER)
        book.writestr("p.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        for number in range(pages):
            book.writestr(f"{number}.xhtml", page)
    return file


def entities(file: Path) -> Path:
    """An EPUB whose list of contents is a billion laughs."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    package = f'<!DOCTYPE p [<!ENTITY l0 "lol">{laughs}]><package><title>&l9;</title></package>'
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("META-INF/container.xml", CONTAINER)
        book.writestr("p.opf", package)
    return file


def many_members(file: Path, count: int = 25_000) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(f"train/{number}.json", "[]")
    return file


def workbook(file: Path, megabytes: int = 1900) -> Path:
    """A workbook whose one sheet is a single cell of so many megabytes."""
    link = '<Relationship Id="r1" Target="worksheets/s.xml"/>'
    parts = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": '<workbook><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f"<Relationships>{link}</Relationships>",
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        for name, content in parts.items():
            book.writestr(name, content)
        with book.open("xl/worksheets/s.xml", "w") as sheet:
            sheet.write(b"<worksheet><sheetData><row><c><v>")
            for _ in range(megabytes):
                sheet.write(bytes(1 << 20).replace(b"\0", b"1"))
    return file


def data_set(file: Path) -> Path:
    """cpsyexam.zip with a file of a gigabyte."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("train/KG-a-b-单项选择题.json", "w") as member,
    ):
        for _ in range(1000):
            member.write(b"[" * (1 << 20))
    return file


def pdf(file: Path, megabytes: int = 1900) -> Path:
    """A PDF whose one page is a stream of so many megabytes."""
    packer, packed = zlib.compressobj(9), io.BytesIO()
    for _ in range(megabytes):
        packed.write(packer.compress(b"(a) Tj\n" * (1 << 17)))
    packed.write(packer.flush())
    stream = packed.getvalue()
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
               b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<<>>/MediaBox[0 0 9 9]>>",
               b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(stream), stream)]  # fmt: skip
    content, begins = b"%PDF-1.4\n", []
    for number, part in enumerate(objects, 1):
        begins.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % at for at in begins)
    content += b"xref\n0 5\n0000000000 65535 f \n" + table
    file.write_bytes(
        content + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(content) - len(table) - 29)
    )
    return file


def laughs(depth: int = 9) -> str:
    """YAML whose aliases make a billion texts."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for n in range(1, depth):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    return "\n".join(lines) + f"\ntitle: *a{depth - 1}\n"


def parquet(file: Path, rows: int = 4000, megabytes: int = 1) -> Path:
    """A table in which one text of a megabyte stands in every row."""
    import pyarrow as arrow
    from pyarrow import parquet as files

    text = arrow.array(["长" * (megabytes << 18)])
    column = arrow.DictionaryArray.from_arrays(arrow.array([0] * rows, arrow.int32()), text)
    files.write_table(arrow.table({"question": column}), file, row_group_size=rows)
    return file
