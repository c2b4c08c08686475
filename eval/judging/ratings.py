"""Ratings of replies and sessions, by people and by judge models, as the rows of any table.

A row is one rating, its columns: `item`, `rater`, `dimension`, `value`, and where they are needed `system` (whose reply
it is), `sample` (0), `repeat`. A sheet with a column for each dimension is read too: what is none of these columns, nor
`comment`, is a dimension. An empty value is missing. The judgements that an evaluation writes have these columns, and
exports of Argilla are read as MindEval's ratings were released: {"id", "model", "NAME.responses": [...],
"NAME.responses.users": [...]}, where 0 says that a criterion does not apply.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("item", "rater", "dimension", "value", "system", "sample", "repeat", "kind", "comment")
FIRST = "0"  # sample
OVERALL = "all dimensions"  # their mean
JUDGE = "judge"
Unit = tuple[str, str, str]  # item, system, sample


@dataclass(frozen=True, slots=True)
class Rating:
    item: str
    system: str
    sample: str
    dimension: str
    rater: str
    value: float | None  # None: missing
    repeat: str = ""
    kind: str = ""  # JUDGE, or "" of a person
    where: str = ""  # file and row

    @property
    def unit(self) -> Unit:
        return self.item, self.system, self.sample


def of_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Rating]:
    """Returns the ratings of (file and row, values by column), in order.

    Raises BadInput, naming file and row, for a row without item or rater, a value that is no number, and a rating that
    stands twice.
    """
    ratings, stands = [], {}
    for where, row in rows:
        for rating in _of_row(where, row):
            key = (rating.unit, rating.dimension, rating.rater, rating.repeat)
            if key in stands:
                raise BadInput(
                    f"{where}: {rating.rater} has rated {rating.item} on {rating.dimension} already ({stands[key]}); "
                    "keep one, or number them in a column `repeat`"
                )
            stands[key] = where
            ratings.append(rating)
    return ratings


def _of_row(where: str, row: Mapping[str, Any]) -> Iterator[Rating]:
    if exported := [name for name in row if name.endswith(".responses") and f"{name}.users" in row]:
        yield from _argilla(where, row, exported)
        return
    for column in ("item", "rater"):
        if not _text(row.get(column)):
            raise BadInput(f"{where}: {column} is empty or not a column; a rating names what was rated, and by whom")
    names = {name: _text(row.get(name)) for name in ("item", "system", "rater", "repeat", "kind")}
    names["sample"] = _text(row.get("sample")) or FIRST
    if "value" in row:
        if not _text(row.get("dimension")):
            raise BadInput(f"{where}: dimension is empty or not a column; it says what the value is of")
        yield Rating(
            **names, dimension=_text(row["dimension"]), value=_number(where, "value", row["value"]), where=where
        )
        return
    dimensions = [name for name in row if name and name not in COLUMNS]
    if not dimensions:
        raise BadInput(f"{where}: no rating: there is neither a column `value` nor one of a dimension")
    for name in dimensions:
        yield Rating(**names, dimension=name, value=_number(where, name, row[name]), where=where)


def _argilla(where: str, row: Mapping[str, Any], exported: list[str]) -> Iterator[Rating]:
    for name in exported:
        values, users = row[name], row[f"{name}.users"]
        if values is None or isinstance(values, list) and any(isinstance(value, str) for value in values):
            continue  # nobody, or what raters wrote
        if not isinstance(values, list) or not isinstance(users, list) or len(values) != len(users):
            raise BadInput(f"{where}: {name} and {name}.users are not lists of one length")
        for value, user in zip(values, users, strict=True):
            if value != 0:
                number = _number(where, name, value)
                dimension, model = name.removesuffix(".responses"), _text(row.get("model"))
                yield Rating(_text(row.get("id")), model, FIRST, dimension, _text(user), number, where=where)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(where: str, column: str, value: object) -> float | None:
    if not _text(value):
        return None
    try:
        number = float(_text(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(
            f"{where}: {column}={_text(value)[:40]!r} is not a number; leave it empty where there is no rating"
        )
    return number


def tables(ratings: Iterable[Rating]) -> dict[str, tuple[list[Unit], list[str], "NDArray"]]:
    """Returns {dimension: (units, raters, units x raters with NaN where nobody rated)}; with several dimensions OVERALL
    besides: of each rater and unit the mean of the dimensions that were rated, whatever their scales, NaN where one of
    them is missing.

    Of a rater's repeats it is the mean.
    """
    import numpy

    cells: dict[str, dict[tuple[Unit, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    missing: set[tuple[Unit, str]] = set()
    for rating in ratings:
        of_cell = cells[rating.dimension][rating.unit, rating.rater]
        if rating.value is not None:
            of_cell.append(rating.value)
    for of_dimension in cells.values():
        missing |= {cell for cell, values in of_dimension.items() if not values}
    if len(cells) > 1:
        every = defaultdict(list)
        for dimension, of_dimension in cells.items():
            for cell, values in of_dimension.items() if not dimension.endswith("_unsure") else ():
                every[cell] += [sum(values) / len(values)] if values else []
        cells[OVERALL] = {cell: [] if cell in missing else values for cell, values in every.items()}
    made = {}
    for dimension, of_dimension in cells.items():
        units = list(dict.fromkeys(unit for unit, _ in of_dimension))
        raters = list(dict.fromkeys(rater for _, rater in of_dimension))
        rows, columns = {u: n for n, u in enumerate(units)}, {r: n for n, r in enumerate(raters)}
        table = numpy.full((len(units), len(raters)), numpy.nan)
        for (unit, rater), values in of_dimension.items():
            if values:
                table[rows[unit], columns[rater]] = sum(values) / len(values)
        made[dimension] = units, raters, table
    return made
