"""Numbers that guidance to help names: those of `helplines.yaml` by country, and the check of one's own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import yaml

from data_pipeline.errors import BadInput


@dataclass(frozen=True)
class Helpline:
    """A number to call; every field is needed, since a wrong number costs more than none."""

    name: str
    number: str
    source: str  # who announced it
    date: str  # of the announcement, YYYY-MM-DD


_FIELDS = [f.name for f in fields(Helpline)]


def check_helplines(where: str, given: object) -> tuple[Helpline, ...]:
    """Returns the list `given`, of mappings or Helplines, as Helplines. Raises BadInput, its text beginning with
    `where`, for what is no list and for a line without its source and date.
    """
    if not isinstance(given, list | tuple):
        raise BadInput(f"{where}: helplines={given!r}; a list of {{{', '.join(_FIELDS)}}}")
    return tuple(_helpline(f"{where}: helplines[{number}]", line) for number, line in enumerate(given))


def _helpline(where: str, line: object) -> Helpline:
    if isinstance(line, Helpline):
        line = asdict(line)
    if not isinstance(line, Mapping) or set(line) != set(_FIELDS):
        raise BadInput(f"{where}: {line!r}; each needs {', '.join(_FIELDS)}")
    for name in _FIELDS:
        if not isinstance(line[name], str) or not line[name].strip():
            raise BadInput(f"{where}: {name}={line[name]!r}; a text (write numbers and dates in quotes)")
    try:
        date.fromisoformat(line["date"])
    except ValueError:
        raise BadInput(f"{where}: date={line['date']!r}; a day as YYYY-MM-DD") from None
    return Helpline(**line)


def _by_country() -> dict[str, tuple[Helpline, ...]]:
    file = Path(__file__).parent / "helplines.yaml"
    countries = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {country: check_helplines(f"{file.name}: {country}", lines) for country, lines in countries.items()}


HELPLINES_BY_COUNTRY = _by_country()
HELPLINES = HELPLINES_BY_COUNTRY["cn"]  # check them before use, and give your own elsewhere
