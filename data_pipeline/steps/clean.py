"""Cleaning of posts, replies, book passages and dialogue turns (Psyche-R1, figure 2: clean).

Taken out: emoji and emoticons, repeated content, links and ads; contact data is masked with a placeholder such as
[电话已隐去]; punctuation is made consistent. The paper gives these aims, the rules are ours and are data:
`clean_rules.yaml`, `safety/personal_data.yaml`. Crisis content is flagged in `meta["crisis"]` for people; a row
that bears a flag is never rejected. Every removed span is a row of `files["removed"]`, with its place in the text as
it came in; of contact data the shape alone is kept there (1••-••••), since the file is for reading.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import Field

from data_pipeline.records import Dialogue, Fault, Passage, Post, Reject, note
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.personal_data import contact_needs, find_contacts, placeholder
from data_pipeline.safety.screening import screen
from data_pipeline.steps import Outcome, Step, StepSettings, counts_under

SILENCE = "……"  # stands for a turn of a dialogue of which nothing is left: who speaks when must hold
EXCERPT = 80

_CJK = r"[\u3001-\u303f\u3400-\u9fff\uff01-\uffef“”‘’…—]"
# Signs that some rule of writing may change, alone or two in a row (RE2).
_UNTIDY = (
    r"[!-&(-,./:-@\[-`{-~\x7f-\x{a0}\x{ad}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{2060}-\x{206f}\x{3000}０-９Ａ-Ｚａ-ｚ"
    r"\x{e000}-\x{f8ff}\x{fe0f}\x{feff}\x{fffc}\x{fffd}\r\t\x00-\x08\x0b\x0c\x0e-\x1f]"
    r"|[。！？…，、；：～—\n -][。！？…，、；：～—\n -]"
)
_WIDE = {code: code - 0xFEE0 for first, last in ("０９", "ＡＺ", "ａｚ") for code in range(ord(first), ord(last) + 1)}
_WIDE_SIGN = re.compile("[０-９Ａ-Ｚａ-ｚ]")
# A character four times in a row, or two to four of them three times. The look ahead, which a third of the places pass,
# makes it three times as fast as `(.)\1{3}|(.{2,4})\2{2}`.
_REPEATED = re.compile(r"(.)(?=.{0,3}\1)(?:\1{3}|(.)\1\2\1\2|(..)\1\3\1\3|(...)\1\4\1\4)", re.S)
_SENTENCE = re.compile(r"[^。！？!?\n；;…]*[。！？!?\n；;…]*")
_LONE = "，。、；：,; \n"  # at the beginning, after what was taken out there


class Settings(StepSettings):
    """All ours: the paper names no limits. Lengths are in characters (letters, digits), after cleaning."""

    min_post: int = Field(default=10, ge=0)  # characters; ours: a shorter post says too little to be answered
    min_reply: int = Field(default=5, ge=0)  # characters; ours: a shorter reply is taken off its post and reported
    min_passage: int = Field(default=50, ge=0)  # characters; ours: a shorter passage holds no question
    min_dialogue: int = Field(default=20, ge=0)  # characters of all turns together; ours


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
    screen: Callable[[str], list[int]]  # gives places in [*remove, untidy, contacts, crisis...] that a text may need


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
    remove = [rule for rule in rules["remove"] if "needs" in rule]
    repeats = [rule for rule in rules["remove"] if "needs" not in rule]
    needs = [*(rule["needs"] for rule in remove), _UNTIDY, *contact_needs()]
    return _Rules(remove, repeats, rules["write"], screen(needs))


def clean_text(text: str, leave: Collection[str] = (), flags: bool = True) -> Cleaned:
    """Returns the cleaned text, what was taken out of it, and the crisis flags of the text as it came in.

    What is of a kind in `leave` stays; without `flags` no crisis is looked for.
    """
    if not text:
        return Cleaned(text)
    rules = _rules()
    needed, untidy = rules.screen(text), len(rules.remove)
    removed, cleaned = _find(text, needed, leave), text
    if removed:
        kept, at = [], 0
        for span in removed:
            kept += text[at : span.start], span.put
            at = span.end
        cleaned = "".join([*kept, text[at:]])
    if removed or untidy in needed:
        cleaned = write_punctuation(cleaned)
    crisis = crisis_flags(text) if flags else []
    return Cleaned(cleaned.strip().lstrip(_LONE), removed, crisis)


def _find(text: str, needed: list[int], leave: Collection[str]) -> list[Removed]:
    """Returns what is to be taken out, in order, without overlap; `needed` are the places that the screen gave, and
    kinds in `leave` stay.
    """
    rules, spans = _rules(), []
    count = len(rules.remove)
    if count + 1 in needed:
        for contact in find_contacts(text):
            shape, put = _shape(contact.text), placeholder(contact.kind)
            spans.append(Removed(contact.start, contact.end, "contact", contact.rule, shape, put))
    tried = [rules.remove[place] for place in needed if place < count and rules.remove[place]["kind"] not in leave]
    if "repeat" not in leave and _REPEATED.search(text):
        tried += rules.repeats
    for rule in tried:
        for match in rule["pattern"].finditer(text):
            start, end = match.span("x" if "x" in match.re.groupindex else 0)
            if rule.get("unit"):
                start, end = _sentence(text, start, end)
                if crisis_flags(text[start:end]):
                    continue  # never lost, whatever else stands in the sentence
            spans.append(Removed(start, end, rule["kind"], rule["name"], text[start:end], rule.get("put", "")))
    spans += _repeats(text) if "repeat" not in leave else []
    return _without_overlap(spans, text) if spans else spans


def _shape(datum: str) -> str:
    return datum[0] + re.sub(r"\w", "•", datum[1:])


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
    if size > 15 and (period := (text + text).find(text, 1)) < size:
        return [Removed(period, size, "repeat", "pasted_twice", text[period:])]
    parts = text.replace("！", "。").replace("？", "。").replace("\n", "。").replace("!", "。").split("。")
    if len(set(parts)) == len(parts):
        return []
    copies, block, seen, previous, count = [], [], set(), "", 0
    for match in (*_SENTENCE.finditer(text), None):
        sentence = re.sub(r"[\W_]", "", match[0]) if match else ""
        if match and not sentence:
            continue
        count = count + 1 if sentence == previous else 1
        if count > 2 or (count > 1 and len(sentence) >= 8):
            copies.append(match)
        elif sentence in seen:
            block.append(match)
        else:
            copies += block if sum(m.end() - m.start() for m in block) >= 30 else []
            block = []
        seen.add(sentence)
        previous = sentence
    return [Removed(m.start(), m.end(), "repeat", "repeated_sentence", m[0]) for m in copies]


def write_punctuation(text: str) -> str:
    """Returns `text` with consistent punctuation, blanks and width; words and their order stay."""
    text = html.unescape(text) if "&" in text else text
    text = text.translate(_WIDE) if _WIDE_SIGN.search(text) else text
    for rule in _rules().write:
        if not rule["needs"] or any([sign in text for sign in rule["needs"]]):
            text = rule["pattern"].sub(rule["put"], text)
    return text.strip().lstrip(_LONE)


def row(record: Post | Passage | Dialogue, settings: Settings) -> Outcome:
    """Returns the cleaned record, or a reject when too little of it is left; one with crisis content is never rejected.

    `files["removed"]` has what was taken out, `files["crisis"]` the flagged records for people.
    """
    given = _texts(record)
    cleaned = [clean_text(text) for text in given]
    outcome = Outcome()
    outcome.counts["in"] = 1
    new, parts, fault = _CLEAN[type(record)](record, cleaned, settings)
    if any([cleaned.removed or cleaned.crisis for _, cleaned in parts]):
        fault = _account(record, new, parts, fault, outcome)
    if fault:
        outcome.rejects.append(Reject(record.id, record.meta.get("where", ""), *fault))
    else:
        outcome.counts["out"], outcome.counts["changed"] = 1, int(_texts(new) != given)
        outcome.rows.append(new)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns the rows in, out, rejected and changed, removed spans by kind and rule, and rows by crisis flag."""
    return {
        "in": counts["in"],
        "out": counts["out"],
        "rejected": counts["in"] - counts["out"],
        "changed": counts["changed"],
        "removed": dict(counts_under(counts, "span").most_common()),
        "crisis": dict(counts_under(counts, "flag").most_common()),
    }


