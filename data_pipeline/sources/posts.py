"""Posts of people who sought help, with replies: JSONL, JSON or CSV files.

The recipe maps our fields to columns; unmapped fields keep the names below:

    columns: {title: 标题, text: 正文, replies: 回答}

`replies` is one column that holds a text, a list of texts or a list of objects (whose `reply_text` is the text, best
first by `reply_score` where given), or a list of columns. A CSV cell may hold a JSON list.
"""

from collections.abc import Iterator
from pathlib import Path

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.records import Fault, Post, Reject, parse_json, read_jsonl
from data_pipeline.sources.table import check_columns, csv_rows

COLUMNS = {"id": "id", "title": "title", "text": "text", "replies": "replies"}
REQUIRED = ("text",)
TEXT_KEYS = ("text", "content", "answer", "reply", "answer_text", "body")  # of a reply that is an object


def read(path: str | Path, columns: dict | None = None) -> Iterator[Post | Reject]:
    """Yields a Post or Reject for every row, in order; `meta["where"]` is file and row.

    `columns` maps our fields to the file's, {text: 正文}; null takes our names. A post needs
    a text (or a title); one without replies is a post. Raises BadInput for a missing file, an unknown suffix, broken
    rows (with their number), an unmapped field name, and a mapped column that the file lacks.
    """
    path, columns = Path(path), dict(columns or {})
    if unknown := sorted(set(columns) - set(COLUMNS) - {"reply_text", "reply_score"}):
        known = ", ".join([*COLUMNS, "reply_text", "reply_score"])
        raise BadInput(f"columns: unknown field {unknown[0]!r}; the fields are {known}")
    mapping = {**COLUMNS, **columns}
    checked = False
    for number, row in _rows(path):
        where = f"{path} row {number}"
        if not isinstance(row, dict):
            yield Reject(f"{path.stem}/{number}", where, "not an object", type(row).__name__)
            continue
        if not checked:
            check_columns(path, row, {field: mapping[field] for field in COLUMNS}, columns, REQUIRED)
            checked = True
        yield _post(row, mapping, path.stem, number, where)


def _rows(path: Path) -> Iterator[tuple[int, object]]:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json", ".csv"):
        raise BadInput(f"{path}: cannot read {suffix or 'a file without suffix'}; posts are .jsonl, .json or .csv")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if suffix == ".jsonl":
        yield from read_jsonl(path)
    elif suffix == ".json":
        rows = parse_json(path, path.read_bytes())
        if not isinstance(rows, list):
            raise BadInput(f"{path}: expected a list of posts, found {type(rows).__name__}")
        yield from enumerate(rows, 1)
    else:
        yield from enumerate(csv_rows(path), 1)


def _post(row: dict, mapping: dict, name: str, number: int, where: str) -> Post | Reject:
    def text(field: str) -> str:
        value = row.get(mapping[field])
        return "" if value is None else str(value).strip()

    id = text("id") or f"{name}/{number}"
    body, title = text("text"), text("title")
    if not body and not title:
        return Reject(id, where, "no text")
    replies = _replies(row, mapping)
    if isinstance(replies, Fault):
        return Reject(id, where, *replies)
    return Post(id, "posts", title, body or title, replies, {"where": where})


def _replies(row: dict, mapping: dict) -> list[str] | Fault:
    """Returns the texts of the replies, best first, or the Fault for which the column cannot be read."""
    column = mapping["replies"]
    value = [row.get(name) for name in column] if isinstance(column, list) else row.get(column)
    if isinstance(value, str):
        if value.lstrip().startswith(("[", "{")):  # a CSV cell
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                pass
        value = value if isinstance(value, list) else [value]
    if value is None:
        return []
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
            found = next((reply[key] for key in keys if isinstance(reply.get(key), str)), None)
            if found is None:
                detail = f"reply {place} of {column} has none under {' or '.join(keys)} (it has {', '.join(reply)})"
                return Fault("a reply without a text", detail)
            reply = found
        if reply is not None and str(reply).strip():
            texts.append(str(reply).strip())
    return texts
