"""What the modules here give: the paragraphs of a file as they are read, and what of it could not be read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from data_pipeline.encodings import decode
from data_pipeline.records import Fault

LONGEST_HEADING = 100  # characters; ours


class Unreadable(Exception):
    """Why a file, or a part of one, gives no text."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.fault = Fault(code, detail)


def decoded(content: bytes, encoding: str = "", declared: str = "") -> tuple[str, str]:
    """Returns (text, name of its encoding) as `decode` does; raises Unreadable for what is no text of one encoding."""
    found = decode(content, encoding, declared)
    if isinstance(found, Fault):
        raise Unreadable(*found)
    return found


class Paragraph(NamedTuple):
    section: int  # a number that grows with each heading and chapter
    heading: str  # above it, "" where there is none
    text: str


@dataclass
class Text:
    """A file's text; `left_out` is complete when all paragraphs have been taken."""

    paragraphs: Iterator[Paragraph]
    title: str = ""
    subject: str = ""
    encoding: str = ""
    left_out: list[Fault] = field(default_factory=list)  # what of the file is no part of its text, and why


def under_headings(texts: Iterable[tuple[bool, str]], section: int = 0) -> Iterator[Paragraph]:
    """Yields the paragraphs of (whether a heading, text), each with the heading above it, sections numbered from
    `section` on. Headings in a row are one; those with no text below are text themselves, and so are very long ones.
    """
    headings, used = [], False
    for is_heading, text in texts:
        if not is_heading or len(text) > LONGEST_HEADING:
            used = True
            yield Paragraph(section, " ".join(headings), text)
            continue
        if used or not headings:
            headings, used, section = [], False, section + 1
        headings.append(text)
    if not used:
        yield from (Paragraph(section, "", heading) for heading in headings)


def join_lines(lines: list[str]) -> str:
    """Returns wrapped lines as one; a blank goes between words of Latin letters alone."""
    text = ""
    for line in filter(None, map(str.strip, lines)):
        text += (" " if text and text[-1].isascii() and line[0].isascii() else "") + line
    return text
