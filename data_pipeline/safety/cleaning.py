"""What is taken out of people's texts, and of what models write: one place for all that reads or makes texts.

Taken out: emoji and emoticons, repeated content, links, markup, page furniture and advertisements; contact data and
names of authors are masked with a placeholder such as [电话已隐去]; punctuation is made consistent, control characters
go. Psyche-R1 gives these aims (figure 2: clean); the rules are ours and are data: `clean_rules.yaml`,
`page_furniture.yaml`, `advertisement_signs.txt`, `advertisement_weights.tsv`, `personal_data.yaml`.
"""

import html
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from data_pipeline.records import Fault
from data_pipeline.safety.advertisements import LEAST, find_advertisements, signs_in
from data_pipeline.safety.crisis import crisis_flags, flags_of
from data_pipeline.safety.page_furniture import find_page_furniture, furniture_needs
from data_pipeline.safety.personal_data import contact_needs, find_contacts, placeholder
from data_pipeline.safety.screening import screen

REFUSED = ("contact", "link", "ad", "markup", "page")  # kinds that no model's reply may hold
_CJK = r"[\u3001-\u303f\u3400-\u9fff\uff01-\uffef“”‘’…—]"
# Signs that some rule of writing may change, alone or two in a row (RE2).
_UNTIDY = (
    r"[!-&(-,./:-@\[-`{-~\x7f-\x{a0}\x{ad}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{2060}-\x{206f}\x{3000}０-９Ａ-Ｚａ-ｚ"
    r"\x{e000}-\x{f8ff}\x{fe0f}\x{feff}\x{fff9}-\x{fffd}\x{61c}\x{e0000}-\x{e007f}\r\t\x00-\x08\x0b\x0c\x0e-\x1f]"
    r"|[。！？…，、；：～—\n -][。！？…，、；：～—\n -]"
)
# What is not seen and steers, and characters that HTML spells out (RE2).
_UNSEEN = (
    r"&[#a-zA-Z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}"
    r"\x{e000}-\x{f8ff}\x{fe0f}\x{feff}\x{fff9}-\x{fffc}\x{e0000}-\x{e007f}]"
)
_NOTHING = r"[^\x00-\x{10ffff}]"
MASK = "•"  # of the signs of contact data
WRITING = "writing"  # of `leave`
_WIDE = {code: code - 0xFEE0 for first, last in ("０９", "ＡＺ", "ａｚ") for code in range(ord(first), ord(last) + 1)}
_WIDE_SIGN = re.compile("[０-９Ａ-Ｚａ-ｚ]")
_SENTENCE = re.compile(r"[^。！？!?\n；;…]*[。！？!?\n；;…]*")
_PLAIN = re.compile("[\u4e00-\u9fff]{0,12}")  # short words in Chinese alone hold nothing to take out
REPEATS = -1  # among the places of what a text needs
JOIN = "¶"  # between texts that are looked at together
_LONE = "，。、；：,; \n"  # at the beginning, after what was taken out there


@dataclass(slots=True)
class Removed:
    start: int
    end: int
    kind: str  # emoji, emoticon, link, markup, ad, repeat, short, contact
    rule: str
    text: str  # of contact data: its shape
    put: str = ""  # what stands there now


@dataclass(slots=True)
class Cleaned:
    text: str
    removed: list[Removed] = field(default_factory=list)
    crisis: list[str] = field(default_factory=list)  # flags of the text as it came in


@dataclass(frozen=True)
class _Rules:
    remove: list[dict]
    repeats: list[dict]  # those that need a repetition, which the screen cannot see
    write: list[dict]
    signs: re.Pattern  # with which what a rule of writing needs begins
    needs: list[tuple[str, str]]  # (kind, pattern without which nothing is found) of removing, writing and the rest


@lru_cache(1)
def _rules() -> _Rules:
    """Returns the rules of `clean_rules.yaml`, patterns compiled."""
    import regex

    rules = yaml.safe_load((Path(__file__).parent / "clean_rules.yaml").read_text(encoding="utf-8"))
    for rule in rules["remove"]:
        module = regex if r"\p{" in rule["pattern"] else re  # properties are for `regex` alone, `re` is faster
        rule["pattern"] = module.compile(rule["pattern"].replace("\n", ""))
    for rule in rules["write"]:
        rule["pattern"] = re.compile(rule["pattern"].replace("$C", _CJK))
        rule["first"], rule["gives"] = {sign[0] for sign in rule["needs"]}, set(rule["put"])
    signs = re.compile(f"[{re.escape(''.join(sorted(set().union(*(rule['first'] for rule in rules['write'])))))}]")
    remove = [rule for rule in rules["remove"] if "needs" in rule]
    repeats = [rule for rule in rules["remove"] if "needs" not in rule]
    others = (("contact", contact_needs()), ("page", furniture_needs()))
    needs = [(rule["kind"], rule["needs"]) for rule in remove]
    needs += [(kind, pattern) for kind, patterns in others for pattern in patterns]
    return _Rules(remove, repeats, rules["write"], signs, needs)


