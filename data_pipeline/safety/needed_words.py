"""Which words a text must hold for a pattern to match it, so that a thousand patterns cost one pass for their words.

A pattern is read by Python's own parser and taken apart at its outermost alternatives; each asks for one word of each
of some sets. RE2 does so too (FilteredRE2), but not by sentence, and its automaton is built anew for nearly every text.
"""

import re
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]  # typeshed has no stub of the two
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]

ENDS = "。！？!?\n"  # of sentences
MOST_JOINED = 150  # words that neighbouring parts make together; above it they stay apart
MOST = 400  # words of one set
# How often the frequent words stand in a post of 220 characters, as counted over SMILECHAT. Rarity saves time, no more.
_LINES = (Path(__file__).parent / "frequent_words.txt").read_text(encoding="utf-8").splitlines()
FREQUENT = {" ": 30.0} | {word: float(often) for word, often in map(str.split, _LINES)}
TELLS_NOTHING = 6  # times that words of one set stand in a post: nearly every sentence has one


@dataclass(slots=True, frozen=True)
class Alternative:
    pattern: str
    needs: tuple[frozenset[str], ...]  # one word of each, lower case; the rarest set first
    across: bool  # whether a match can go beyond the end of a sentence


def alternatives(pattern: str) -> list[Alternative]:
    """Returns the outermost alternatives of a pattern; raises ValueError for one that asks for no word at all."""
    found = []
    for each in _outermost(pattern):
        items = list(parser.parse(each, re.IGNORECASE))
        found.append(Alternative(each, _rarest(_needs(items, each)), _across(items, True, True)))
    return found


def together(patterns: list[str], between: str) -> Alternative:
    """Returns what matches all of `patterns` in any order, with `between` (within a sentence) between them."""
    trees = [(list(parser.parse(pattern, re.IGNORECASE)), pattern) for pattern in patterns]
    needs = _rarest([need for items, pattern in trees for need in _needs(items, pattern)])
    orders = permutations([f"(?:{pattern})" for pattern in patterns])
    return Alternative("|".join(between.join(order) for order in orders), needs, across=False)


def _outermost(pattern: str) -> list[str]:
    """Returns the parts of a pattern between the | that stand in no group."""
    parts, depth = [""], 0
    for char in re.findall(r"\\.|\[\^?(?:\\.|[^\]\\])+\]|.", pattern, re.DOTALL):
        depth += (char == "(") - (char == ")")
        if char == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _needs(items: list, pattern: str) -> list[frozenset[str]]:
    needs = _sequence(items)[1]
    if not needs:
        raise ValueError(f"a text needs no word to match one of the alternatives: {pattern[:80]!r}")
    return needs


def _rarest(needs: list[frozenset[str]]) -> tuple[frozenset[str], ...]:
    key, *others = sorted(set(needs), key=_frequency)
    return (key, *(other for other in others if _frequency(other)[0] < TELLS_NOTHING))


def _sequence(items: list) -> tuple[set[str] | None, list[frozenset[str]]]:
    """Returns (all texts that match, None where they are too many, the sets of words that a match must hold)."""
    exact, needs, whole = {""}, [], True
    for texts, inner in (_words(*item) for item in items):
        if texts is not None and len(exact) * len(texts) <= MOST_JOINED:
            exact = {before + behind for before in exact for behind in texts}
            continue
        whole = False
        needs += [_fewest(exact), *inner]
        exact = texts if texts is not None else {""}
    needs = [words for words in [*needs, _fewest(exact)] if words]
    return (exact if whole else None), needs


def _words(kind, value) -> tuple[set[str] | None, list[frozenset[str]]]:
    if kind is sre.LITERAL:
        return {chr(value).lower()}, []
    if kind is sre.AT:
        return {""}, []
    if kind is sre.IN:
        codes = [code for code in value if code[0] is not sre.NEGATE]
        single = len(codes) == len(value) and all(code[0] is sre.LITERAL for code in codes)
        return ({chr(code).lower() for _, code in codes}, []) if single else (None, [])
    if kind is sre.SUBPATTERN:
        return _sequence(list(value[3]))
    if kind is sre.BRANCH:
        branches = [_sequence(list(branch)) for branch in value[1]]
        exact = [texts for texts, _ in branches if texts is not None]
        if len(exact) == len(branches):
            texts = set().union(*exact)
            return (texts, []) if len(texts) <= MOST else (None, [_fewest(texts)])
        if all(needs for _, needs in branches):
            return None, [_fewest(set().union(*(min(needs, key=_frequency) for _, needs in branches)))]
        return None, []
    if kind is sre.MAX_REPEAT:
        least, most, (texts, needs) = value[0], value[1], _sequence(list(value[2]))
        if (least, most) == (0, 1) and texts is not None:
            return texts | {""}, []
        return None, (needs + ([_fewest(texts)] if texts else []) if least else [])
    return None, []


def _fewest(texts: set[str]) -> frozenset[str]:
    """Returns the words without those that hold another, none where a text need not hold any."""
    kept = []
    for word in sorted(texts, key=len):
        if not any(other in word for other in kept):
            kept.append(word)
    return frozenset(kept) if "" not in texts else frozenset()


def _frequency(words: frozenset[str]) -> tuple:
    """Returns what orders sets of words from rare to frequent; long words are rare where nothing else is known."""
    return sum(FREQUENT.get(word, 0) for word in words), -min(map(len, words)), len(words), sorted(words)


def _across(items: list, first: bool, last: bool) -> bool:
    """Whether the end of a sentence can stand within a match; at its borders (`first`, `last`) it may."""
    items = [item for item in items if item[0] is not sre.AT]
    for at, (kind, value) in enumerate(items):
        begins, ends = first and at == 0, last and at == len(items) - 1
        if kind in (sre.SUBPATTERN, sre.MAX_REPEAT):
            border = begins or ends if kind is sre.SUBPATTERN or value[1] <= 1 else False
            if _across(list(value[3] if kind is sre.SUBPATTERN else value[2]), begins and border, ends and border):
                return True
        elif kind is sre.BRANCH:
            if any(_across(list(branch), begins, ends) for branch in value[1]):
                return True
        elif kind not in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY):
            return True  # a look around or the like: no rule has one
        elif not (begins or ends) and any(_takes(kind, value, mark) for mark in ENDS):
            return True
    return False


def _takes(kind, value, mark: str) -> bool:
    if kind is sre.LITERAL:
        return chr(value) == mark
    if kind is sre.NOT_LITERAL:
        return chr(value) != mark
    if kind is sre.IN:
        negated = value[0][0] is sre.NEGATE
        return negated != any(_holds(*code, mark=mark) for code in value if code[0] is not sre.NEGATE)
    return kind is sre.ANY


def _holds(kind, value, mark: str) -> bool:
    if kind is sre.CATEGORY:
        space = value is sre.CATEGORY_SPACE and mark.isspace() or value is sre.CATEGORY_NOT_SPACE and not mark.isspace()
        return space or value in (sre.CATEGORY_NOT_WORD, sre.CATEGORY_NOT_DIGIT)
    return chr(value) == mark if kind is sre.LITERAL else value[0] <= ord(mark) <= value[1]
