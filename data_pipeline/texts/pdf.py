"""The text of a PDF that holds text, without the running heads and feet of its pages."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.records import Fault
from data_pipeline.texts.text import Paragraph, Text, Unreadable, join_lines

LONGEST = 80  # characters of a running head; ours
DEEP = 4  # lines of a page, from the top and from the bottom, that may be a running head or foot; ours
PAGES_IN_A_ROW = 3  # that bear such a line, every second of them where left and right differ; ours
FEW = 10  # characters of a page, fewer on average are a scan; ours
_NUMBER = re.compile(r"\d{1,4}")
_PAGE_NUMBER = re.compile(r"[-—–·.|\s]*(?:\d{1,4}|(?=[ivxlc])(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3}))[-—–·.|\s]*")


def read(file: Path, encoding: str = "") -> Text:
    """Returns the text in paragraphs, which end with a line that ends a sentence, or before an empty one.

    What stands at the head or foot of page after page, alike or but for the page's number, is no part of it, and is
    told in `left_out`; so are pages without text. A PDF says itself in which `encoding` it stands. Raises Unreadable
    for what cannot be read, and for scans.
    """
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    text = Text(iter(()))
    pages, empty = [], []
    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("an encrypted PDF", "save it without a password")
        text.title = str((reader.metadata or {}).get("/Title") or "").strip()
        total = len(reader.pages)
    except Unreadable:
        raise
    except Exception as error:  # pypdf raises what broken files provoke, of any type
        raise Unreadable("not a PDF that can be read", _told(error)) from None
    for number in range(total):
        try:
            lines = [line.strip() for line in (reader.pages[number].extract_text() or "").strip().split("\n")]
        except Exception as error:  # as above
            text.left_out.append(Fault("a page of the PDF cannot be read", f"page {number + 1}: {_told(error)}"))
            lines = []
        else:
            if lines == [""]:
                empty.append(str(number + 1))
        pages.append(lines)
    if sum(len(line) for lines in pages for line in lines) < FEW * total:
        raise Unreadable("a PDF with hardly any text", f"{total} pages; scanned? Recognise its text (OCR) first")
    if empty:
        named = ", ".join(empty[:20]) + (", ..." if len(empty) > 20 else "")
        detail = f"{len(empty)} of {total}: {named}; blank, pictures, or scanned"
        text.left_out.append(Fault("pages of the PDF without text", detail))
    pages = _without_heads_and_feet(pages, text.left_out)
    text.paragraphs = (Paragraph(0, "", paragraph) for paragraph in _paragraphs(pages))
    return text


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def _without_heads_and_feet(pages: list[list[str]], left_out: list[Fault]) -> list[list[str]]:
    """Returns the lines of each page without what stands at its head or foot as on the pages around it."""
    running, removed, kept = _running(pages), defaultdict(list), []
    for number, lines in enumerate(pages):
        first, last = 0, len(lines)
        while first < last and _is_running(lines[first], first, number, running[0]):
            first += 1
        while last > first and _is_running(lines[last - 1], len(lines) - last, number, running[1]):
            last -= 1
        for line in (*lines[:first], *lines[last:]):
            if not _PAGE_NUMBER.fullmatch(line):
                removed[_NUMBER.sub("#", line)].append(number + 1)
        kept.append(lines[first:last])
    told = [f"{line!r} ({len(on)} pages, first {on[0]})" for line, on in removed.items()]
    if told:
        code = "running heads and feet of a PDF are no text"
        left_out.append(Fault(code, "; ".join(told[:10]) + (f"; {len(told) - 10} more" if len(told) > 10 else "")))
    return kept


def _running(pages: list[list[str]]) -> tuple[set, set]:
    """Returns what stands on pages in a row as their head, and as their foot: {((place, form of `_forms`), page)}; the
    place is counted from the edge.
    """
    needed = min(PAGES_IN_A_ROW, max(2, (len(pages) + 1) // 2))
    running: tuple[set, set] = (set(), set())
    for edge, pages_of in enumerate((defaultdict(list), defaultdict(list))):
        for page, lines in enumerate(pages):
            outer = (lines[::-1] if edge else lines)[:DEEP]
            short = [(place, line) for place, line in enumerate(outer) if len(line) <= LONGEST]
            for place, form, number in {(place, *form) for place, line in short for form in _forms(line)}:
                pages_of[place, form].append((page, number))
        for form, on in pages_of.items():
            row = on[:1]
            for page, number in [*on[1:], (len(pages) + 3, 0)]:
                gap, more = page - row[-1][0], number - row[-1][1]
                if gap in (1, 2) and (more == number == 0 or 1 <= more <= 2):
                    row.append((page, number))
                    continue
                if len(row) >= needed:
                    running[edge].update((form, page) for page, _ in row)
                row = [(page, number)]
    return running


def _forms(line: str) -> list[tuple[str, int]]:
    """Returns (the line, 0), and (the line without it, number) for each number, which may be the page's."""
    line = " ".join(line.split())
    return [(line, 0), *((f"{line[: m.start()]}#{line[m.end() :]}", int(m[0])) for m in _NUMBER.finditer(line))]


def _is_running(line: str, place: int, page: int, running: set) -> bool:
    if place == 0 and _PAGE_NUMBER.fullmatch(line):
        return True
    return any(((place, form), page) in running for form, _ in _forms(line))


def _paragraphs(pages: list[list[str]]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in (line for lines in pages for line in lines):
        if line:
            paragraph.append(line)
        if paragraph and (not line or line[-1] in "。！？.!?:：”）"):
            yield join_lines(paragraph)
            paragraph = []
    if paragraph:
        yield join_lines(paragraph)
