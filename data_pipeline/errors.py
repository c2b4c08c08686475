"""What is said to a user whose input is wrong."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class BadInput(Exception):
    """The user's input is wrong; the message names file, row, key, value and cure. Commands exit with 2."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Returns ". Did you mean NAME?" with the nearest of `names`, "" when none is near."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f". Did you mean {close[0]}?" if close else ""


def check_options(
    function: Callable, path: str | Path, options: Mapping[str, Any], where: str, place: str = ""
) -> None:
    """Raises BadInput, opening with `where`, for options that `function(path, **options)` does not take; `place` says
    where it stands. Asked before the call, so that a TypeError of the function's own stays one.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(path, **options)
    except TypeError as error:
        known = list(signature.parameters)[1:]
        hint = next((did_you_mean(option, known) for option in options if option not in known), "")
        taken = f"its options are {', '.join(known)}" if known else "it takes no options"
        raise BadInput(f"{where}: {error}; {taken}{place}{hint}") from None


def first_fault(where: str, error: "ValidationError") -> str:
    """Returns the first thing that is wrong: "synthesis.review.size=0: Input should be greater than or equal to 1"."""
    first = error.errors(include_url=False)[0]
    key = ".".join(filter(None, (where, *map(str, first["loc"]))))
    value = first["input"] if first["loc"] else ""
    return f"{key}{f'={value!r}' if first['loc'] else ''}: {first['msg'].removeprefix('Value error, ')}"
