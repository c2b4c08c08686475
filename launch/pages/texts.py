"""What pages say and how they show what others said: two languages, and no sign that moves, hides or turns text."""

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import yaml
from markupsafe import Markup

from data_pipeline.safety.shown import shown as as_text

LANGUAGES = ("en", "zh")


@cache
def chinese() -> dict[str, str]:
    """Returns {English: Chinese} of all that the pages say."""
    return yaml.safe_load((Path(__file__).parent / "chinese.yaml").read_text(encoding="utf-8"))


def translated(text: str, language: str) -> str:
    """Returns the text in the language; what has no translation stays English."""
    return chinese().get(text, text) if language == "zh" else text


def shown(value: object) -> object:
    """Returns a value as it may stand on a page: control characters and marks that turn the direction of writing, which
    nobody sees, are named by their number.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value)


def visible(text: str) -> str:
    """Returns the text, what would steer the page in it as its code; carriage returns before a line's end go."""
    return as_text(text.replace("\r\n", "\n"))


def age(then: str | None, now: datetime | None = None) -> str:
    """Returns how long ago a time of a manifest was: "3 d", "5 h", "12 min"; "" for none."""
    if not then:
        return ""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(then)).total_seconds()
    return duration(max(0, seconds))


def duration(seconds: float | None) -> str:
    """Returns "2 d 3 h", "1 h 20 min", "45 s"; "" for None."""
    if seconds is None:
        return ""
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(round(seconds), size)
            return f"{whole} {name}" + (f" {rest // below} {small}" if rest // below and whole < 10 else "")
    return f"{seconds:.0f} s"


def number(value: object) -> str:
    """Returns a figure as people read it: thousands apart, four digits of a fraction; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def plain(value: object) -> str:
    """Returns a value of a record as text: words as they are, all else as JSON."""
    if isinstance(value, str):
        return value
    return number(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False, indent=1)
