"""Book passages: a file or folder of .txt, .md, .epub and .pdf files (text PDFs), split on paragraph borders.

The subject of a passage is, in this order: `subject`, the front matter's key "subject" (Markdown), the first
sub-folder (`心理学/发展心理学/a.txt` read from `心理学` is 发展心理学), the first heading, the book's title, the file's
name. Files of other kinds, empty and unreadable ones become rejects; hidden files are passed over.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from data_pipeline.errors import BadInput
from data_pipeline.records import Passage, Reject

SIZE = 800  # characters of a passage at most (ours): one topic of a textbook, a few questions
SMALLEST = 100  # shorter passages are joined to the one before (ours)
SUFFIXES = (".txt", ".md", ".markdown", ".epub", ".pdf")
_ENDS = re.compile(r"(?<=[。！？；.!?;])\s*")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n(?:---|\.\.\.)\s*(?:\n|\Z)", re.S)


class _Unreadable(Exception):
    """Why a file gives no text; its arguments are code and detail of the file's Reject."""


def read(path: str | Path, size: int = SIZE, subject: str = "") -> Iterator[Passage | Reject]:
    """Yields Passages, and a Reject per file without readable text, in path order.

    `size` is the most characters of a passage, 100 or more; ours. `subject` is that of all passages; "" finds each
    passage's own.

    Paragraphs are kept whole where they fit; a longer one is cut behind a sentence. `meta` holds where (file and
    number of the passage), file, and encoding, heading or page where known. Raises BadInput for a missing path, a
    folder without any file, and a size that cannot hold a sentence.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder (passages: {', '.join(SUFFIXES)})")
    if not isinstance(size, int) or size < SMALLEST:
        raise BadInput(f"passages: size={size}; characters per passage, {SMALLEST} or more ({SIZE} is the default)")
    root = path if path.is_dir() else path.parent
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(root).parts)]
    if not files:
        raise BadInput(f"{path}: a folder without files (passages: {', '.join(SUFFIXES)})")
    for file in files:
        name = file.relative_to(root).as_posix()
        id = f"passages/{name}"
        try:
            sections, facts = _sections(file)
        except _Unreadable as error:
            yield Reject(id, str(file), *error.args)
            continue
        parts = file.relative_to(root).parts
        theme = subject or facts.pop("subject", "") or (parts[0] if len(parts) > 1 else "")
        theme = theme or facts.pop("title", "") or next((head for head, _ in sections if head), "") or file.stem
        facts = {key: facts[key] for key in ("encoding",) if key in facts}
        number = 0
        for heading, paragraphs in sections:
            for text in split(paragraphs, size):
                number += 1
                meta = {"where": f"{file} passage {number}", "file": name} | facts
                if heading:
                    meta["heading"] = heading
                yield Passage(f"{id}/{number}", "passages", theme, text, meta)
        if not number:
            yield Reject(id, str(file), "no text in the file")


def split(paragraphs: list[str], size: int = SIZE) -> list[str]:
    """Returns texts of at most `size` characters: whole paragraphs, one per line; longer ones cut behind a sentence."""
    pieces = []
    for paragraph in filter(None, map(str.strip, paragraphs)):
        pieces.append("")
        for sentence in _ENDS.split(paragraph) if len(paragraph) > size else [paragraph]:
            if pieces[-1] and len(pieces[-1]) + len(sentence) > size:
                pieces.append("")
            while len(pieces[-1]) + len(sentence) > size:  # a sentence without an end
                pieces[-1], sentence = sentence[:size], sentence[size:]
                pieces.append("")
            pieces[-1] += sentence
    texts = []
    for piece in filter(None, pieces):
        if texts and len(texts[-1]) + 1 + len(piece) <= size:
            texts[-1] += "\n" + piece
        else:
            texts.append(piece)
    if len(texts) > 1 and len(texts[-1]) < SMALLEST and len(texts[-2]) + len(texts[-1]) < size + SMALLEST:
        last = texts.pop()  # a passage too short to ask about; this one may exceed the size by that much
        texts[-1] += "\n" + last
    return texts


def _sections(file: Path) -> tuple[list[tuple[str, list[str]]], dict]:
    """Returns [(heading or "", paragraphs)] and what is known of the file: encoding, title, subject."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise _Unreadable(
            "cannot read files of this kind", f"{suffix or 'no suffix'}; passages are {', '.join(SUFFIXES)}"
        )
    if not file.stat().st_size:
        raise _Unreadable("the file is empty")
    if suffix == ".epub":
        return _epub(file)
    if suffix == ".pdf":
        return _pdf(file)
    text, facts = decode(file.read_bytes())
    if suffix == ".txt":
        return [("", _paragraphs(text))], facts
    return _markdown(text, facts)


