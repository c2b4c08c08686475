"""Hundreds of patterns sought in one text: one pass for their rarest words tells in which sentences few are worth it.

An automaton of all patterns, as RE2's, would be built anew for every text, state by state, which costs milliseconds.
"""

import re
from functools import cache

from data_pipeline.safety.needed_words import ENDS, Alternative

BORDER = 4  # characters beside a sentence that may belong to a match: the signs that end it


class ManyPatterns:
    """Patterns without regard to case, each known by its place."""

    def __init__(self, alternatives: list[Alternative]) -> None:
        from ahocorasick_rs import AhoCorasick, Implementation

        words, by_word = {mark: place for place, mark in enumerate(ENDS)}, {}
        self.alternatives, sets = alternatives, {}
        for place, each in enumerate(alternatives):
            key, *others = each.needs
            others = [sets.setdefault(other, len(sets)) for other in others]
            for word in sorted(key):
                by_word.setdefault(words.setdefault(word, len(words)), []).append((place, others, each.across))
        self.by_word = [by_word.get(word, ()) for word in range(len(words))]
        self.words_of = AhoCorasick(list(words), implementation=Implementation.ContiguousNFA).find_matches_as_indexes
        sets = list(sets)
        # Of many few are ever tried, so they are compiled when they are.
        self.pattern = cache(lambda place: re.compile(alternatives[place].pattern, re.IGNORECASE))
        self.holds = cache(lambda number: re.compile("|".join(map(re.escape, sorted(sets[number])))).search)

    def found_in(self, text: str) -> list[int]:
        """Returns the places of the patterns that match in `text`, in order."""
        lower, tried, found, start = _lower(text), [], set(), 0
        for word, _, end in self.words_of(lower + ENDS[-1], overlapping=True):
            tried += self.by_word[word]
            if word < len(ENDS):
                if tried:
                    self._try(tried, text, lower, slice(max(0, start - BORDER), end + BORDER), found)
                    tried = []
                start = end
        return sorted(found)

    def _try(self, tried: list, text: str, lower: str, sentence: slice, found: set[int]) -> None:
        """Adds to `found` the places of the patterns that match in the sentence, or across its borders."""
        part = lower[sentence]
        for place, others, across in tried:
            for other in others:
                if not self.holds(other)(lower if across else part):
                    break
            else:
                if place not in found:
                    pattern = self.pattern(place)  # in the whole text, too: a sentence is not where it begins or ends
                    if (across or pattern.search(text[sentence])) and pattern.search(text):
                        found.add(place)


def _lower(text: str) -> str:
    """Returns `text` in lower case, each character at its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
