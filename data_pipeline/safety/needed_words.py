"""Which words a text must hold for a pattern to match it, so that hundreds of patterns cost one pass for their words.

A pattern is read by Python's own parser and taken apart at its outermost alternatives. Each asks for one word of each
of some sets. RE2's filter does so too, but it forgets the rare words that
many patterns share (死), and its automaton grows with nearly every text.
"""

from collections.abc import Callable, Iterable
from functools import cache
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]

Words = frozenset[str]
MOST = 60  # words that neighbouring parts make together; above it they stay apart
# The most frequent signs of SMILECHAT's turns in order: of the sets that a match needs, the rarest is looked for first,
# and those that nearly every text holds are not asked for. This saves time and decides nothing.
_FREQUENT = (
    "，。的我你是不一和有自会这己到可能在以了对要感时很人个心好来得情也们但他解理？如想些为过么觉方持力法都找生问还试并更受题去相现意需关让信"
    "助多实果没样帮常就建困说够中定下面谢出支同着而或望于经看地种重因起真议事应该通成什无做其学！道间难发友上后绪所给候活知变只别家那决大明系加"
)
_SHARE = {sign: 20 / (21 + rank) for rank, sign in enumerate(_FREQUENT)}  # of turns that hold it, about
_OTHER, _TELLS_NOTHING = 0.02, 0.4


@cache
def alternatives(pattern: str) -> list[list[Words]]:
    """Returns, for each outermost alternative of a pattern of `re`, sets of words of which a text in which it matches
    holds one each, the rarest first; raises ValueError for an alternative that needs no word.
    """
    items = list(parser.parse(pattern))
    branch = [place for place, (kind, _) in enumerate(items) if kind is sre.BRANCH]
    at = branch[0] if branch else len(items)  # what all of them begin with stands before it
    ways = [[*items[:at], *way, *items[at + 1 :]] for way in items[at][1][1]] if branch else [items]
    needs = [sorted(set(map(_fewest, _sequence(way)[1])), key=_often) for way in ways]
    if not all(needs):
        raise ValueError(f"a text needs no word to match one of the alternatives of {pattern[:80]!r}")
    return [[first, *(words for words in rest if _often(words) < _TELLS_NOTHING)] for first, *rest in needs]


def words_near(patterns: Iterable[str]) -> Callable[[str], list[int]]:
    """Returns what gives, in order, the places of the patterns whose words a text holds: of those that may match."""
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    bits: dict[Words, int] = {}
    keyed: dict[str, list[tuple[int, int]]] = {}
    for place, pattern in enumerate(patterns):
        for key, *others in alternatives(pattern):
            mask = sum(bits.setdefault(words, 1 << len(bits)) for words in set(others))
            for word in key:
                keyed.setdefault(word, []).append((place, mask))
    held = dict.fromkeys(keyed, 0)
    for words, bit in bits.items():
        held |= {word: held.get(word, 0) | bit for word in words}
    ways, holds = [keyed.get(word, ()) for word in held], list(held.values())
    find = BytesAhoCorasick(map(str.encode, held), implementation=Implementation.DFA).find_matches_as_indexes

    def near(text: str) -> list[int]:
        there, found = 0, {word for word, _, _ in find(text.encode("utf-8", "replace"), overlapping=True)}
        for word in found:
            there |= holds[word]
        return sorted({place for word in found for place, mask in ways[word] if mask & there == mask})

    return near


def _sequence(items: Iterable) -> tuple[set[str] | None, list[set[str]]]:
    """Returns (all texts that match, None where they are too many, the sets of words that a match must hold)."""
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
    if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
        return {""}, _sequence(value[1])[1] if kind is sre.ASSERT else []
    if kind is sre.IN and all(inner is sre.LITERAL for inner, _ in value):
        return {chr(code) for _, code in value}, []
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
        least, most, inner = value
        exact, needs = _sequence(inner)
        return ({*exact, ""}, []) if (least, most) == (0, 1) and exact is not None else (None, needs if least else [])
    return None, []


def _fewest(words: set[str]) -> Words:
    """Returns the words without those that hold another."""
    parts = {word: {word[a:b] for b in range(len(word) + 1) for a in range(b)} - {word} for word in words}
    return frozenset(word for word in words if words.isdisjoint(parts[word]))


def _often(words: Iterable[str]) -> float:
    return sum(min(_SHARE.get(sign, _OTHER) for sign in word) / 2 ** (len(word) - 1) for word in words)
