"""Which column of a table holds what: by the recipe's `columns`, else by the names that such columns usually have."""

import difflib
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import LETTERS, Fault
from data_pipeline.tables.rows import Layout, Row, table_rows

Columns = dict[str, str | list[str]]  # {field: its column, or several}

HEAD = 100  # rows whose columns are looked at before the first is read: those of JSON may leave some out

# Columns of options, one for each: A, B, C...; 选项1, 选项2...
_SERIES = ("{}", "选项{}", "{}选项", "选择{}", "option{}", "op{}", "choice{}")


@dataclass(frozen=True)
class Fields:
    """The fields of a record that a table may hold, and what their columns are usually called."""

    usual: Mapping[str, tuple[str, ...]]  # {field: names, besides its own}
    required: tuple[tuple[str, ...], ...]  # of each group one
    several: tuple[str, ...] = ()  # fields that may stand in a series of columns, and are found there
    without: Mapping[str, str] | None = None  # {field: what to do in a table that has none}
    listed: tuple[str, ...] = ()  # further fields for which several columns may be named

    def check(self, given: Mapping[str, object], option: str) -> None:
        """Raises BadInput for a key of `columns` that is no field, and for what is no column."""
        for field, column in given.items():
            if field not in self.usual:
                hint = did_you_mean(str(field), self.usual)
                raise BadInput(f"{option}: unknown field {field!r}; the fields are {', '.join(self.usual)}{hint}")
            names = column if isinstance(column, list) else [column]
            if not all(name is None or isinstance(name, str | int) for name in names) or not names:
                raise BadInput(f"{option}: {field}={column!r}; takes the name of a column, or a list of names")
            if isinstance(column, list) and field not in (*self.several, *self.listed):
                raise BadInput(f"{option}: {field}={column!r}; takes the name of one column")

    def fits(self, given: Mapping[str, object], names: Iterable[str]) -> float:
        """Returns which share of the required and the mapped fields have their columns among `names`."""
        names = list(names)
        try:
            columns = self.columns(given, names)
        except _Several:
            return 0
        mapped = [field for field, column in given.items() if column is not None]
        groups = [group for group in self.required if not set(group) & set(mapped)]
        there = sum(field in columns for field in mapped) + sum(any(f in columns for f in group) for group in groups)
        return there / (len(mapped) + len(groups))

    def columns(self, given: Mapping[str, object], names: list[str]) -> Columns:
        """Returns {field: column} of those whose columns are there; raises _Several for one that two columns claim."""
        columns: Columns = {}
        taken = set()
        for field, column in given.items():
            if isinstance(column, list) and {str(name) for name in column} <= set(names):
                columns[field] = [str(name) for name in column]
            elif column is not None and not isinstance(column, list) and str(column) in names:
                columns[field] = str(column)
            taken.update(map(str, column if isinstance(column, list) else [column]))
        free = {_plain(name): name for name in names if name not in taken}
        for field, usual in self.usual.items():
            if field in given:
                continue
            if field in free.values():
                columns[field] = field
            elif len(claims := [free[word] for word in (_plain(field), *usual) if word in free]) > 1:
                raise _Several(field, claims)
            elif claims:
                columns[field] = claims[0]
            elif field in self.several and (series := _series(free)):
                columns[field] = series
        return columns

    def resolve(self, path: object, names: list[str], given: Mapping[str, object], option: str) -> Columns:
        """Returns {field: column} of a table with these column names.

        Raises BadInput, with a mapping that can be pasted, for a mapped or required field without a column, and for
        one that two columns claim. `option` is how the user gives the mapping, with COLUMNS in its place.
        """
        try:
            columns = self.columns(given, names)
        except _Several as error:
            field, claims = error.args
            which = " or ".join(say(option, {**given, field: name}) for name in claims)
            raise BadInput(f"{path}: {' and '.join(claims)} may both be the {field}; say which: {which}") from None
        lacking = [field for field, column in given.items() if column is not None and field not in columns]
        groups = [group for group in self.required if not any(field in columns for field in group)]
        lacking += [group[0] for group in groups if not set(group) & set(lacking)]
        if not lacking:
            return columns
        field, there = lacking[0], ", ".join(names)
        column = given.get(field)
        wanted = [field] if column is None else map(str, column if isinstance(column, list) else [column])
        missing = next(name for name in wanted if name not in names)
        spare = [name for name in names if name and name not in _named(columns)]
        for lack in sorted(lacking, key=self.several.__contains__):  # what is left over may be the options
            if spare:
                columns[lack] = list(spare) if lack in self.several else self._near(lack, given.get(lack), spare)
                spare = [name for name in spare if name != columns[lack]]
        said = {key: column for key, column in columns.items() if key in given or key in lacking}
        how = f"Say which it is, such as {say(option, said)}" if said else "A table needs more than that"
        how += "".join(
            f". {told}" for lack, told in (self.without or {}).items() if lack in lacking and lack not in columns
        )
        raise BadInput(f"{path}: no column {missing!r} for {field}; the columns are {there}. {how}")

    def rows(
        self, path: str | Path, layout: Layout, given: Mapping[str, object], option: str
    ) -> Iterator[tuple[Row, Columns, list[str]]]:
        """Yields (row, {field: column}, names of the columns) of a table, each file of a folder with its own columns.

        `given` and `option` are as in `resolve`, which raises BadInput; in a folder a file without the columns is one
        Row with a Fault.
        """
        rows, told_of = table_rows(path, layout, lambda names: self.fits(given, names)), set()
        for table, group in groupby(rows, lambda row: row.table):
            head = list(islice(group, HEAD))
            named = (name for row in head if isinstance(row.values, dict) for name in row.values)
            names = list(dict.fromkeys(map(str, named)))
            try:
                columns = self.resolve(path, names, given, option) if names else {}
            except BadInput as error:
                if not Path(path).is_dir():
                    raise
                yield Row(table, 0, head[0].where, Fault("a file that cannot be read", str(error))), {}, names
                continue
            told_of = told_of | self._tell(table, names, columns, head, option, told_of)
            known = set(names)
            for row in chain(head, group):
                if isinstance(row.values, dict) and not known.issuperset(row.values):  # rows of JSON may differ
                    names = [*names, *(str(name) for name in row.values if name not in known)]
                    known, columns = set(names), self.resolve(path, names, given, option)
                    told_of = told_of | self._tell(table, names, columns, [row], option, told_of)
                yield row, columns, names

    def _tell(
        self, table: str, names: list[str], columns: Columns, rows: list[Row], option: str, told_of: set[str]
    ) -> set[str]:
        """Tells of columns that hold something in these rows and are not read, once each; returns them."""
        held = {str(name) for row in rows if isinstance(row.values, dict) for name, cell in row.values.items() if cell}
        left = [name for name in names if name in held - _named(columns) - told_of]
        if left:
            told = "%s: columns that are not read: %s; map what you need: %s"
            logging.getLogger(__name__).warning(told, table, ", ".join(left), say(option, {"FIELD": left[0]}))
        return set(left)

    def _near(self, field: str, wanted: object, names: list[str]) -> str:
        """Returns the name that is likely the field's: like the wanted one, else one that holds a usual name."""
        if close := difflib.get_close_matches(str(wanted), names, n=1):
            return close[0]
        words = [_plain(field), *self.usual[field]]
        return next((name for name in names for word in words if word in _plain(name)), names[0])


