"""What the rules of cleaning share: spans, and one pass over a text for a few dozen patterns.

For hundreds, some at a time (`crisis.py`): the automaton has a state for each set of patterns found so far.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Span:
    start: int
    end: int
    kind: str  # of a contact: phone, qq, wechat, email, id, account; of a crisis: the flag
    text: str
    rule: str = ""


def screen(patterns: list[str]) -> Callable[[str], list[int]]:
    """Returns a function that gives the places in `patterns` of those found in a text, in one pass for all of them.

    Patterns are RE2's (no look-around, no back-reference), without regard to case; \\W means what it does in Python.
    """
    import re2

    options = re2.Options()
    options.case_sensitive, options.max_mem = False, 128 << 20
    found = re2.Set.SearchSet(options)
    signs = r"\pP\pS\pZ\pM\pC"  # RE2's own \W knows ASCII alone
    for pattern in patterns:
        found.Add(pattern.replace(r"[\W", f"[{signs}").replace(r"\W", f"[{signs}]"))
    found.Compile()

    def scan(text: str) -> list[int]:
        try:
            return found.Match(text) or []
        except UnicodeEncodeError:  # half of a character, as broken JSON escapes leave it
            return found.Match(text.encode("utf-8", "replace").decode()) or []

    return scan