def _account(record, new, parts: list, fault: Fault | None, outcome: Outcome) -> Fault | None:
    """Enters what was removed and flagged into outcome and new record; returns `fault`, None for a flagged record."""
    where = record.meta.get("where", "")
    for part, cleaned in parts:
        for span in cleaned.removed:
            outcome.counts["span", f"{span.kind}: {span.rule}"] += 1
            facts = {"start": span.start, "end": span.end, "text": span.text, "put": span.put}
            facts = {"part": part, "kind": span.kind, "rule": span.rule} | facts
            outcome.files.setdefault("removed", []).append({"id": record.id, "where": where} | facts)
    if rules := Counter(span.rule for _, cleaned in parts for span in cleaned.removed):
        new.meta["trail"] = list(record.meta.get("trail", ()))
        note(new, "clean", removed=dict(rules))
    for key, answers in (("crisis", False), ("crisis_replies", True)):
        flagged = [c for part, c in parts if c.crisis and _answer(part) == answers]
        if flagged:
            new.meta[key] = sorted(set(record.meta.get(key, ())).union(*[c.crisis for c in flagged]))
            if key == "crisis":
                outcome.counts.update(("flag", flag) for flag in new.meta[key])
            facts = {"id": record.id, "where": where, "in": key, "flags": new.meta[key]}
            outcome.files.setdefault("crisis", []).append(facts | {"excerpt": flagged[0].text[:EXCERPT]})
            fault = None
    return fault


