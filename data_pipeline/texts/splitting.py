"""Paragraphs into passages of a size: cut behind sentences of both scripts, never in a number or an abbreviation."""

import re
from collections.abc import Iterable, Iterator

SIZE = 800  # characters of a passage at most (ours): one topic of a textbook, a few questions
SMALLEST = 100  # shorter passages are joined to the one before (ours)

_CLOSING = r"[”’」』）)\]】》\"']*"
# A stop of Latin script ends a sentence before a blank and what can begin one. Before it stands no single letter
# ("e.g.", "J. Watson") and none of these; and no number that begins a paragraph ("1. Attachment").
_SHORTENED = frozenset(
    "al approx ca cf ch chap dept dr ed eds eg eq eqs et etc fig figs ibid ie inc jr ltd messrs mr mrs ms no op pp"
    " prof ref refs resp rev sec sr st suppl tab univ viz vol vols vs"
    " jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_END = re.compile(
    rf"[。！？；]+{_CLOSING}\s*"
    rf"|[!?]+{_CLOSING}(?:\s+|(?=[\u3400-\u9fff“「『（]))"
    r"|;\s+"
    rf"|(?<=[\u3400-\u9fff”）])\.{_CLOSING}(?:\s+|(?=[\u3400-\u9fff“「『（]))"
    rf"|(?:(?<=[^\W\d_]{{2}})|(?<=[^\W_]\d)|(?<=[)\]”\"’'%]))\.{_CLOSING}\s+(?=[A-Z\d“\"‘'(\[\u3400-\u9fff])"
)
_WORD = re.compile(r"([^\W\d_]+)\.[^.]*\Z")
_CLAUSE = re.compile(r"[，、：]|[,:](?=\s)")
_INSIDE = re.compile(r"[A-Za-z0-9À-ɏ'’._%+-]")  # between two of these a word or a number goes on


def split(paragraphs: Iterable[str], size: int = SIZE) -> Iterator[str]:
    """Yields texts of at most `size` characters: whole paragraphs, one per line; longer ones cut behind a sentence.

    A text shorter than SMALLEST is joined to the one before, which may exceed the size by that much.
    """
    held: list[str] = []  # the last two texts, and
    between = ""  # what stood between them
    for glue, piece in _pieces(paragraphs, size):
        if held and len(held[-1]) + len(glue) + len(piece) <= size:
            held[-1] += glue + piece
            continue
        if len(held) == 2:
            yield held.pop(0)
        between = glue
        held.append(piece)
    if len(held) == 2 and len(held[-1]) < SMALLEST and len(held[0]) + len(held[-1]) < size + SMALLEST:
        held = [held[0] + between + held[1]]
    yield from held


def _pieces(paragraphs: Iterable[str], size: int) -> Iterator[tuple[str, str]]:
    """Yields (what stood before it, piece): a line's end before a paragraph, the blanks between sentences of one."""
    for paragraph in filter(None, map(str.strip, paragraphs)):
        glue, piece = "\n", ""
        for part in _parts(paragraph, size) if len(paragraph) > size else [paragraph]:
            if piece and len((piece + part).rstrip()) > size:
                yield glue, piece.rstrip()
                glue, piece = piece[len(piece.rstrip()) :], ""
            piece += part
        yield glue, piece.rstrip()


def _parts(paragraph: str, size: int) -> Iterator[str]:
    """Yields the sentences with the blanks behind them; of one longer than `size`, its clauses or words."""
    for sentence in sentences(paragraph):
        while len(sentence.rstrip()) > size:
            at = _cut(sentence, size)
            yield sentence[:at]
            sentence = sentence[at:]
        yield sentence


def sentences(paragraph: str) -> Iterator[str]:
    """Yields the sentences of a paragraph, each with the blanks behind it; together they are the paragraph."""
    start = 0
    for match in _END.finditer(paragraph):
        if paragraph[match.start()] == "." and _goes_on(paragraph[start : match.end()].rstrip()):
            continue
        yield paragraph[start : match.end()]
        start = match.end()
    if start < len(paragraph):
        yield paragraph[start:]


def _goes_on(sentence: str) -> bool:
    """Whether the stop at the end belongs to an abbreviation, or to the number of a list."""
    word = _WORD.search(sentence)
    return bool(re.fullmatch(r"\W*\d{1,3}\.\W*", sentence) or (word and word[1].lower() in _SHORTENED))


def _cut(sentence: str, size: int) -> int:
    """Returns where a sentence without an end is cut: behind a clause, at a blank, or between two characters."""
    clauses = [match.end() for match in _CLAUSE.finditer(sentence, size // 2, size)]
    if clauses:
        at = clauses[-1]
    elif (blank := sentence.rfind(" ", size // 2, size)) > 0:
        at = blank
    else:
        at = size
        while at > size // 2 and _INSIDE.match(sentence[at - 1]) and _INSIDE.match(sentence[at]):
            at -= 1
        at = at if at > size // 2 else size
    while at < min(size, len(sentence)) and sentence[at].isspace():
        at += 1
    return at
