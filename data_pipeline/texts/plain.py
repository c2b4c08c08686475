"""The text of .txt and Markdown files."""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.safety.safe_yaml import load_yaml
from data_pipeline.texts import hypertext
from data_pipeline.texts.splitting import SIZE
from data_pipeline.texts.text import Paragraph, Text, decoded, join_lines, under_headings

_FRONT = re.compile(r"\A---\s*\n(.*?)\n(?:---|\.\.\.)\s*(?:\n|\Z)", re.S)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def read(file: Path, encoding: str = "") -> Text:
    """Returns the paragraphs of a text: parted by empty lines where there are some in most of it, else the lines.

    `encoding` is the file's; "" finds it. Raises Unreadable for what is not a text of one encoding.
    """
    text, encoding = decoded(file.read_bytes(), encoding)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    parts, blocks = text.split("\n"), re.split(r"\n\s*\n", text)
    if len(blocks) > 1 and max(map(len, blocks)) < 5 * SIZE and any("\n" in b.strip() for b in blocks):
        parts = [join_lines(block.split("\n")) for block in blocks]
    return Text((Paragraph(0, "", part) for part in parts), encoding=encoding)


def read_markdown(file: Path, encoding: str = "") -> Text:
    """Returns the text without its marks; subject and title of the front matter, or else the first heading's.

    `encoding` is the file's; "" finds it. Raises Unreadable for what is not a text of one encoding.
    """
    text, encoding = decoded(file.read_bytes(), encoding)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    values = None
    if front := _FRONT.match(text):
        text = text[front.end() :]
        try:
            values = load_yaml(front[1], file)
        except BadInput:  # no front matter, then, but a text between lines
            pass
    values = values if isinstance(values, dict) else {}
    parts = list(_markdown(text))
    title = values.get("title") or next((part for is_heading, part in parts if is_heading), "")
    subject = values.get("subject") or ""
    return Text(under_headings(parts), title=str(title), subject=str(subject), encoding=encoding)


def _markdown(text: str) -> Iterator[tuple[bool, str]]:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt().enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "html_block":
            yield from hypertext.paragraphs(token.content)
        elif token.type in ("fence", "code_block"):
            yield from ((False, line) for line in token.content.split("\n") if line.strip())
        elif token.type == "inline":
            children = (t for t in token.children or () if t.type != "image")
            plain = "".join("\n" if t.type.endswith("break") else t.content for t in children)
            plain = join_lines((_TAG.sub("", plain) if "<" in plain else plain).split("\n"))
            if plain:
                yield before is not None and before.type == "heading_open", plain
