"""Book passages: a file or folder of .txt, .md, .epub and .pdf files (text PDFs), split on paragraph borders.

The subject of a passage is, in this order: `subject`, the front matter's key "subject" (Markdown), the first
sub-folder (`心理学/发展心理学/a.txt` read from `心理学` is 发展心理学), the book's title or Markdown's first heading,
the file's name. Files of other kinds, empty and unreadable ones, parts of a book that cannot be read, and running heads
of a PDF become rejects; hidden files are passed over.

    python -m launch.data recipe=psyche_r1 run=NAME passages=BOOKS dry_run=true
    python -m launch.data ... "passages={source: passages, path: BOOKS, options: {subject: 发展心理学, size: 600}}"
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from data_pipeline.encodings import check_encoding, lost_characters
from data_pipeline.errors import BadInput
from data_pipeline.records import Passage, Reject
from data_pipeline.texts import epub, pdf, plain
from data_pipeline.texts.splitting import SIZE, SMALLEST, split
from data_pipeline.texts.text import Text, Unreadable

KINDS = {
    ".txt": plain.read,
    ".md": plain.read_markdown,
    ".markdown": plain.read_markdown,
    ".epub": epub.read,
    ".pdf": pdf.read,
}


def read(path: str | Path, size: int = SIZE, subject: str = "", encoding: str = "") -> Iterator[Passage | Reject]:
    """Yields Passages, in path order; and Rejects of files and parts without a text.

    `size` is the most characters of a passage, 100 or more; ours. `subject` is that of all passages; "" finds each
    passage's own. `encoding` is that of texts and of the pages of EPUBs; "" finds it, of each file.

    Paragraphs are kept whole where they fit; a longer one is cut behind a sentence. `meta` holds where (file and
    number of the passage), file, and encoding and heading where known. Raises BadInput for a missing path, a
    folder without any file, and a size that cannot hold a sentence.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder (passages: {', '.join(KINDS)})")
    if not isinstance(size, int) or size < SMALLEST:
        raise BadInput(f"passages: size={size}; characters per passage, {SMALLEST} or more ({SIZE} is the default)")
    check_encoding(encoding, "passages: encoding")
    root = path if path.is_dir() else path.parent
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(root).parts)]
    if not files:
        raise BadInput(f"{path}: a folder without files (passages: {', '.join(KINDS)})")
    for file in files:
        name = file.relative_to(root).as_posix()
        id = f"passages/{name}"
        try:
            text = _open(file, encoding)
        except Unreadable as error:
            yield Reject(id, str(file), *error.fault)
            continue
        except OSError as error:
            yield Reject(id, str(file), "the file cannot be read", error.strerror or type(error).__name__)
            continue
        parts = file.relative_to(root).parts
        theme = subject or text.subject or (parts[0] if len(parts) > 1 else "") or text.title or file.stem
        yield from _passages(text, id, str(file), name, theme, size)
        yield from (Reject(id, str(file), *fault) for fault in text.left_out)


def _open(file: Path, encoding: str) -> Text:
    suffix = file.suffix.lower()
    if suffix not in KINDS:
        raise Unreadable("cannot read files of this kind", f"{suffix or 'no suffix'}; passages are {', '.join(KINDS)}")
    if not file.stat().st_size:
        raise Unreadable("the file is empty")
    return KINDS[suffix](file, encoding)


def _passages(text: Text, id: str, file: str, name: str, theme: str, size: int) -> Iterator[Passage | Reject]:
    number = 0
    for (_, heading), paragraphs in groupby(text.paragraphs, lambda paragraph: paragraph[:2]):
        for passage in split((paragraph.text for paragraph in paragraphs), size):
            number += 1
            where = f"{file} passage {number}"
            if fault := lost_characters(passage):
                yield Reject(f"{id}/{number}", where, *fault)
                continue
            meta = {"where": where, "file": name}
            meta |= {"encoding": text.encoding} if text.encoding else {}
            meta |= {"heading": heading} if heading else {}
            yield Passage(f"{id}/{number}", "passages", theme, passage, meta)
    if not number:
        yield Reject(id, file, "no text in the file")