def decode(content: bytes) -> tuple[str, dict]:
    """Returns (text, {"encoding": name}): UTF-8, UTF-16 with its mark, or what charset-normalizer finds, GBK first."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace"), {"encoding": "utf-16"}
    if b"\0" in content[:4096]:
        raise _Unreadable("a binary file, not a text")
    try:
        return content.decode("utf-8-sig"), {"encoding": "utf-8"}
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    found = from_bytes(content, cp_isolation=["gb18030", "big5"], threshold=0.3).best()
    if found is None:
        found = from_bytes(content).best()
    if found is None:
        raise _Unreadable("neither UTF-8 nor another known encoding", "a binary file? Else save it as UTF-8")
    return str(found), {"encoding": found.encoding}


def _paragraphs(text: str) -> list[str]:
    """Returns the paragraphs: parted by empty lines where there are some in most of the text, else the lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = re.split(r"\n\s*\n", text)
    if len(blocks) > 1 and max(map(len, blocks)) < 5 * SIZE and any("\n" in b.strip() for b in blocks):
        return [_join(block.split("\n")) for block in blocks]
    return text.split("\n")


def _join(lines: list[str]) -> str:
    """Returns wrapped lines as one; a blank goes between words of Latin letters alone."""
    text = ""
    for line in filter(None, map(str.strip, lines)):
        text += (" " if text and text[-1].isascii() and line[0].isascii() else "") + line
    return text


def _markdown(text: str, facts: dict) -> tuple[list, dict]:
    import yaml
    from markdown_it import MarkdownIt

    if front := _FRONT.match(text):
        text = text[front.end() :]
        try:
            values = yaml.safe_load(front[1])
        except yaml.YAMLError:
            values = None
        if isinstance(values, dict):
            facts |= {key: str(values[key]) for key in ("subject", "title") if values.get(key)}
    sections: list[tuple[str, list[str]]] = [("", [])]
    tokens = MarkdownIt().enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline":
            plain = "".join(
                "\n" if t.type.endswith("break") else t.content for t in token.children or () if t.type != "image"
            )
            plain = plain if "<" not in plain else re.sub(r"</?[a-zA-Z][^<>]*>", "", plain)
            if before is not None and before.type == "heading_open":
                sections.append((plain.strip(), []))
            else:
                sections[-1][1].append(_join(plain.split("\n")))
    return [(heading, paragraphs) for heading, paragraphs in sections if paragraphs or heading], facts


def _epub(file: Path) -> tuple[list, dict]:
    """Reads the chapters in the order of the book's spine (EPUB 2 and 3 are zip files of XHTML)."""
    from lxml import etree, html  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no stubs

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        with zipfile.ZipFile(file) as book:
            container = etree.fromstring(book.read("META-INF/container.xml"), parser)
            package = PurePosixPath(container.xpath("string(//*[local-name()='rootfile']/@full-path)"))
            root = etree.fromstring(book.read(str(package)), parser)
            title = root.xpath("string(//*[local-name()='title'])").strip()
            places = {i.get("id"): unquote(i.get("href", "")) for i in root.xpath("//*[local-name()='item']")}
            spine = [places.get(i.get("idref"), "") for i in root.xpath("//*[local-name()='itemref']")]
            pages = [book.read(str(package.parent / place)) for place in spine if place]
    except (zipfile.BadZipFile, KeyError, etree.LxmlError, ValueError, RuntimeError, NotImplementedError) as error:
        raise _Unreadable("not an EPUB that can be read", str(error)) from None
    sections: list[tuple[str, list[str]]] = []
    for page in pages:
        if not page.strip():
            continue
        sections.append(("", []))
        try:
            tree = html.fromstring(page, parser=html.HTMLParser(encoding="utf-8"))
        except etree.ParserError:  # a page of comments alone
            continue
        for node in tree.xpath("//h1|//h2|//h3|//p|//li[not(.//p)]|//blockquote[not(.//p)]|//td[not(.//p)]"):
            for note in node.xpath(".//rt|.//rp|.//script|.//style"):
                note.drop_tree()
            text = _join(node.text_content().split("\n"))
            if node.tag in ("h1", "h2", "h3") and text:
                sections.append((text, []))
            elif text:
                sections[-1][1].append(text)
    return [(heading, paragraphs) for heading, paragraphs in sections if paragraphs], {"title": title}


def _pdf(file: Path) -> tuple[list, dict]:
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _Unreadable("an encrypted PDF", "save it without a password")
        pages = [page.extract_text() or "" for page in reader.pages]
        title = str((reader.metadata or {}).get("/Title") or "").strip()
    except _Unreadable:
        raise
    except Exception as error:  # pypdf raises what broken files provoke, of any type
        raise _Unreadable("not a PDF that can be read", f"{type(error).__name__}: {str(error)[:120]}") from None
    if sum(len(page.strip()) for page in pages) < 10 * len(pages):
        detail = f"{len(pages)} pages; scanned? Recognise its text (OCR) first"
        raise _Unreadable("a PDF with hardly any text", detail)
    paragraphs: list[str] = []
    unfinished = False
    for line in "\n".join(pages).split("\n"):  # a paragraph ends with a line that ends a sentence, or an empty one
        line = line.strip()
        if not line or re.fullmatch(r"[-—·\s]*\d{1,4}[-—·\s]*", line):  # page numbers
            unfinished = unfinished and bool(line)
            continue
        if unfinished:
            paragraphs[-1] = _join([paragraphs[-1], line])
        else:
            paragraphs.append(line)
        unfinished = line[-1] not in "。！？.!?：:”）"
    return [("", paragraphs)], {"title": title}
