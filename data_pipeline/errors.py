"""What is said to a user whose input is wrong."""

import difflib
import errno
import inspect
import re
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


AGAIN = "the same command goes on from what is finished"
STORAGE = {  # the system's errors that say nothing of what was asked: the disk does not take what is written
    errno.ENOSPC: f"the disk is full (`df -h` names it): make room; {AGAIN}",
    errno.EDQUOT: f"your quota is spent (`quota -s`, or ask who runs the machine): make room; {AGAIN}",
    errno.EROFS: f"the disk is mounted read-only (`mount` names it): name a folder that can be written; {AGAIN}",
    errno.EACCES: f"you may not read or write it (`ls -ld` names its owner): run as that user; {AGAIN}",
    errno.EPERM: f"it is not yours to change (`ls -ld` names its owner): run as that user; {AGAIN}",
    errno.EIO: f"the disk itself fails (`dmesg | tail`): move to another one; {AGAIN}",
    errno.ESTALE: f"the network disk was taken away (`mount` names it): mount it anew; {AGAIN}",
}
_WORDS = {
    errno.ENOSPC: re.compile(r"No space left on device|disk is full|file write failed"),
    errno.EDQUOT: re.compile(r"[Qq]uota exceeded"),
    errno.EROFS: re.compile(r"[Rr]ead-only file system"),
}


def storage_fault(error: BaseException) -> str | None:
    """Returns what is to be said where the disk was full or could not be written, however deep in the exception; None
    for any other exception.
    """
    inner = [*getattr(error, "exceptions", ()), error.__cause__]
    number = error.errno if isinstance(error, OSError) else None
    if number not in STORAGE and not isinstance(error, BadInput):  # of libraries that hand on the words alone
        number = next((known for known, words in _WORDS.items() if words.search(str(error))), None)
    if number is not None:
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"{file}{told}; {STORAGE[number]}"
    return next(filter(None, (storage_fault(one) for one in inner if one is not None)), None)
