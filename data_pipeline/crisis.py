"""Crisis rules, used by synthesis, chat and evaluation: which texts a person should look at.

The rules are data with examples, `crisis_rules.yaml`. They favour recall and are no diagnosis.
"""

import re
from functools import lru_cache
from pathlib import Path

import yaml

from data_pipeline.many_patterns import ManyPatterns
from data_pipeline.needed_words import alternatives, together
from data_pipeline.screening import Span

_WORD = re.compile(r"\w")
# Traditional characters in the words of the crisis rules.
_TRADITIONAL = str.maketrans(
    "殺傷殘輕結樓藥農遺離開這個沒們壓對還讓會嗎媽說書頭撞過亂從間麼難為著嘗試圖準備計劃決無與強總覺現別裡後點歲",
    "杀伤残轻结楼药农遗离开这个没们压对还让会吗妈说书头撞过乱从间么难为着尝试图准备计划决无与强总觉现别里后点岁",
)
_TRADITIONAL_SIGN = re.compile("[殺傷殘輕結樓藥農遺離開這個沒們讓會]")


@lru_cache(1)
def crisis_rules() -> dict:
    """Returns `crisis_rules.yaml`, compiled: `sought` and by place the `rule_of` each, and figures of speech, `blotted`."""
    data = yaml.safe_load((Path(__file__).parent / "crisis_rules.yaml").read_text(encoding="utf-8"))

    def filled(pattern: str) -> str:
        pattern = re.sub(r"\$([A-Z]+)", lambda name: filled(data["parts"][name[1]]), pattern)
        return pattern.replace("\n", "")

    sought, data["rule_of"] = [], []
    for rule, way in ((rule, way) for rule in data["rules"] for way in rule["ways"]):
        near = not isinstance(way, str)
        each = [together([filled(part) for part in way], data["near"])] if near else alternatives(filled(way))
        sought += each
        data["rule_of"] += [rule] * len(each)
    data["sought"] = ManyPatterns(sought)
    data["blotted"] = ManyPatterns([each for figure in data["figures"] for each in alternatives(filled(figure["pattern"]))])
    return data


def literal(text: str) -> str:
    """Returns `text` as crisis rules read it: figures of speech and the like blotted out, character by character."""
    figures, read, at = crisis_rules()["blotted"], "", 0
    places = figures.found_in(text)
    while matches := [match for place in places if (match := figures.pattern(place).search(text, at))]:
        first = min(matches, key=re.Match.start)
        read += text[at : first.start()] + _WORD.sub("某", first[0])
        at = first.end()
    return read + text[at:]


def find_crisis(text: str) -> list[Span]:
    """Returns what in `text` may speak of a crisis, one span per rule (its first match); kind is the flag."""
    rules, read = crisis_rules(), text
    if not text.isascii():
        if _TRADITIONAL_SIGN.search(text):
            read = text.translate(_TRADITIONAL)
        read = read.encode("utf-8", "replace").decode()  # half of a character, as broken JSON escapes leave it
    read = read.replace("’", "'")
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
