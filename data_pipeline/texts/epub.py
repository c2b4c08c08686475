"""The text of an EPUB, versions 2 and 3: a zip file of XHTML pages, in the order of its spine."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from data_pipeline.archives import open_zip, read_member
from data_pipeline.records import Fault
from data_pipeline.texts import hypertext
from data_pipeline.texts.text import Paragraph, Text, Unreadable, decoded, under_headings

LARGEST = 32 << 20  # bytes of a page, unpacked, that are held at once; ours
_DECLARED = re.compile(rb"""(?i)(?:encoding\s*=\s*["']|charset\s*=\s*["']?)([a-z0-9_:.-]+)""")
_BROKEN = (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, NotImplementedError, EOFError, OSError)


def read(file: Path, encoding: str = "") -> Text:
    """Returns the book's text, its pages read one after the other as they are taken; a page that cannot be read is
    told in `left_out`. `encoding` is that of all pages; "" takes what each declares, or finds it. Raises Unreadable for
    a file that is no EPUB.
    """
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no stubs

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        with open_zip(file) as book:
            container = etree.fromstring(_bytes(book, "META-INF/container.xml"), parser)
            package = PurePosixPath(container.xpath("string(//*[local-name()='rootfile']/@full-path)"))
            root = etree.fromstring(_bytes(book, str(package)), parser)
            title = root.xpath("string(//*[local-name()='title'])").strip()
            places = {i.get("id"): unquote(i.get("href", "")) for i in root.xpath("//*[local-name()='item']")}
            spine = [places.get(i.get("idref"), "") for i in root.xpath("//*[local-name()='itemref']")]
    except (*_BROKEN, AttributeError, etree.LxmlError) as error:  # AttributeError: nothing in it was XML
        raise Unreadable("not an EPUB that can be read", str(error)) from None
    pages = list(dict.fromkeys(str(package.parent / place.partition("#")[0]) for place in spine if place))
    text = Text(iter(()), title=title)
    text.paragraphs = _paragraphs(file, pages, text, encoding)
    return text


def _paragraphs(file: Path, pages: list[str], text: Text, given: str) -> Iterator[Paragraph]:
    section = 0
    with open_zip(file) as book:
        for page in pages:
            try:
                content = _bytes(book, page)
                declared = _DECLARED.search(content[:2000])
                plain, encoding = decoded(content, given, declared[1].decode() if declared else "")
            except Unreadable as error:
                text.left_out.append(Fault(error.fault.code, f"{page}: {error.fault.detail}".removesuffix(": ")))
                continue
            except _BROKEN as error:
                text.left_out.append(Fault("a page of the book cannot be read", f"{page}: {error}"))
                continue
            text.encoding = text.encoding or encoding
            section += 1
            for paragraph in under_headings(hypertext.paragraphs(plain), section):
                section = paragraph.section
                yield paragraph


def _bytes(book: zipfile.ZipFile, name: str) -> bytes:
    """Returns a member of the zip file; raises Unreadable for one that is larger than LARGEST."""
    content = read_member(book, name, LARGEST)
    if content is None:
        raise Unreadable("a page of the book is too large", f"above {LARGEST >> 20} MiB; split it")
    return content
