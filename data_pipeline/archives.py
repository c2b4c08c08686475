"""Zip files that people bring (EPUB, workbooks, data sets), opened with limits: a small one may hold gigabytes."""

import zipfile
from pathlib import Path

MEMBERS = 20_000  # files in one; ours
UNPACKED = 2_000_000_000  # bytes of all of them: more does not fit into memory; ours
RATIO = 100  # unpacked to packed; texts have 3, tables up to 40. Ours
UNSUSPECTED = 4 << 20  # bytes unpacked, below which the ratio says nothing


def open_zip(path: Path) -> zipfile.ZipFile:
    """Returns the opened zip file; raises BadZipFile, as zipfile does, for none and for one that would fill memory."""
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    packed = min(sum(entry.compress_size for entry in entries), Path(path).stat().st_size)
    told = ""
    if len(entries) > MEMBERS:
        told = f"{len(entries)} files in it, and {MEMBERS} are read at most"
    elif unpacked > UNPACKED:
        told = f"{unpacked / 1e9:.1f} GB unpacked, and {UNPACKED / 1e9:g} are read at most"
    elif unpacked > max(UNSUSPECTED, RATIO * packed):
        told = f"{unpacked / 1e6:.0f} MB unpacked out of {packed / 1e6:.2f}, as no text or table is"
    if told:
        archive.close()
        raise zipfile.BadZipFile(told)
    return archive


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes | None:
    """Returns a file of the archive, None for one of more than `most` bytes, of which no more is unpacked."""
    with archive.open(name) as member:
        content = member.read(most + 1)
    return content if len(content) <= most else None
