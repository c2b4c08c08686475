"""What the rules of cleaning share: spans, and a look at a text that says which of many patterns it holds.

Patterns are RE2's (no look-around, no back-reference), without regard to case.
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

    For a few dozen: the automaton has a state for each set of patterns found so far; `needed_words.py` takes hundreds.
    \\W means what it does in Python.
    """
    import re2

    options = re2.Options()
    options.case_sensitive, options.max_mem = False, 128 << 20
    found = re2.Set.SearchSet(options)
    for pattern in patterns:
        found.Add(_with_signs(pattern))
    found.Compile()
    return lambda text: found.Match(text.encode("utf-8", "replace")) or []  # half characters, of broken JSON escapes


def _with_signs(pattern: str) -> str:
    signs = r"\pP\pS\pZ\pM\pC"  # RE2's own \W knows ASCII alone
    return pattern.replace(r"[\W", f"[{signs}").replace(r"\W", f"[{signs}]")