@lru_cache(4)
def _screen(leave: frozenset[str]) -> Callable[[str], list[int]]:
    """Returns what gives the places, in `needs` and, behind them, untidy writing, that a text needs."""
    patterns = [_NOTHING if kind in leave else pattern for kind, pattern in _rules().needs]
    return screen([*patterns, _UNSEEN if WRITING in leave else _UNTIDY, f"{JOIN}[{_LONE}]"])


def clean_text(text: str, leave: Collection[str] = (), flags: bool = True) -> Cleaned:
    """Returns the cleaned text, what was taken out of it, and the crisis flags of the text as it came in.

    What is of a kind in `leave` stays, with "writing" the punctuation of a text from which nothing is taken out, too;
    without `flags` no crisis is looked for.
    """
    return clean_many([text], leave, flags)[0]


def clean_many(texts: list[str], leave: Collection[str] = (), flags: bool = True) -> list[Cleaned]:
    """Returns as `clean_text` of each: together they take a fraction of the time."""
    leave = frozenset(leave)
    crisis: list[list[str] | None] = list(flags_of(texts)) if flags else [None] * len(texts)
    needs = map(_screen(leave), texts)
    cleaned = []
    for text, found, needed, repeats in zip(texts, crisis, needs, _repeating(texts), strict=True):
        needed = [*needed, REPEATS] if repeats else needed
        cleaned.append(_clean(text, needed, leave, found) if text else Cleaned(text))
        cleaned[-1].crisis = found or []
    return cleaned


def clean_texts(texts: Sequence[str], leave: frozenset[str]) -> list[Cleaned] | None:
    """Returns each text as `clean_text(text, leave, flags=False)` does, None where all of them are clean: one look at
    the texts of a record together finds the rules that any of them may need. "repeat" is in `leave`.
    """
    plain = [_PLAIN.fullmatch(text) for text in texts]
    whole = JOIN.join(["", *(text for text, short in zip(texts, plain, strict=True) if not short)])
    look, signs = _screen(leave), [place for _, place in signs_in(whole)]
    found = look(whole)
    if not found and len(signs) < LEAST:
        return None
    alone, sold, unsold = plain.count(None) == 1, len(signs) >= LEAST, leave | {"ad"}
    cleaned, end = [], 0
    for text, short in zip(texts, plain, strict=True):
        start, end = end, end if short else end + len(JOIN) + len(text)
        sells = sold and sum(start <= place < end for place in signs) >= LEAST
        needed = [] if short or not found else found if alone else look(JOIN + text)
        if needed or sells:
            cleaned.append(_clean(text, needed, leave if sells else unsold))
        else:
            cleaned.append(Cleaned(text.strip().lstrip(_LONE)))
    return cleaned


def _clean(text: str, needed: list[int], leave: Collection[str], crisis: list[str] | None = None) -> Cleaned:
    """Returns as `clean_text`, without flags; `needed` are the places that the screen gave, `crisis` the text's flags
    where they are known.
    """
    removed, cleaned, untidy = _find(text, needed, leave, crisis), text, len(_rules().needs)
    if removed:
        kept, at = [], 0
        for span in removed:
            kept += text[at : span.start], span.put
            at = span.end
        cleaned = "".join([*kept, text[at:]])
    if removed or untidy in needed:
        cleaned = (
            without_control(html.unescape(text)) if WRITING in leave and not removed else write_punctuation(cleaned)
        )
    return Cleaned(cleaned.strip().lstrip(_LONE), removed)


def _find(text: str, needed: list[int], leave: Collection[str], crisis: list[str] | None) -> list[Removed]:
    """Returns what is to be taken out, in order, without overlap: no sentence that speaks of a crisis. The rest as in
    `_clean`.
    """
    rules, spans = _rules(), []
    count = len(rules.remove)
    if count in needed and "contact" not in leave:
        for contact in find_contacts(text):
            shape, put = _shape(contact.text), placeholder(contact.kind)
            spans.append(Removed(contact.start, contact.end, "contact", contact.rule, shape, put))
    tried = [rules.remove[place] for place in needed if place < count and rules.remove[place]["kind"] not in leave]
    if "repeat" not in leave and REPEATS in needed:
        tried += rules.repeats
    for rule in tried:
        for match in rule["pattern"].finditer(text):
            start, end = match.span("x" if "x" in match.re.groupindex else 0)
            if rule.get("unit"):
                start, end = _sentence(text, start, end)
                if crisis != [] and crisis_flags(text[start:end]):
                    continue  # never lost, whatever else stands in the sentence
            spans.append(Removed(start, end, rule["kind"], rule["name"], text[start:end], rule.get("put", "")))
    other = find_page_furniture(text) if count + 1 in needed and "page" not in leave else []
    other += find_advertisements(text) if "ad" not in leave else []
    for span in other:
        if crisis == [] or not crisis_flags(span.text):  # as above
            spans.append(Removed(span.start, span.end, span.kind, span.rule, span.text))
    spans += _repeats(text) if "repeat" not in leave else []
    return _without_overlap(spans, text) if spans else spans


