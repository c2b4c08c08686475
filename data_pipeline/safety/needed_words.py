"""Hundreds of patterns sought in one text: one pass for the words that a match must hold tells which few may match.

RE2's filter does so too, but it forgets rare words that many patterns share (死), and tries ten where one may match.
"""

from collections.abc import Callable, Iterable
from functools import cache
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]

Words = frozenset[str]
MOST = 60  # words that neighbouring parts make together; above it they stay apart
# How rare a word is decides only which is looked for first: the most frequent signs of SMILECHAT's turns, in order.
_FREQUENT = "，。的我你是不一和有自会这己到可能在以了对要感时很人个心好来得情也们但他解理？如想些为过么觉方持力法都找"
_SHARE = {sign: 20 / (21 + rank) for rank, sign in enumerate(_FREQUENT)}  # of turns that hold it, about
_OTHER, _TELLS_NOTHING = 0.01, 0.25


def words_near(patterns: Iterable[str]) -> Callable[[str], list[int]]:
    """Returns what gives, in order, the places of those patterns of `re` whose words a text holds: no other matches."""
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    bits: dict[Words, int] = {}
    keyed: dict[str, list[tuple[int, int]]] = {}
    for place, pattern in enumerate(patterns):
        for key, *others in needed_words(pattern):
            mask = sum(bits.setdefault(words, 1 << len(bits)) for words in others)
            for word in key:
                keyed.setdefault(word, []).append((place, mask))
    held = dict.fromkeys(keyed, 0)
    for words, bit in bits.items():
        held |= {word: held.get(word, 0) | bit for word in words}
    ways, holds = [keyed.get(word, ()) for word in held], list(held.values())
    find = BytesAhoCorasick(map(str.encode, held), implementation=Implementation.ContiguousNFA).find_matches_as_indexes

    def near(text: str) -> list[int]:
        there, found = 0, {word for word, _, _ in find(text.encode("utf-8", "replace"), overlapping=True)}
        for word in found:
            there |= holds[word]
        return sorted({place for word in found for place, mask in ways[word] if mask & there == mask})

    return near


@cache
def needed_words(pattern: str) -> list[list[Words]]:
    """Returns, for each outermost alternative of a pattern without flags, sets of words of which a text in which it
    matches holds one each, the rarest first; raises ValueError for an alternative that needs no word.
    """
    items = list(parser.parse(pattern))
    at = next((place for place, (kind, _) in enumerate(items) if kind is sre.BRANCH), len(items))
    ways = [[*items[:at], *way, *items[at + 1 :]] for way in items[at][1][1]] if at < len(items) else [items]
    needs = [sorted({_fewest(frozenset(words)) for words in _sequence(way)[1]}, key=_often) for way in ways]
    if not all(needs):
        raise ValueError("a text needs no word to match it, or one of its alternatives")
    return [[first, *(words for words in rest if _often(words) < _TELLS_NOTHING)] for first, *rest in needs]


def _sequence(items: Iterable) -> tuple[set[str] | None, list[set[str]]]:
    """Returns (all texts that match, None where they are too many, the sets of words of which a match holds one)."""
    run, needs, whole = {""}, [], True
    for exact, inner in (_item(*item) for item in items):
        needs += inner
        if exact is not None and len(run) * len(exact) <= MOST:
            run = {before + behind for before in run for behind in exact}
        else:
            whole, needs, run = False, [*needs, run], exact or {""}
    return (run if whole else None), [words for words in [*needs, run] if "" not in words]


def _item(kind, value) -> tuple[set[str] | None, list[set[str]]]:  # noqa: ANN001 - the parser's own
    if kind is sre.LITERAL:
        return {chr(value)}, []
    if kind is sre.IN and all(inner is sre.LITERAL for inner, _ in value):
        return {chr(code) for _, code in value}, []
    if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
        return {""}, _sequence(value[1])[1] if kind is sre.ASSERT else []
    if kind is sre.SUBPATTERN:
        return _sequence(value[3])
    if kind is sre.BRANCH:
        ways = [_sequence(way) for way in value[1]]
        texts = [exact for exact, _ in ways if exact is not None]
        if len(texts) == len(ways) and sum(map(len, texts)) <= MOST:
            return set().union(*texts), []
        needs = [min(needs, key=_often) for _, needs in ways if needs]
        return None, [set().union(*needs)] if len(needs) == len(ways) else []
    if kind is sre.MAX_REPEAT:
        exact, needs = _sequence(value[2])
        return ({*exact, ""}, []) if value[:2] == (0, 1) and exact else (None, needs if value[0] else [])
    return None, []


@cache
def _fewest(words: Words) -> Words:
    """Returns the words without those that hold another."""
    kept: list[str] = []
    for word in sorted(words, key=len):
        if not any([other in word for other in kept]):
            kept.append(word)
    return frozenset(kept)


def _often(words: Iterable[str]) -> float:
    return sum(min(_SHARE.get(sign, _OTHER) for sign in word) / 2 ** (len(word) - 1) for word in words)
