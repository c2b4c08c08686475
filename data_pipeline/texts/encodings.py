"""In which encoding a text stands; a text that stands in several, or in none that is known, is no text."""

import codecs

from data_pipeline.texts.text import Unreadable

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
}  # what files hold that say so
_TELLING = 12  # bytes beyond ASCII of a line that are UTF-8 by no chance


def decode(content: bytes, declared: str = "") -> tuple[str, str]:
    """Returns (text, name of its encoding): by its mark, UTF-8, what the file `declared`, or what it looks like.

    Nothing is replaced: the text has each character that stands in `content`. Raises Unreadable for a binary file, an
    encoding that is not known, and several encodings in one file, with the line where the second begins.
    """
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return _strictly(content, name).removeprefix("\ufeff"), name
    if b"\0" in content:
        raise Unreadable("a binary file, not a text")
    declared = _codec(declared)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if not _by_chance(text, content, declared):
            return text, "utf-8"
    _one_encoding(content)
    if declared and declared != "utf-8":
        try:
            return content.decode(declared), declared
        except UnicodeDecodeError:
            pass  # a wrong declaration: it is found as without one
    from charset_normalizer import from_bytes

    best = from_bytes(content, cp_isolation=["gb18030", "big5"], threshold=0.3).best() or from_bytes(content).best()
    if best is None:
        raise Unreadable("neither UTF-8 nor another known encoding", "a binary file? Else save it as UTF-8")
    return str(best), best.encoding


def _codec(declared: str) -> str:
    """Returns Python's name of an encoding, of the wider one where files hold more than they say, "" for none."""
    try:
        name = codecs.lookup(declared.strip()).name
    except LookupError:
        return ""
    return _WIDER.get(name, name)


def _strictly(content: bytes, name: str) -> str:
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        raise Unreadable(f"broken {name.upper()}", f"byte {error.start}: {error.reason}; save it as UTF-8") from None


def _by_chance(text: str, content: bytes, declared: str) -> bool:
    """Whether a few bytes of the declared Chinese encoding are UTF-8 as well: 联通 in GBK."""
    if not declared.startswith(("gb", "big5")) or len(text) == len(content) or any(char >= "\u0800" for char in text):
        return False
    try:
        return any("\u4e00" <= char <= "\u9fff" for char in content.decode(declared))
    except UnicodeDecodeError:
        return False


def _one_encoding(content: bytes) -> None:
    """Raises Unreadable for bytes of which some lines are UTF-8 and some are not."""
    utf8 = other = 0  # numbers of the first lines
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            other = other or number
        else:
            if len(line.translate(None, bytes(range(128)))) >= _TELLING:
                utf8 = utf8 or number
    if utf8 and other:
        raise Unreadable(
            "several encodings in one file", f"line {utf8} is UTF-8, line {other} is not; save all of it as UTF-8"
        )