def _repeating(texts: list[str]) -> list[bool]:
    """Returns whether in each text one character may stand four times in a row, or two to four of them three times.

    Such a text equals itself moved by the period for so long. All texts are moved at once: less than what
    back-references cost on texts without repetition, which nearly all are.
    """
    units = [text.encode("utf-16-le", "surrogatepass") for text in texts]
    whole = np.frombuffer(b"\0\0".join([*units, b""]), np.uint16)
    repeats = np.zeros(len(whole), bool)
    for period, times in ((1, 3), (2, 4), (3, 6), (4, 8)):
        same, run = whole[period:] == whole[:-period], 1
        while run < times:  # how many in a row are the same
            more = min(run, times - run)
            same, run = same[:-more] & same[more:], run + more
        repeats[: len(same)] |= same
    lengths = [len(each) // 2 + 1 for each in units]
    return np.logical_or.reduceat(repeats, np.cumsum([0, *lengths[:-1]])).tolist() if texts else []


def _shape(datum: str) -> str:
    return datum[0] + re.sub(r"\w", MASK, datum[1:])


def _without_overlap(removed: list[Removed], text: str) -> list[Removed]:
    """Returns the spans in order; one that lies in or laps over another is one with it, and empty brackets go along."""
    spans: list[Removed] = []
    for span in sorted(removed, key=lambda s: (s.start, -s.end)):
        outer = spans[-1] if spans and span.start < spans[-1].end else None
        if outer is None:
            spans.append(span)
            continue
        if span.end > outer.end:
            outer.text += text[outer.end : span.end]
            outer.end = span.end
            outer.put = outer.put or span.put
        if span.kind == "contact":  # the file of removed spans bears no datum either
            outer.text = outer.text.replace(text[span.start : span.end], span.text)
    for span in spans:
        before, behind = text[span.start - 1 : span.start], text[span.end : span.end + 1]
        if not span.put and before + behind in ("()", "（）"):
            span.start, span.end, span.text = span.start - 1, span.end + 1, before + span.text + behind
        elif not span.put and before and before == behind and before in "。，！？；":
            span.end, span.text = span.end + 1, span.text + behind  # else the two would meet and read as one run
    return spans


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns the borders of the sentence around a span; of one longer than 120 characters, those of the clause."""
    for marks in ("。！？!?\n；;…", "。！？!?\n；;…，, "):
        first = max(text.rfind(mark, 0, start) for mark in marks) + 1
        last = min((at for mark in marks if (at := text.find(mark, end)) >= 0), default=len(text))
        if last - first <= 120:
            break
    return first, min(last + 1, len(text))


def _repeats(text: str) -> list[Removed]:
    """Returns the later copies of repeated sentences, and the second half of a text pasted twice.

    Copies are sentences in a row that stood before and have 30 characters or more together; one of 8 or more right
    after itself; a shorter one the third time in a row. Limits ours: shorter repetition is how people speak.
    """
    size = len(text)
    if size > 15 and text.find(text[:8], 1) > 0 and (period := (text + text).find(text, 1)) < size:
        return [Removed(period, size, "repeat", "pasted_twice", text[period:])]
    parts = text.replace("！", "。").replace("？", "。").replace("\n", "。").replace("!", "。").split("。")
    if len(set(parts)) == len(parts):
        return []
    repeated, block, seen, previous, count = [], [], set(), "", 0
    for match in (*_SENTENCE.finditer(text), None):
        sentence = re.sub(r"[\W_]", "", match[0]) if match else ""
        if match and not sentence:
            continue
        count = count + 1 if sentence == previous else 1
        if count > 2 or (count > 1 and len(sentence) >= 8):
            repeated.append(match)
        elif sentence in seen:
            block.append(match)
        else:
            repeated += block if sum(m.end() - m.start() for m in block) >= 30 else []
            block = []
        seen.add(sentence)
        previous = sentence
    return [Removed(m.start(), m.end(), "repeat", "repeated_sentence", m[0]) for m in repeated]


def write_punctuation(text: str) -> str:
    """Returns `text` with consistent punctuation, blanks and width; words and their order stay."""
    rules = _rules()
    text = html.unescape(text) if "&" in text else text
    text = text.translate(_WIDE) if _WIDE_SIGN.search(text) else text
    signs = set(rules.signs.findall(text))
    for rule in rules.write:
        if not rule["first"] or not signs.isdisjoint(rule["first"]):
            text = rule["pattern"].sub(rule["put"], text)
            signs |= rule["gives"]
    return text.strip().lstrip(_LONE)


def without_control(text: str) -> str:
    """Returns `text` without characters that are not seen but steer: control and bidirectional ones, terminal codes."""
    for rule in _rules().write:
        if rule["name"] in ("terminal", "invisible"):
            text = rule["pattern"].sub("", text)
    return text


def checked_reply(text: str) -> str | Fault:
    """Returns what a model wrote without control characters; or the Fault of one that holds what is taken out of
    people's texts: links, contact data, advertisements, markup and page furniture.
    """
    refused = [span for span in clean_text(text, flags=False).removed if span.kind in REFUSED]
    if refused:
        named = ", ".join(f"{span.rule} ({span.text[:40]})" for span in refused)
        return Fault("holds what cleaning takes out", named)
    return without_control(text)