def _answer(part: str) -> bool:
    return part.startswith(("reply", "counselor"))


def _texts(row: Post | Passage | Dialogue) -> list[str]:
    if isinstance(row, Post):
        return [row.title, row.text, *row.replies]
    return [row.text] if isinstance(row, Passage) else [turn.content for turn in row.turns]


def _post(row: Post, cleaned: list[Cleaned], settings: Settings) -> tuple[Post, list, Fault | None]:
    title, text, *answers = cleaned
    parts, replies = [("title", title), ("text", text)], []
    for number, (reply, answer) in enumerate(zip(row.replies, answers, strict=True), 1):
        parts.append((f"reply {number}", answer))
        if answer.crisis or _letters(answer.text, settings.min_reply) >= settings.min_reply:
            replies.append(answer.text)
        else:
            answer.removed.append(Removed(0, len(reply), "short", "short_reply", answer.text))
    new = Post(row.id, row.source, title.text, text.text, replies, dict(row.meta))
    return new, parts, _too_little(new.title + new.text, settings, "min_post")


def _passage(row: Passage, cleaned: list[Cleaned], settings: Settings) -> tuple[Passage, list, Fault | None]:
    new = Passage(row.id, row.source, row.subject, cleaned[0].text, dict(row.meta))
    return new, [("text", cleaned[0])], _too_little(new.text, settings, "min_passage")


def _dialogue(row: Dialogue, cleaned: list[Cleaned], settings: Settings) -> tuple[Dialogue, list, Fault | None]:
    parts = [(f"{turn.role} {number}", c) for number, (turn, c) in enumerate(zip(row.turns, cleaned, strict=True), 1)]
    turns = [replace(t, content=c.text or SILENCE) for t, (_, c) in zip(row.turns, parts, strict=True)]
    new = Dialogue(row.id, row.source, turns, dict(row.meta))
    return new, parts, _too_little("".join(c.text for _, c in parts), settings, "min_dialogue")


def _letters(text: str, limit: int) -> int:
    """Returns the number of letters and digits of `text`, or `limit` where it surely has more."""
    return limit if len(text) > 4 * limit + 20 else sum(map(str.isalnum, text))


def _too_little(text: str, settings: Settings, key: str) -> Fault | None:
    limit = getattr(settings, key)
    left = _letters(text, limit)
    return None if left >= limit else Fault("too little left", f"{left} characters, fewer than {key}={limit}")


_CLEAN = {Post: _post, Passage: _passage, Dialogue: _dialogue}
STEP = Step(takes=(Post, Passage, Dialogue), settings=Settings, row=row, report=report, files=("removed", "crisis"))
