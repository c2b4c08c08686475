"""Rows of any table that people have. What a file is stands in its content; its suffix says nothing.

CSV and TSV with any usual separator, xlsx, xls and ods, a JSON list, JSONL, Parquet, a folder of such files, a folder
saved by `datasets`, or the name of a data set on the hub.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import orjson

from data_pipeline import archives
from data_pipeline.encodings import check_encoding, find_encoding, is_utf8, other_encoding, whole_json
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import BROKEN_JSON, Fault, json_or_fault
from data_pipeline.tables.delimited import SEPARATORS, Fits, delimited_rows

_SPLIT = re.compile(r"(?:^|[-_./])(train|validation|valid|val|dev|test)(?=[-_./])")
BATCH = 10_000  # rows of Parquet that are held at once; ours
MOST_BATCH = 64 << 20  # bytes of such a batch; ours
MOST_ROWS = 100  # of Parquet for each byte; ours
SMALL = 16 << 20  # bytes of a Parquet file that is read with care; ours
LARGEST = 500_000_000  # bytes of a file that is no Parquet; ours


@dataclass(frozen=True)
class Layout:
    """How to read a table, as far as its content leaves it open."""

    encoding: str = ""  # "": found
    sheet: str = ""  # of a workbook with several
    split: str = ""  # of a data set with several
    option: str = "source_options={KEY: VALUE}"  # how the user gives these, for messages

    def say(self, key: str, value: str) -> str:
        return '"' + self.option.replace("KEY", key).replace("VALUE", value) + '"'


@dataclass(slots=True)
class Row:
    """A row of a table: its values by column, or the Fault for which it cannot be read."""

    table: str  # the file's name without suffix, in a folder with its path
    number: int  # from 1: as the spreadsheet shows it (the header is a row too), the line of a JSONL file, the item
    where: str  # file, sheet and number
    values: dict[str, Any] | Fault


def table_rows(path: str | Path, layout: Layout, fits: Fits = lambda names: 0.0) -> Iterator[Row]:
    """Yields the rows of a table in order; `fits` says which share of the wanted columns a header has (`delimited.py`).

    In a folder a file that cannot be read is one Row with a Fault. Raises BadInput for a file that is no table, is too
    large, or holds several of which none is named.
    """
    path, name = Path(path), str(path)
    if path.is_dir() and not any((path / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
        yield from _folder(path, layout, fits)
    elif path.is_file():
        yield from _file(path, path.stem, layout, fits)
    elif path.is_dir() or not (path.suffix or name.startswith((".", "/", "~"))):
        for number, values in enumerate(_data_set(name, layout), 1):
            yield Row(path.stem, number, f"{name} row {number}", dict(values))
    else:
        raise BadInput(f"{path}: no such file or folder")


def _folder(folder: Path, layout: Layout, fits: Fits) -> Iterator[Row]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not files:
        raise BadInput(f"{folder}: a folder without files")
    if len(splits := {split for file in files if (split := _split_of(file, folder))}) > 1 or layout.split:
        files = [file for file in files if _split_of(file, folder) == _named(str(folder), sorted(splits), layout)]
    for file in files:
        name, row = file.relative_to(folder), None
        try:
            for row in _file(file, name.with_suffix("").as_posix(), layout, fits):
                yield row
            if row is None:
                yield Row(name.as_posix(), 0, str(file), Fault("a file without rows"))
        except BadInput as error:
            yield Row(name.as_posix(), 0, str(file), Fault("a file that cannot be read", str(error)))


def _split_of(file: Path, folder: Path) -> str:
    """Returns the split that a file's name or folder says: data/train-00000-of-00001.parquet is of train."""
    words = _SPLIT.findall(file.relative_to(folder).as_posix())
    return words[-1] if words else ""


def _named(name: str, splits: list[str], layout: Layout) -> str:
    """Returns the split that is asked for, the only one where none is; raises BadInput that asks which."""
    if layout.split and layout.split not in splits:
        there = ", ".join(splits) or "none"
        raise BadInput(f"{name}: no split {layout.split!r}; there is {there}{did_you_mean(layout.split, splits)}")
    if not layout.split and len(splits) > 1:
        which = " or ".join(layout.say("split", split) for split in splits)
        raise BadInput(f"{name}: {len(splits)} splits; say which: {which}")
    return layout.split or splits[0]


