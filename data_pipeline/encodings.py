"""In which encoding people's files stand. Whoever reads a text or a table of theirs asks here."""

import codecs
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.records import BROKEN_JSON, Fault, json_or_fault

MARKS = {  # first bytes, the longest first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
SAMPLE = 2000  # lines that are looked at to tell GB18030 from Big5 and others; ours
COMMON = 0.85  # share of a Chinese text's characters that stand among the few thousand common ones; ours
GARBLED = 0.12  # share of suspect characters, of which texts have hardly any and garbled ones a third; ours
NULS = 0.01  # share of a text's bytes that may be NUL; ours
PIECE = 1 << 20  # bytes that are looked at together
_TELLING = 12  # bytes beyond ASCII of a line that are UTF-8 by no chance; ours
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}  # what such files hold


def find_encoding(lines: Iterable[bytes]) -> str | None:
    """Returns the encoding of a file, given as its lines (bytes up to and with b"\\n"); None for what is no text.

    By its byte order mark; else UTF-8 when most lines that are not ASCII are valid in it; else GB18030 or Big5 when
    nearly all characters are common ones there; else Windows-1252 for a text of Latin letters; else what
    charset-normalizer finds. Single lines may stand in another
    encoding all the same: decode strictly, or with errors="surrogateescape" and ask `other_encoding`.
    """
    lines = iter(lines)
    first = next(lines, b"")
    for mark, name in MARKS.items():
        if first.startswith(mark):
            return name
    valid, invalid, sample = 0, 0, []
    for line in chain([first], lines):
        if b"\0" in line:
            return None
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            valid += 1
        except UnicodeDecodeError:
            invalid += 1
            if invalid <= SAMPLE:
                sample.append(line)
    return "utf-8" if valid >= invalid else older_encoding(b"".join(sample))


def is_utf8(file: Path) -> bool:
    """Returns whether the whole file is UTF-8: then none of its lines need be asked. Of a text a program may have left
    single NULs, of UTF-16 without its mark they are many.
    """
    decoder, size, nuls = codecs.getincrementaldecoder("utf-8")(), 0, 0
    with file.open("rb") as opened, suppress(UnicodeDecodeError):
        while piece := opened.read(PIECE):
            decoder.decode(piece)
            size, nuls = size + len(piece), nuls + piece.count(0)
        decoder.decode(b"", final=True)
        return nuls <= NULS * size
    return False


def check_encoding(name: str, key: str) -> str:
    """Returns the name; raises BadInput, opening with `key`, for one that is no encoding of texts."""
    try:
        "".encode(name or "utf-8")
    except (LookupError, UnicodeError):
        raise BadInput(f"{key}={name}: no such encoding, such as utf-8, gb18030, big5") from None
    return name


def _of_utf8() -> str:
    """Returns the ideographs as which the first bytes of UTF-8's ideographs are read in GB18030: 涓 of 中."""
    pairs = (bytes((lead, second)) for lead in range(0xE4, 0xEA) for second in range(0x80, 0xC0))
    return "".join(char for pair in pairs if "\u4e00" <= (char := pair.decode("gb18030", "ignore")[:1]) <= "\u9fff")


_SUSPECT = re.compile(f"[{_of_utf8()}]")
_HIGH = "\x80-ÿ€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_WESTERN = re.compile(rf"[À-ÖØ-öø-ÿ][\x80-ÿ]{{5,}}|(?:[ä-é][{_HIGH}]{{2}}){{2,}}")
_MAYBE = re.compile(f"{_SUSPECT.pattern[:-1]}\x80-ÿ]")


# A text without one of these, the inside of a character class, is one of which `lost_characters` finds nothing.
MAYBE_LOST = f"{_MAYBE.pattern[1:-1]}\ufffd锟"


