"""Crisis rules, used by synthesis, chat and evaluation: which texts a person should look at.

The rules are data with examples, `crisis_rules.yaml`. They favour recall and are no diagnosis.
"""

import re
from functools import lru_cache
from pathlib import Path

import yaml

from data_pipeline.safety.many_patterns import ManyPatterns
from data_pipeline.safety.needed_words import alternatives, together
from data_pipeline.safety.screening import Span

_WORD = re.compile(r"\w")
# Traditional characters in the words of the crisis rules.
_TRADITIONAL = str.maketrans(
    "殺傷殘輕結樓藥農遺離開這個沒們壓對還讓會嗎媽說書頭撞過亂從間麼難為著嘗試圖準備計劃決無與強總覺現別裡後點歲",
    "杀伤残轻结楼药农遗离开这个没们压对还让会吗妈说书头撞过乱从间么难为着尝试图准备计划决无与强总觉现别里后点岁",
)
# Frequent ones of them, and halves of characters, as broken JSON escapes leave them.
_ODD_SIGN = re.compile("[殺傷殘輕結樓藥農遺離開這個沒們讓會\ud800-\udfff]")


@lru_cache(1)
def crisis_rules() -> dict:
    """Returns `crisis_rules.yaml` with its patterns: `sought`, `rule_of` each by place, figures to be `blotted`."""
    text = (Path(__file__).parent / "crisis_rules.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def filled(pattern: str) -> str:
        pattern = re.sub(r"\$([A-Z]+)", lambda name: filled(data["parts"][name[1]]), pattern)
        return pattern.replace("\n", "")

    sought, blotted, data["rule_of"] = [], [], []
    for rule in data["rules"]:
        for way in rule["ways"]:
            near = isinstance(way, list)
            sought += [together(list(map(filled, way)), data["near"])] if near else alternatives(filled(way))
        data["rule_of"] += [rule] * (len(sought) - len(data["rule_of"]))
    for figure in data["figures"]:
        blotted += alternatives(filled(figure["pattern"]))
    return data | {"sought": ManyPatterns(sought), "blotted": ManyPatterns(blotted)}


def literal(text: str) -> str:
    """Returns `text` as crisis rules read it: figures of speech and the like blotted out, character by character."""
    figures, read, at = crisis_rules()["blotted"], "", 0
    matches = [figures.pattern(place).search(text) for place in figures.found_in(text)]
    while matches:  # the first one each time, as one pattern of all would find them
        first = min(matches, key=re.Match.start)
        read += text[at : first.start()] + _WORD.sub("某", first[0])
        at = first.end()
        matches = [match if match.start() >= at else match.re.search(text, at) for match in matches]
        matches = [match for match in matches if match]
    return read + text[at:]


def find_crisis(text: str) -> list[Span]:
    """Returns what in `text` may speak of a crisis, one span per rule (its first match); kind is the flag."""
    rules, read = crisis_rules(), text.replace("’", "'")
    if _ODD_SIGN.search(read):
        read = read.translate(_TRADITIONAL).encode("utf-8", "replace").decode()
    places = rules["sought"].found_in(read)
    if not places:
        return []
    read, found = literal(read), []
    for place in places:
        if match := rules["sought"].pattern(place).search(read):
            rule, (start, end) = rules["rule_of"][place], match.span()
            found.append(Span(start, end, rule["flag"], text[start:end], rule["name"]))
    first = {span.rule: span for span in sorted(reversed(found), key=lambda span: -span.start)}
    return sorted(first.values(), key=lambda span: (span.start, span.rule))


def crisis_flags(text: str) -> list[str]:
    """Returns the sorted flags of `text`: suicide, suicide_plan, suicide_attempt, self_harm, harm_others."""
    return sorted({span.kind for span in find_crisis(text)})
