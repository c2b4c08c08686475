"""What contact and crisis rules share: spans, and the one pass over a text for many patterns."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Span:
    start: int
    end: int
    kind: str  # of a contact: phone, qq, wechat, email, id, account; of a crisis: the flag
    text: str
    rule: str = ""


def re2_pattern(pattern: str) -> str:
    """Returns `pattern` for RE2, which knows no look-around nor back-reference; \\W means what it does in Python."""
    signs = r"\pP\pS\pZ\pM\pC"  # RE2's own \W knows ASCII alone
    return pattern.replace("\n", "").replace(r"[\W", f"[{signs}").replace(r"\W", f"[{signs}]")


def re2_options():
    import re2

    options = re2.Options()
    options.case_sensitive, options.max_mem = False, 128 << 20
    return options


def screen(patterns: list[str]) -> Callable[[str], list[int]]:
    """Returns a function that gives the places in `patterns` of those found in a text, in one pass for all of them.

    Patterns are RE2's, without regard to case.
    """
    import re2

    found = re2.Set.SearchSet(re2_options())
    for pattern in patterns:
        found.Add(re2_pattern(pattern))
    found.Compile()

    def scan(text: str) -> list[int]:
        try:
            return found.Match(text) or []
        except UnicodeEncodeError:  # half of a character, as broken JSON escapes leave it
            return found.Match(text.encode("utf-8", "replace").decode()) or []

    return scan