class _Several(Exception):
    """Its arguments are a field and the columns that may all be it."""


def beyond(columns: list[str], names: Iterable[str]) -> list[str]:
    """Returns the columns that go on with the series that `columns` are, and are not among them: E after A, B, C, D."""
    head = os.path.commonprefix(columns)
    tail = os.path.commonprefix([name[len(head) :][::-1] for name in columns])[::-1]
    steps = [name[len(head) : len(name) - len(tail)] for name in columns]
    for series in (LETTERS, LETTERS.lower(), [str(number) for number in range(1, 27)]):
        if steps == list(series[: len(steps)]):
            there = set(names)
            return [name for step in series[len(steps) :] if (name := f"{head}{step}{tail}") in there]
    return []


def _series(free: dict[str, str]) -> list[str]:
    """Returns the columns that are a series of options; `free` is {plain name: name}."""
    for form in _SERIES:
        for signs in (LETTERS.lower(), [str(number) for number in range(1, 27)]):
            if form == "{}" and signs != LETTERS.lower():
                continue
            columns = []
            for sign in signs:
                if (name := form.format(sign)) not in free:
                    break
                columns.append(free[name])
            if len(columns) > 1:
                return columns
    return []


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", unicodedata.normalize("NFKC", name)).casefold()


def _named(columns: Columns) -> set[str]:
    return {name for column in columns.values() for name in (column if isinstance(column, list) else [column])}


def say(option: str, columns: Mapping[str, object]) -> str:
    """Returns the option as it can be pasted into a shell."""
    parts = []
    for field, column in columns.items():
        names = [_quoted(name) for name in (column if isinstance(column, list) else [column])]
        parts.append(f"{field}: [{', '.join(names)}]" if isinstance(column, list) else f"{field}: {names[0]}")
    return '"' + option.replace("COLUMNS", f"{{{', '.join(parts)}}}") + '"'


def _quoted(name: object) -> str:
    text = str(name)
    if re.fullmatch(r"(?!\d+$)\w+", text) and text.casefold() not in (
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
    ):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"').replace("$", "\\$") + "'"