def lost_characters(text: str) -> Fault | None:
    """Returns the Fault of a text of which an earlier conversion has lost characters, or which it has read in another
    encoding than it stands in; None for any other.
    """
    for mark in ("\ufffd", "锟斤拷"):
        if (at := text.find(mark)) >= 0:
            number = text.count(mark)
            return Fault(
                "characters of the text are lost", f"{number} x {mark} near {text[max(0, at - 10) : at + 10]!r}"
            )
    if (first := _MAYBE.search(text)) is None:
        return None
    suspects = _SUSPECT.findall(text)
    if _WESTERN.search(text) or (len(suspects) > 2 and len(suspects) > GARBLED * len(text)):
        return Fault("a text that was read in another encoding", f"near {text[first.start() : first.start() + 20]!r}")
    return None


def read_text(file: Path, encoding: str = "") -> str | Fault:
    """Returns the text of a file as `decode` does."""
    text = decode(file.read_bytes(), encoding)
    return text if isinstance(text, Fault) else text[0]


def whole_json(content: bytes) -> Any:
    """Returns the JSON value of what others have written, or the Fault of what is no JSON.

    An object in which a key stands twice, of whose values a parser keeps the last without a word, is a Fault, and so is
    one that holds such an object; in a list each stands for itself.
    """
    value = json_or_fault(content)
    if isinstance(value, Fault) or _each_once(content, value):
        return value
    try:
        told = json.loads(content, object_pairs_hook=_object)
    except RecursionError:
        return Fault(BROKEN_JSON, "nested too deeply")
    return told if _fault_in(told) else value


def _object(pairs: list[tuple[str, Any]]) -> dict | Fault:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        return Fault("a key stands twice in one object", next(key for key in keys if keys.count(key) > 1))
    return next((fault for value in made.values() if (fault := _fault_in(value))), made)


def _fault_in(value: Any) -> Fault | None:
    if isinstance(value, list):
        return next((fault for one in value if (fault := _fault_in(one))), None)
    return value if isinstance(value, Fault) else None


def _each_once(content: bytes, value: object) -> bool:
    """Returns whether the value, written again, has as many colons as it came with: then no pair of it is lost. Of
    colons that are spelled out, and of what is nested too deeply to be written, this tells nothing.
    """
    if b"\\" in content and b"\\u003" in content:
        return False
    with suppress(orjson.JSONEncodeError):
        items = value if isinstance(value, list) else [value]  # one at a time: a file may be one list
        return content.count(b":") == sum(orjson.dumps(item).count(b":") for item in items)
    return False


def decode_json(content: bytes, encoding: str = "") -> object | Fault:
    """Returns the JSON value of a file's content, or the Fault of its encoding or of what is no JSON."""
    if not encoding and not isinstance(value := whole_json(content), Fault):  # UTF-8, or it would be none
        return value
    text = decode(content, encoding)
    return text if isinstance(text, Fault) else whole_json(text[0].encode("utf-8", "surrogatepass"))


def parse_json(where: object, content: bytes) -> Any:
    """Returns as `decode_json`; raises BadInput, with `where`, in place of a Fault."""
    text = decode(content)
    if isinstance(text, Fault):
        raise BadInput(f"{where}: {text.reason}")
    value = whole_json(text[0].encode("utf-8", "surrogatepass"))
    if isinstance(value, Fault):
        raise BadInput(f"{where}: {value.code} at {value.detail}")
    return value


