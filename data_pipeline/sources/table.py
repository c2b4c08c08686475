"""People's own questions: CSV, JSONL or Parquet files, or a Hugging Face data set.

The recipe maps our fields to columns; unmapped fields keep the names below:

    columns: {stem: 题目, options: [选项A, 选项B, 选项C, 选项D], answer: 答案, rationale: 解析, kind: 题型}

`options` is one column that holds a list or a {letter: text} object, or a list of columns, one per letter. Without a
`kind` column a question is multi-answer when its key has several letters. Values of `kind` are those of KIND_WORDS.
"""

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import cast

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Fault, Question, Reject, check_question, read_jsonl

COLUMNS = {
    "id": "id",
    "subject": "subject",
    "kind": "kind",
    "context": "context",
    "stem": "stem",
    "options": "options",
    "answer": "answer",
    "rationale": "rationale",
}
REQUIRED = ("stem", "options", "answer")
KIND_WORDS = {
    "single": "single", "单选": "single", "单选题": "single", "单项选择题": "single",
    "multi": "multi", "multiple": "multi", "多选": "multi", "多选题": "multi", "多项选择题": "multi",
}  # fmt: skip


def read(path: str | Path, columns: dict | None = None, split: str = "train") -> Iterator[Question | Reject]:
    """Yields a Question or Reject for every row, in order.

    `path` is a .csv, .jsonl or .parquet file, a folder saved by `datasets`, or the name of a data set on the hub.
    `columns` maps our fields to the table's columns, {stem: 题目}; null takes our names. `split` is the part of a data
    set that is read, not of a file. Raises BadInput for a missing file, an unknown suffix, an unmapped field name, a
    mapped column that the table lacks (naming those it has), and broken rows (with their number).
    """
    if unknown := sorted(set(columns or {}) - set(COLUMNS)):
        raise BadInput(f"columns: unknown field {unknown[0]!r}; the fields are {', '.join(COLUMNS)}")
    mapping = {**COLUMNS, **(columns or {})}
    checked = False
    for number, row in rows_of(str(path), split):
        if not checked:
            check_columns(path, row, mapping, set(columns or {}), REQUIRED)
            checked = True
        yield _question(row, mapping, Path(path).stem, number, f"{path} row {number}")


def rows_of(path: str, split: str) -> Iterator[tuple[int, dict]]:
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        yield from read_jsonl(file)
        return
    if suffix in (".csv", ".parquet"):
        if not file.is_file():
            raise BadInput(f"{file}: no such file")
        rows = csv_rows(file) if suffix == ".csv" else _parquet(file)
    elif file.is_dir() or (not file.exists() and suffix == "" and not path.startswith((".", "/"))):
        rows = _hugging_face(path, split)
    else:
        found = "no such file or data set" if not file.exists() else f"cannot read {suffix or 'a file without suffix'}"
        raise BadInput(f"{path}: {found}; a table is a .csv, .jsonl or .parquet file, or a Hugging Face data set")
    yield from enumerate(rows, 1)


def csv_rows(file: Path) -> list[dict]:
    import pandas

    try:  # every cell as text: pandas would read the key "1" as a number and "NA" as missing
        return pandas.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig").to_dict("records")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 (byte {error.start}); save the table as UTF-8") from None
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise BadInput(f"{file}: not a CSV table: {error}") from None


def _parquet(file: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowException as error:
        raise BadInput(f"{file}: not a Parquet file: {error}") from None


def _hugging_face(name: str, split: str) -> Iterator[dict]:
    import datasets

    try:
        if Path(name, "dataset_dict.json").exists() or Path(name, "state.json").exists():
            loaded = datasets.load_from_disk(name)
            rows = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            rows = datasets.load_dataset(name, split=split)
        return iter(cast(Iterable[dict], rows))
    except Exception as error:  # the hub client raises a dozen types; the message is what helps
        raise BadInput(f"{name}: not a data set that could be loaded (split {split!r}): {str(error)[:300]}") from None


def check_columns(path: str | Path, row: dict, mapping: dict, named: Container[str], required: Container[str]) -> None:
    """Raises BadInput for a column that the row lacks, of a field that is required or that the recipe names."""
    for field in mapping:
        if field not in required and field not in named:
            continue
        for column in mapping[field] if isinstance(mapping[field], list) else [mapping[field]]:
            if column not in row:
                raise BadInput(
                    f"{path}: no column {column!r} for {field}; the columns are {', '.join(map(str, row))}. "
                    f"Map it in the recipe, e.g. columns={{{field}: {next(iter(row), 'COLUMN')}}}"
                )


def _options(row: dict, column: str | list[str]) -> dict[str, str] | None:
    """Returns {letter: text}, or None where the cell holds neither a list nor an object."""
    value = {LETTERS[i]: row.get(name) for i, name in enumerate(column)} if isinstance(column, list) else row[column]
    if isinstance(value, str):  # a CSV cell
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, list):
        value = dict(zip(LETTERS, value, strict=False)) if len(value) <= len(LETTERS) else None
    if not isinstance(value, dict):
        return None
    return {str(letter): "" if text is None else str(text) for letter, text in value.items()}


def _question(row: dict, mapping: dict, table: str, number: int, where: str) -> Question | Reject:
    def text(field: str) -> str:
        value = row.get(mapping[field])
        return "" if value is None else str(value).strip()

    id = text("id") or f"{table}/{number}"
    options = _options(row, mapping["options"])
    if options is None:
        return Reject(
            id, where, "options that are neither a list nor an object of letters and texts", mapping["options"]
        )
    key = text("answer")
    word = text("kind")
    kind = KIND_WORDS.get(word) if word else ("multi" if len(set(key) & set(LETTERS)) > 1 else "single")
    if kind is None:
        return Reject(
            id, where, "a kind that is not known", f"{mapping['kind']} is {word!r}; known are {', '.join(KIND_WORDS)}"
        )
    checked = check_question(kind, text("stem"), options, key)
    if isinstance(checked, Fault):
        return Reject(id, where, *checked)
    texts, answer = checked
    return Question(
        id=id,
        source="table",
        subject=text("subject"),
        kind=kind,
        context=text("context"),
        stem=text("stem"),
        options=texts,
        answer=answer,
        rationale=text("rationale"),
        meta={"where": where},
    )
