"""What is said to a user whose input is wrong."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """The user's input is wrong; the message names file, row, key, value and cure. Commands exit with 2."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Returns ". Did you mean NAME?" with the nearest of `names`, "" when none is near."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f". Did you mean {close[0]}?" if close else ""
