"""Crisis rules and a small model, used by synthesis, chat and evaluation: which texts a person should look at.

A text is read in plain spelling (`normalise.py`); figures of speech, negations, titles and study are blotted out; then
the rules of `crisis_rules.yaml` are tried, and `crisis_model.py` for indirect wording. A flag is no diagnosis.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from data_pipeline.errors import BadInput
from data_pipeline.safety.crisis_model import risky_sentences
from data_pipeline.safety.needed_words import words_near
from data_pipeline.safety.normalise import compiled, normalised, normalised_with_places, read_yaml
from data_pipeline.safety.screening import Span

_WORD = re.compile(r"\w")
Match = tuple[int, int, "Rule"]
_NO = frozenset("不没无未别")  # a match that begins with it denies something else: 不想活
_BEFORE = 40  # characters before a match in which a negation is sought


@dataclass(frozen=True)
class Rule:
    name: str
    flag: str  # "" of a counter-rule
    pattern: re.Pattern


@dataclass(frozen=True)
class Rules:
    rules: list[Rule]
    near: Callable[[str], list[int]]  # the places of those whose words a text holds, in order

    def match(self, reads: list[str]) -> list[bool]:
        """Returns whether one of them matches in each text in plain spelling."""
        near = zip(reads, map(self.near, reads), strict=True)
        return [any([self.rules[place].pattern.search(read) for place in places]) for read, places in near]


@lru_cache(1)
def crisis_rules() -> dict[str, Rules]:
    """Returns `rules`, `counters`, `negated` and `means` of crisis_rules.yaml; or raises BadInput that names one."""
    data = read_yaml("crisis_rules.yaml")
    lists: dict[str, list[Rule]] = {"rules": [], "counters": [], "negated": [], "means": []}
    try:
        named = [("rules", flag, name, lines) for flag, of in data["rules"].items() for name, lines in of.items()]
        named += [("counters", "", name, lines) for name, lines in data["counters"].items()]
        named += [(kind, kind, kind, data[kind]) for kind in ("negated", "means")]
        parts = {name: f"(?:{'|'.join(of)})" if isinstance(of, list) else of for name, of in data["parts"].items()}
    except (KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"crisis_rules.yaml: no {error}; restore it: git checkout data_pipeline/safety") from None
    for kind, flag, name, lines in named:
        for number, line in enumerate(lines, 1):
            lists[kind].append(Rule(name, flag, _compiled(f"{name}, pattern {number}", line, parts)))
    return {kind: Rules(of, words_near([rule.pattern.pattern for rule in of])) for kind, of in lists.items()}


def _compiled(where: str, line: str, parts: dict[str, str]) -> re.Pattern:
    try:
        while (filled := re.sub(r"\$([A-Z]+)", lambda name: parts[name[1]], line)) != line:
            line = filled
    except (KeyError, TypeError) as error:
        raise BadInput(f"crisis_rules.yaml: rule {where}: no part {error}; add it to parts") from None
    return compiled(line, f"crisis_rules.yaml: rule {where}")


def tried(read: str) -> tuple[list[Match], str]:
    """Returns (start, end and rule of the first match of each rule in a text in plain spelling, the text with what is
    no crisis blotted out, character by character).
    """
    rules = crisis_rules()
    for place in rules["counters"].near(read):
        read = rules["counters"].rules[place].pattern.sub(lambda match: _WORD.sub("某", match[0]), read)
    found: dict[str, Match] = {}
    denied = []
    for place in rules["rules"].near(read):
        rule = rules["rules"].rules[place]
        for match in rule.pattern.finditer(read) if rule.name not in found else ():
            if _denied(read, match.start()):
                denied.append(match.span())
            else:
                found[rule.name] = (*match.span(), rule)
                break
    for start, end in denied:
        read = read[:start] + _WORD.sub("某", read[start:end]) + read[end:]
    return list(found.values()), read


def _denied(read: str, start: int) -> bool:
    """Whether a negation stands before `start`, or ends with the character there: 不想死."""
    rules, ends = crisis_rules()["negated"].rules, (start, start + (read[start] not in _NO))
    return any(rule.pattern.search(read[max(0, start - _BEFORE) : end]) for end in ends for rule in rules)


def find_crisis(text: str) -> list[Span]:
    """Returns what in `text` may speak of a crisis: the first match of each rule, and sentences that the model marks.

    `kind` is the flag; the span points into `text` as it was given.
    """
    read, places = normalised_with_places(text)
    if not (crisis_rules()["rules"].match([read])[0] or risky_sentences([read])[0]):  # nearly always
        return []
    found, read = tried(read)
    matches = [(start, end, rule.flag, rule.name) for start, end, rule in found]
    matches += [(start, end, "suicide", "model") for start, end in risky_sentences([read])[0]]
    places.append(len(text))
    spans = [(places[start], places[end], flag, name) for start, end, flag, name in matches]
    return sorted((Span(a, b, flag, text[a:b], name) for a, b, flag, name in spans), key=lambda s: (s.start, s.rule))


def crisis_flags(text: str) -> list[str]:
    """Returns the sorted flags of `text`: suicide, suicide_plan, suicide_attempt, self_harm, harm_others."""
    return flags_of([text])[0]


def flags_of(texts: list[str]) -> list[list[str]]:
    """Returns as `crisis_flags` of each text: the model reads many at once in a fraction of the time."""
    reads = list(map(normalised, texts))
    ruled, risky = crisis_rules()["rules"].match(reads), risky_sentences(reads)
    speaking = [place for place in range(len(reads)) if ruled[place] or risky[place]]
    tries = [tried(reads[place]) for place in speaking]
    flags: list[list[str]] = [[] for _ in reads]
    for place, (found, _), still in zip(speaking, tries, risky_sentences([left for _, left in tries]), strict=True):
        flags[place] = sorted({rule.flag for _, _, rule in found}) or (["suicide"] if still else [])
    return flags


def names_means(text: str) -> bool:
    """Whether a reply names means of suicide, whatever it says of them."""
    return crisis_rules()["means"].match([normalised(text)])[0]
