"""In which encoding people's files stand. Whoever reads a text or a table of theirs asks here."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

MARKS = {  # first bytes, the longest first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
SAMPLE = 2000  # lines that are looked at to tell GB18030 from Big5 and others; ours
COMMON = 0.85  # share of a Chinese text's characters that stand among the few thousand common ones; ours


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