def _file(path: Path, table: str, layout: Layout, fits: Fits) -> Iterator[Row]:
    with path.open("rb") as file:
        head = file.read(100)
    size = path.stat().st_size
    if head.startswith(b"PAR1"):
        rows = _parquet(path)
    elif size > LARGEST:
        raise BadInput(_too_large(path, size, head, layout))
    elif head.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):  # zip and OLE files
        from data_pipeline.tables.workbook import sheet_rows

        for number, sheet, values in sheet_rows(path, layout.sheet, fits, layout.say("sheet", "SHEET")):
            yield Row(table, number, f"{path} sheet {sheet} row {number}", values)
        return
    else:
        rows = _text(path, layout, fits)
    where = f"{path} row "
    try:
        for number, values in rows:
            yield Row(table, number, f"{where}{number}", values)
    except UnicodeError as error:  # of UTF-16; other encodings tell the row
        raise BadInput(f"{path}: not in its encoding: {error}") from None


def _too_large(path: Path, size: int, head: bytes, layout: Layout) -> str:
    """Returns how to go on: with a folder of parts, in which every cell is as it was."""
    first, start = (
        head.removeprefix(BOM_UTF8).lstrip()[:1],
        f"{path}: {size / 1e6:.0f} MB, more than is read of one file",
    )
    if head.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        return f"{start}; save the sheet as several CSV files in one folder and give the folder"
    if first == b"{":
        command = f"split -C 400MB -d --additional-suffix=.jsonl '{path}' parts/"
    elif first == b"[":
        code = f"import json; [print(json.dumps(row, ensure_ascii=False)) for row in json.load(open('{path}'))]"
        command = f'.venv/bin/python -c "{code}" | split -C 400MB -d --additional-suffix=.jsonl - parts/'
    else:
        encoding = "utf-8-sig" if is_utf8(path) else layout.encoding or _encoding(path, layout)
        with path.open(encoding=encoding, errors="replace") as file:
            separator = max(SEPARATORS, key=file.readline().count)
        how = f"dtype=str, keep_default_na=False, sep={separator!r}, encoding='{encoding}', chunksize=200_000"
        parts = f"enumerate(pandas.read_csv('{path}', {how}))"
        code = f"[part.to_csv(f'parts/{{n:04}}.csv', index=False) for n, part in {parts}]"
        command = f'.venv/bin/python -c "import pandas; {code}"'
    return f"{start}; make a folder of parts of it and give parts: mkdir parts; {command}"


def _text(path: Path, layout: Layout, fits: Fits) -> Iterator[tuple[int, dict | Fault]]:
    sure = layout.encoding in ("", "utf-8") and is_utf8(path)
    encoding = "utf-8-sig" if sure else check_encoding(layout.encoding, f"{path}: encoding") or _encoding(path, layout)
    try:
        with path.open(encoding=encoding, errors="surrogateescape") as file:
            first, second = islice(chain((line for line in file if line.strip()), ("", "")), 2)
            first = first.lstrip()
    except UnicodeError as error:
        raise BadInput(f"{path}: not {encoding}: {error}") from None
    if first.startswith("<"):
        raise BadInput(f"{path}: a page of HTML or XML; open it in a spreadsheet program and save it as xlsx or CSV")
    if first.startswith("["):
        return _json(path, encoding, layout, fits)
    if first.startswith("{"):
        if not second or isinstance(json_or_fault(first.encode("utf-8", "replace")), Fault):
            return _json(path, encoding, layout, fits)
        return _utf8_lines(path) if sure else _lines(path, encoding)
    if not first:
        raise BadInput(f"{path}: an empty file")
    return delimited_rows(path, encoding, sure, fits)