def decode(content: bytes, encoding: str = "", declared: str = "") -> tuple[str, str] | Fault:
    """Returns (text, name of its encoding): in `encoding` if it is given; else by its mark, UTF-8, what the file
    `declared` itself, or what it looks like.

    Nothing is replaced: the text has each character that stands in `content`. A Fault is a binary file, an encoding
    that is not known, and several encodings in one file, with the line where the second begins.
    """
    if encoding:
        return _strictly(content, _codec(encoding))
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return _strictly(content, name)
    if b"\0" in content:
        return Fault("a binary file, not a text")
    declared = _codec(declared)
    with suppress(UnicodeDecodeError):
        text = content.decode("utf-8")
        if not _by_chance(text, content, declared):
            return text, "utf-8"
    lines = content.splitlines(keepends=True)
    if fault := _several(lines):
        return fault
    if declared and declared != "utf-8":
        with suppress(UnicodeDecodeError):  # a wrong declaration: it is found as without one
            return content.decode(declared), declared
    found = older_encoding(content)
    if found is None:
        return Fault("neither UTF-8 nor another known encoding", "a binary file? Else say encoding=NAME")
    return _strictly(content, found)


def _strictly(content: bytes, name: str) -> tuple[str, str] | Fault:
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Fault(f"broken {name.upper()}", f"line {line}, byte {error.start}: {error.reason}; save it as UTF-8")
    return text.removeprefix("\ufeff"), name.removesuffix("-sig")


def _codec(declared: str) -> str:
    """Returns Python's name of an encoding, of the wider one where files hold more than they say, "" for none."""
    try:
        name = codecs.lookup(declared.strip()).name
    except LookupError:
        return ""
    return _WIDER.get(name, name)


def _by_chance(text: str, content: bytes, declared: str) -> bool:
    """Whether a few bytes of the declared Chinese encoding are UTF-8 as well: 联通 in GBK."""
    if not declared.startswith(("gb", "big5")) or len(text) == len(content) or any(char >= "\u0800" for char in text):
        return False
    try:
        return any("\u4e00" <= char <= "\u9fff" for char in content.decode(declared))
    except UnicodeDecodeError:
        return False


def _several(lines: list[bytes]) -> Fault | None:
    """Returns the Fault of lines of which some are UTF-8 and some are not."""
    utf8 = other = 0  # numbers of the first lines
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            other = other or number
        else:
            if len(line.translate(None, bytes(range(128)))) >= _TELLING:
                utf8 = utf8 or number
    if not utf8 or not other:
        return None
    told = f"line {utf8} is UTF-8, line {other} is not; save all of it as UTF-8"
    return Fault("several encodings in one file", told)


def other_encoding(text: str, encoding: str) -> str:
    """Returns "" for a text that stood wholly in `encoding`, from which it was decoded with errors="surrogateescape";
    else what it says when it is read as what it seems to be.

    In a file of an older encoding a line of UTF-8 is often decoded into other characters; its bytes tell it.
    """
    if text.isascii():
        return ""
    try:
        text.encode("utf-8")
        if encoding.startswith("utf"):
            return ""
    except UnicodeEncodeError:
        pass
    if encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32")):
        return text.encode("utf-8", "replace").decode()
    content = text.encode(encoding, "surrogateescape")
    try:
        other = content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            content.decode(encoding)
            return ""
        except UnicodeDecodeError:
            return content.decode("gb18030" if encoding.startswith("utf") else "utf-8", "replace")
    return other if sum(not char.isascii() for char in other) > 2 else ""  # 摹模 in GBK is UTF-8 by chance


def older_encoding(content: bytes) -> str | None:
    """Returns the encoding of bytes that are not UTF-8, None for what is no text."""
    for name, leads, trail in (("gb18030", range(0xB0, 0xD8), 0xA1), ("big5", range(0xA4, 0xC7), 0x40)):
        common = characters = at = 0
        while at < len(content):
            if content[at] < 0x80:
                at += 1
                continue
            lead, second = content[at], content[at + 1] if at + 1 < len(content) else 0
            characters += 1
            common += second >= trail and (lead in leads or 0xA1 <= lead <= 0xA3)  # A1 to A3: punctuation
            at += 2
        if common >= COMMON * characters:
            return name
    western = sum(byte >= 0x80 for byte in content) < 0.2 * len(content)
    with suppress(UnicodeDecodeError):
        if western and content.decode("cp1252"):
            return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    return best.encoding if best else None
