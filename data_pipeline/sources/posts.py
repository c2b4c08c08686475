"""Posts of people who sought help, with replies: any table (`data_pipeline/tables/rows.py`).

    columns: {title: 题目, text: 描述, replies: 答复}

A field that the recipe does not map stands in the column of its own name, or of a usual one (USUAL).
`replies` is one column that holds a text, a list of texts or a list of objects (whose `reply_text` is the text, best
first by `reply_score` where given), or a list of columns. A cell of a table may hold a list as
JSON or Python writes it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.encodings import lost_characters
from data_pipeline.records import Fault, Post, Reject
from data_pipeline.tables.columns import Fields
from data_pipeline.tables.options import as_python, short, text_of
from data_pipeline.tables.rows import Layout, as_json

USUAL = {
    "id": (),
    "title": ("标题",),
    "text": ("正文", "内容", "content", "body"),
    "replies": ("answers", "回答", "回复"),
}
FIELDS = Fields(USUAL, required=(("text",),), listed=("replies",))
_LIST = re.compile(
    r"\s*(?:\[\s*(?:[\[{'\"]|None\b|nan\b)|\{\s*['\"])"
)  # how one begins that Python or JSON has written
TEXT_KEYS = ("text", "content", "answer", "reply", "answer_text", "body")  # of a reply that is an object


def read(
    path: str | Path, columns: dict | None = None, encoding: str = "", sheet: str = "", split: str = ""
) -> Iterator[Post | Reject]:
    """Returns an iterator over the rows in order, a Post or Reject each; `meta["where"]` is file and row.

    A post needs a text (or a title); one without replies is a post. `columns` maps our fields to the file's, {text:
    正文}; null takes our names. `encoding` is that of a text file; "" finds it. `sheet` is that of a workbook; ""
    asks where there are several. `split` is the part of a data set that is read; "" asks where there are several.
    Raises BadInput for a field that there is not, now; and for what is no table, or lacks a mapped column, while it
    is read.
    """
    columns = dict(columns or {})
    of_replies = {key: str(columns.pop(key)) for key in ("reply_text", "reply_score") if key in columns}
    FIELDS.check(columns, "columns")
    return _posts(path, columns, of_replies, Layout(encoding, sheet, split, "options: {KEY: VALUE}"))


def _posts(path: str | Path, given: dict, of_replies: dict[str, str], layout: Layout) -> Iterator[Post | Reject]:
    option = f"posts={{source: posts, path: '{path}', options: {{columns: COLUMNS}}}}"
    for row, columns, _ in FIELDS.rows(path, layout, given, option):
        id = f"{row.table}/{row.number}"
        if isinstance(row.values, Fault):
            yield Reject(id, row.where, *row.values)
        else:
            yield _post(row.values, {**dict.fromkeys(USUAL), **columns, **of_replies}, id, row.where)


def _post(row: dict, mapping: dict, place: str, where: str) -> Post | Reject:
    texts = []
    for field in ("id", "title", "text"):
        text = text_of(row.get(mapping[field]))
        if isinstance(text, Fault):
            return Reject(place, where, f"a {field} that is no text", text.reason)
        if _LIST.match(text):
            detail = f"a list or object written as a text: {short(text)}"
            return Reject(place, where, f"a {field} that is no text", detail)
        texts.append(text.strip())
    id, title, body = texts[0] or place, *texts[1:]
    if not body and not title:
        return Reject(id, where, "no text")
    replies = _replies(row, mapping)
    if isinstance(replies, Fault):
        return Reject(id, where, *replies)
    if lost := lost_characters("\n".join((title, body, *replies))):
        return Reject(id, where, *lost)
    return Post(id, "posts", title, body or title, replies, {"where": where})


def _replies(row: dict, mapping: dict) -> list[str] | Fault:
    """Returns the texts of the replies, best first, or the Fault for which the column cannot be read."""
    column = mapping["replies"]
    value = [row.get(name) for name in column] if isinstance(column, list) else row.get(column)
    if isinstance(value, str) or isinstance(column, list):
        cells = [_cell(part) for part in (value if isinstance(value, list) else [value])]
        if fault := next((cell for cell in cells if isinstance(cell, Fault)), None):
            return Fault(fault.code, f"{fault.detail}, column {column}")
        value = [reply for cell in cells for reply in (cell if isinstance(cell, list) else [cell])]
    if text_of(value) == "":
        return []
    if isinstance(value, Fault):
        return value
    if not isinstance(value, list):
        return Fault("neither a text nor a list of replies", f"column {column} is {type(value).__name__}")
    if score := mapping.get("reply_score"):
        try:
            value = sorted(value, key=lambda reply: -float((isinstance(reply, dict) and reply.get(score)) or 0))
        except (TypeError, ValueError) as error:
            return Fault("a score of a reply is no number", f"{score} in {column}: {error}")
    texts = []
    for place, reply in enumerate(value, 1):
        if isinstance(reply, dict):
            keys = [mapping["reply_text"]] if "reply_text" in mapping else TEXT_KEYS
            there = [reply[key] for key in keys if isinstance(reply.get(key), str) and reply[key].strip()]
            if len(there) > 1:
                found = " and ".join(key for key in keys if reply.get(key) in there)
                return Fault("a reply with several texts", f"reply {place} of {column}: {found}; map reply_text to one")
            if not there and not any(key in reply for key in keys):
                detail = f"reply {place} of {column} has none under {' or '.join(keys)} (it has {', '.join(reply)})"
                return Fault("a reply without a text", detail)
            reply = there[0] if there else next(reply[key] for key in keys if key in reply)
        text = text_of(reply)
        if isinstance(text, Fault):
            return Fault("a reply that is no text", text.reason)
        if _LIST.match(text):
            return Fault("a reply that is no text", f"a list or object written as a text: {short(text)}")
        texts.append(text.strip())
    return list(filter(None, texts))


def _cell(cell: object) -> object:
    """Returns what a cell of a table holds: the list or object that it writes as JSON or Python does, or the cell; the
    Fault of one that writes a list which cannot be read whole.
    """
    if not isinstance(cell, str) or not _LIST.match(cell):
        return as_json(cell)
    value = as_json(cell)
    value = as_python(value) if isinstance(value, str) else value
    if isinstance(value, str):
        return Fault("a list in a cell that cannot be read", f"{short(cell)}; write it as JSON")
    return value