def _encoding(path: Path, layout: Layout) -> str:
    with path.open("rb") as file:
        encoding = find_encoding(file)
    if encoding is None:
        say = layout.say("encoding", "NAME")
        raise BadInput(
            f"{path}: neither a text nor a workbook nor Parquet; if it is a text, say {say}, such as utf-16-le"
        )
    return encoding


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, dict | Fault]]:
    """Yields the rows of a JSONL file; a line that is no JSON object is a Fault."""
    with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if other := other_encoding(line, encoding):
                yield number, Fault("not in the encoding of the file", f"{encoding}; {other.strip()[:40]!r}")
            else:
                yield number, _object(whole_json(line.strip().encode("utf-8")))


def _utf8_lines(path: Path) -> Iterator[tuple[int, dict | Fault]]:
    """Yields as `_lines`, of a file that is UTF-8 throughout."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = (line.removeprefix(BOM_UTF8) if number == 1 else line).strip()
            if line:
                yield number, _object(whole_json(line))


def _json(path: Path, encoding: str, layout: Layout, fits: Fits) -> Iterator[tuple[int, dict | Fault]]:
    """Yields the objects of a JSON list; one object alone is one row, or holds such lists whose objects fit better."""
    text = path.read_bytes().decode(encoding, "surrogateescape")
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise BadInput(f"{path} line {line}: not in the encoding of the rest, {encoding}; save the file anew") from None
    value = whole_json(content)
    if isinstance(value, Fault):
        raise BadInput(f"{path}: {value.code} at {value.detail}")
    if isinstance(value, dict):
        inner = {
            key: rows for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)
        }
        if inner and all(fits([*rows[0]]) > fits([*value]) for rows in inner.values()):
            value = inner[_named(str(path), [*inner], layout)]
    for number, item in enumerate(value if isinstance(value, list) else [value], 1):
        yield number, _object(item)


def _object(value: object) -> dict | Fault:
    if isinstance(value, dict | Fault):
        return value
    return Fault("not an object", type(value).__name__)


def _parquet(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        size = path.stat().st_size
        small, said = size < SMALL, 0
        for batch in file.iter_batches(batch_size=_batch(path, file.metadata)):
            for values in batch.to_pylist():
                number += 1
                said += len(orjson.dumps(values, default=str)) if small else 0
                if said > max(MOST_BATCH, archives.RATIO * size):
                    raise BadInput(f"{path} row {number}: {said >> 20} MB of text by now out of {size / 1e6:.2f}")
                yield number, values
    except pyarrow.ArrowException as error:
        raise BadInput(f"{path}: not a Parquet file: {error}") from None


def _batch(path: Path, about: Any) -> int:
    """Returns how many rows are read at once; few of a file that is small for what is in it, for one text of its
    dictionary may stand in every row. Raises BadInput for more rows than its bytes can mean.
    """
    size = path.stat().st_size
    if about.num_rows > MOST_ROWS * size:
        raise BadInput(f"{path}: {about.num_rows} rows in {size} bytes, which is no table of questions or dialogues")
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    largest = max((one.column(n).total_uncompressed_size for one in groups for n in range(one.num_columns)), default=0)
    return max(1, min(BATCH, MOST_BATCH // (largest + 1))) if size < SMALL else BATCH


def _data_set(name: str, layout: Layout) -> Iterable[dict]:
    import datasets

    try:
        if Path(name).is_dir():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, trust_remote_code=False)
    except Exception as error:  # the hub client raises a dozen types; the message is what helps
        raise BadInput(
            f"{name}: no such file or folder, and not a data set that could be loaded: {str(error)[:500]}\nIf it is on "
            f"the hub: `hf download {name} --repo-type dataset --local-dir FOLDER` where there is internet; name the "
            "folder"
        ) from None
    if not isinstance(loaded, datasets.DatasetDict | datasets.IterableDatasetDict):
        return cast(Iterable[dict], loaded)
    return cast(Iterable[dict], loaded[_named(name, [str(split) for split in loaded], layout)])


def as_json(cell: object) -> object:
    """Returns what a cell that holds JSON says, or the Fault of a key that stands twice in it; any other as it is."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        value = whole_json(cell.encode("utf-8", "replace"))
        return cell if isinstance(value, Fault) and value.code == BROKEN_JSON else value
    return cell
