"""Crisis rules, used by synthesis, chat and evaluation: which texts a person should look at.

The rules are data with examples, `crisis_rules.yaml`. They favour recall and are no diagnosis.
"""

import re
from functools import lru_cache
from itertools import permutations
from pathlib import Path

import yaml

from data_pipeline.screening import Span, re2_options, re2_pattern, screen

# Traditional characters in the words of the crisis rules.
_TRADITIONAL = str.maketrans(
    "殺傷殘輕結樓藥農遺離開這個沒們壓對還讓會嗎媽說書頭撞過亂從間麼難為著嘗試圖準備計劃決無與強總覺現別裡後點歲",
    "杀伤残轻结楼药农遗离开这个没们压对还让会吗妈说书头撞过乱从间么难为着尝试图准备计划决无与强总觉现别里后点岁",
)
_TRADITIONAL_SIGN = re.compile("[殺傷殘輕結樓藥農遺離開這個沒們讓會]")


@lru_cache(1)
def crisis_rules() -> dict:
    """Returns `crisis_rules.yaml`, compiled: `sought`, and by the first of their needs the ways."""
    import re2

    data = yaml.safe_load((Path(__file__).parent / "crisis_rules.yaml").read_text(encoding="utf-8"))
    sought, by_first = {}, {}

    def filled(pattern: str) -> str:
        return re2_pattern(re.sub(r"\$([A-Z]+)", lambda name: filled(data["parts"][name[1]]), pattern))

    for rule, way in ((each, way) for each in data["rules"] for way in each["ways"]):
        needs = [f"(?:{filled(need)})" for need in way["needs"]]
        near = "|".join(data["near"].join(some) for some in permutations(needs))
        pattern = re2.compile(filled(way.get("pattern", near)), re2_options())
        places = [sought.setdefault(need, len(sought)) for need in needs]
        by_first.setdefault(places[0], []).append((frozenset(places), pattern, rule))
    figures = "|".join(filled(figure["pattern"]) for figure in data["figures"])
    data["hidden"] = re2.compile(figures, re2_options())
    data |= {"sought": list(sought), "screen": screen(list(sought)), "by_first": by_first}
    return data


def crisis_needs() -> list[str]:
    """Returns patterns for `screen`: a text without any of them has no flag."""
    rules = crisis_rules()
    return [*(rules["sought"][first] for first in rules["by_first"]), _TRADITIONAL_SIGN.pattern]


def literal(text: str) -> str:
    """Returns `text` as crisis rules read it: figures of speech and the like blotted out, character by character."""
    return crisis_rules()["hidden"].sub(lambda match: re.sub(r"\w", "某", match[0]), text)


def find_crisis(text: str) -> list[Span]:
    """Returns what in `text` may speak of a crisis, one span per rule (its first match); kind is the flag."""
    rules, read = crisis_rules(), text
    if not text.isascii():
        if _TRADITIONAL_SIGN.search(text):
            read = text.translate(_TRADITIONAL)
        read = read.encode("utf-8", "replace").decode()  # half of a character, as broken JSON escapes leave it
    read = read.replace("’", "'")
    needed, found = set(rules["screen"](read)), {}
    ways = [way for first in rules["by_first"].keys() & needed for way in rules["by_first"][first]]
    ways = [way for way in ways if way[0] <= needed and way[1].search(read)]
    if not ways:
        return []
    read = literal(read)
    for _, pattern, rule in ways:
        if rule["name"] not in found and (match := pattern.search(read)):
            start, end = match.span()
            found[rule["name"]] = Span(start, end, rule["flag"], text[start:end], rule["name"])
    return sorted(found.values(), key=lambda span: (span.start, span.rule))


def crisis_flags(text: str) -> list[str]:
    """Returns the sorted flags of `text`: suicide, suicide_plan, suicide_attempt, self_harm, harm_others."""
    return sorted({span.kind for span in find_crisis(text)})
