"""The text of HTML and XHTML pages, all of it and once, in paragraphs."""

from collections.abc import Iterator
from html.parser import HTMLParser

from data_pipeline.texts.text import join_lines

HEADINGS = ("h1", "h2", "h3")
# What goes on within a line; every other element begins and ends a paragraph (HTML, "phrasing content").
_INLINE = frozenset(
    "a abbr acronym b basefont bdi bdo big cite code data del dfn em font i img ins kbd label mark nobr q rb rbc rtc"
    " ruby s samp small span strike strong sub sup time tt u var wbr".split()
)
_READING = ("rt", "rp")  # how a character is read, beside it
_WITHOUT_TEXT = frozenset(("head", "script", "style", "template", "noscript", *_READING))
_PIECE = 1 << 16


def paragraphs(page: str) -> Iterator[tuple[bool, str]]:
    """Yields (whether a heading, text) of each paragraph; only a piece of the page is parsed at a time."""
    parser = _Paragraphs()
    for start in range(0, len(page), _PIECE):
        parser.feed(page[start : start + _PIECE])
        yield from parser.taken()
    parser.close()
    parser.end()
    yield from parser.taken()


class _Paragraphs(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.done: list[tuple[bool, str]] = []
        self.text: list[str] = []
        self.heading = False
        self.skipped: list[str] = []  # open elements whose text is not the page's
        self.preformatted = 0  # how deep

    def taken(self) -> list[tuple[bool, str]]:
        done, self.done = self.done, []
        return done

    def end(self) -> None:
        """Ends a paragraph."""
        if text := join_lines([" ".join(line.split()) for line in "".join(self.text).split("\n")]):
            self.done.append((self.heading, text))
        self.text = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if not tag.isascii():  # what people wrote: a<b，c>d
            return self.handle_data(self.get_starttag_text() or "")
        if tag == "body" or (self._in_reading() and (tag not in _INLINE or tag in _READING)):
            self.skipped.clear()  # the ends of <head> and <rt> may be left out
        if tag in _WITHOUT_TEXT:
            self.skipped.append(tag)
        elif tag not in _INLINE and not self.skipped:
            self.end()
            self.heading = self.heading or tag in HEADINGS
            self.preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self.skipped:
            del self.skipped[self.skipped.index(tag) :]
        elif self._in_reading() and (tag == "ruby" or tag not in _INLINE):
            self.skipped.clear()
        if tag not in _INLINE and tag not in _WITHOUT_TEXT and not self.skipped:
            self.end()
            self.heading = False if tag in HEADINGS else self.heading
            self.preformatted = max(0, self.preformatted - (tag == "pre"))

    def _in_reading(self) -> bool:
        return bool(self.skipped) and self.skipped[-1] in _READING

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        if tag not in _INLINE and tag not in _WITHOUT_TEXT and not self.skipped:
            self.end()

    def handle_data(self, data: str) -> None:
        if self.skipped:
            return
        for number, line in enumerate(data.split("\n") if self.preformatted else [data]):
            if number:
                self.end()
            self.text.append(line)

    def unknown_decl(self, data: str) -> None:
        if data.startswith("CDATA["):
            self.handle_data(data.removeprefix("CDATA["))
