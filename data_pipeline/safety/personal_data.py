"""Contact data: phone, QQ, WeChat, e-mail and ID numbers however they are spelled, and names of authors: to be masked.

The rules are data with examples, `personal_data.yaml`. Contact data is found in the folded text, where each character
stands at its place in the original, so that spans hold for both.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import yaml

from data_pipeline.safety.helplines import HELPLINES_BY_COUNTRY
from data_pipeline.safety.screening import Span, screen

HERE = Path(__file__).parent
LEAST_DIGITS, MOST_DIGITS = 5, 19  # of numbers that any rule knows

# Characters that stand for digits 0 to 9: formal and everyday numerals; and homophones, which count only in long runs.
_NUMERALS = ("〇零○", "一壹幺弌", "二贰弍貳", "三叁弎參", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
_HOMOPHONES = (
    "洞凌灵令",
    "妖腰衣医伊依要",
    "儿两尔而",
    "伞散山",
    "死思司斯",
    "吴武舞无呜",
    "溜刘柳留",
    "期妻拐起",
    "吧爸霸巴",
    "久酒勾狗旧",
)


def _table() -> dict[int, str]:
    """Maps characters to what the rules know them as, one to one."""
    table = {ord(c): str(i) for i, chars in enumerate(_NUMERALS) for c in chars}
    ranges = ((0xFF01, 0xFF5F), (0x2070, 0x209D), (0x2460, 0x2500), (0x2776, 0x2794), (0x1D400, 0x1D800), (0xB2, 0xBA))
    digits = ((0x0660, 0x066A), (0x06F0, 0x06FA), (0x0966, 0x0970), (0x0E50, 0x0E5A), (0x1F100, 0x1F16A))
    for code in (code for start, end in (*ranges, *digits) for code in range(start, end)):
        char = chr(code)
        value = unicodedata.digit(char, None)
        plain = str(value) if value is not None else unicodedata.normalize("NFKC", char).lower()
        plain = plain[1] if len(plain) == 3 and plain[0] == "(" else plain  # ⒜
        if len(plain) == 1:
            table[code] = plain
    table[0x24EA] = table[0x1F10B] = "0"
    for mark in "，！？；":  # frequent, and no rule needs them
        del table[ord(mark)]
    return table


_TABLE = _table()
_FOLDED = re.compile(f"[{''.join(chr(code) for code in _TABLE if code < 0x10000)}]")
_STYLED = re.compile("[\U0001d400-\U0001d7ff\U0001f100-\U0001f1ff]")  # apart: such a class is slow in `re`
_HOMOPHONE_TABLE = {ord(c): str(i) for i, chars in enumerate(_HOMOPHONES) for c in chars}
_HIGH = "".join(chr(code) for code, to in _TABLE.items() if to.isdigit() and code < 0x10000)  # digits beyond ASCII
_DIGIT = f"[0-9{_HIGH}]"
_SOUNDS = re.compile(f"[0-9{_HIGH}{''.join(_HOMOPHONES)}]{{8,}}")
_SIGNS = r"(?:[^\w\n]|[_杠横空格减])"  # may stand between the digits of one number
_BETWEEN = rf"{_SIGNS}{{0,4}}?"
# A text can hold a contact only with a letter among four letters and digits, seven words of Latin letters or an @, five
# digits, sounds of digits, styled letters, or the label of an author.
_LATIN_LETTER, _SIGN = "[a-zA-Zａ-ｚＡ-Ｚ_]", "[a-zA-Z0-9ａ-ｚＡ-Ｚ_.-]"
_WORTH = (
    rf"{_LATIN_LETTER}{_SIGN}{{3}}|\d{_LATIN_LETTER}{_SIGN}{{2}}|\d\d{_LATIN_LETTER}{_SIGN}|\d{{3}}{_LATIN_LETTER}|[@＠]"
    r"|(?:[a-zA-Z]+[\s,.-]+){6}[a-zA-Z]"
    rf"|{_DIGIT}(?:[\W_杠横空格减]{{0,4}}{_DIGIT}){{4}}|[0-9{_HIGH}{''.join(_HOMOPHONES)}]{{8}}"
    "|[\U0001d400-\U0001d7ff\U0001f100-\U0001f1ff]|(?:作者|[楼答题博]主|发帖人|[回提][答问]者|昵称|用户名|网名|笔名)\\s?[:：]"
)
_LETTERED = re.compile(r"(?<![a-z\d])[\dli|][\doil|]{6,}")
# A numeral that only touches a number belongs to the word beside it: 12345678一起.
_LONG = re.compile(r"\d\d\d")
_TOUCHING = re.compile(
    r"(?<=\d{5})[一二三四五六七八九](?=[一-龥])(?![零〇一二三四五六七八九幺])"
    r"|(?<=[一-龥])(?<![零〇一二三四五六七八九幺])[一二三四五六七八九](?=\d{5})"
)
_RUN = re.compile(rf"\d(?:{_BETWEEN}\d)*(?:{_BETWEEN}x(?![a-z]))?")
_GROUPS = re.compile(r"\d+x?|x")
_STRONG = re.compile(r"[，。；！？、,;!?\n]")
_DECIMAL = re.compile(r"\d\.\Z")
_HOURS = re.compile(r"\D{0,4}(?:24\s?(?:小[时時]|h|/\s?7)|7\s?[x×*]\s?24)")  # of a help line, behind its number
_AMOUNT = re.compile(r"\s?[元块步人次年天岁个分条张]")  # what counts, behind a label: 微信余额5000元


def fold(text: str) -> str:
    """Returns `text` as contact rules read it, character by character at the same place."""
    folded = text.lower()
    if len(folded) != len(text):  # İ and its like become two characters
        folded = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    if not folded.isascii():
        if _LONG.search(folded):
            folded = _TOUCHING.sub("某", folded)
        if _SOUNDS.search(folded):
            folded = _SOUNDS.sub(_sounds, folded)
        for signs in (_FOLDED, _STYLED):  # few stand in a text: faster than str.translate
            folded = signs.sub(lambda m: _TABLE.get(ord(m[0]), m[0]), folded)
    return _LETTERED.sub(_letters, folded) if _LONG.search(folded) else folded


def _sounds(match: re.Match) -> str:
    word = match[0]
    sounds = sum(ord(char) in _HOMOPHONE_TABLE for char in word)
    return word.translate(_HOMOPHONE_TABLE) if sounds >= 4 else word  # 12345678吧 is no number of nine digits


def _letters(match: re.Match) -> str:
    word = match[0]
    return word.translate(str.maketrans("oil|", "0111")) if sum(map(str.isdigit, word)) >= 6 else word


def _resident(digits: str) -> bool:
    """Whether the check digit of a Chinese resident number fits (GB 11643, ISO 7064 MOD 11-2)."""
    return "10x98765432"[sum(int(d) * 2 ** (17 - i) for i, d in enumerate(digits[:17])) % 11] == digits[17]


def _luhn(digits: str) -> bool:
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


_CHECKS = {"resident": _resident, "luhn": _luhn, None: lambda digits: True}


@lru_cache(1)
def _worth() -> Callable[[str], list[int]]:
    return screen([_WORTH])


@lru_cache(1)
def contact_rules() -> dict:
    """Returns `personal_data.yaml` with its patterns compiled; the numbers of all help lines are public."""
    rules = yaml.safe_load((HERE / "personal_data.yaml").read_text(encoding="utf-8"))

    def compiled(pattern: str | None) -> re.Pattern | None:
        for name, part in rules["parts"].items():
            pattern = pattern and pattern.replace(f"${name}", part)
        return re.compile(pattern) if pattern else None

    for rule in (*rules["numbers"], *rules["words"]):
        for key in ("before", "after", "digits", "shape", "pattern"):
            rule[key] = compiled(rule.get(key))
    lines = (line for lines in HELPLINES_BY_COUNTRY.values() for line in lines)
    rules["public"] = {*rules["public"], *(re.sub(r"\D", "", line.number) for line in lines)}
    rules["screen"] = screen([rule["needs"] for rule in rules["words"]])
    return rules


def find_contacts(text: str) -> list[Span]:
    """Returns the contact data in `text` in order, without overlap; links are none (`cleaning.py` removes them)."""
    if not _worth()(text):
        return []
    folded, rules, hits = fold(text), contact_rules(), []
    for rule in map(rules["words"].__getitem__, rules["screen"](folded)):
        hits += [(*match.span("x"), rule) for match in rule["pattern"].finditer(folded)]
    for run in _RUN.finditer(folded):
        if run.end() - run.start() >= 5:
            hits += _numbers(folded, run.start(), run.end(), rules)
    spans, end = [], 0
    for start, stop, rule in sorted(hits, key=lambda f: (f[0], -f[1])):
        if stop <= end:
            continue
        start = max(start, end)
        spans.append(Span(start, stop, rule["kind"], text[start:stop], rule["name"]))
        end = stop
    return spans


def _numbers(folded: str, start: int, end: int, rules: dict) -> list[tuple[int, int, dict]]:
    """Returns (start, end, rule) of the contacts among the groups of one run of digits."""
    groups = [(start + m.start(), start + m.end()) for m in _GROUPS.finditer(folded[start:end])]
    parts, part = [], []
    for group in groups:  # a sentence mark parts numbers, unless all of it is in small pieces
        if part and _STRONG.search(folded, part[-1][1], group[0]):
            if max(b - a for a, b in (part[-1], group)) >= 5 or sum(b - a for a, b in part) >= 11:
                parts, part = [*parts, part], []
        part.append(group)
    numbers = []
    parts.append(part)
    for part in parts:
        at = 0
        while at < len(part):
            if to := _public(folded, part, at, rules["public"]):
                at = to
                continue
            hit = _first(folded, part, at, rules)
            if hit:
                numbers.append((*_whole(folded, part[at][0], part[hit[0] - 1][1]), hit[1]))
            at = hit[0] if hit else at + 1
    return numbers


def _public(folded: str, groups: list, at: int, public: set[str]) -> int:
    """Returns the index behind the public number that begins at group `at`, or 0. A short one must end its run or name
    its hours behind it: 12345 may also begin somebody's number.
    """
    digits, behind = "", 0
    for to in range(at, min(len(groups), at + 20)):
        start, end = groups[to]
        digits += folded[start:end]
        if digits in public and (len(digits) >= 7 or to + 1 == len(groups) or _HOURS.match(folded, end)):
            behind = to + 1
    return behind


def _whole(folded: str, start: int, end: int) -> tuple[int, int]:
    """Returns the borders with what belongs to the number: a plus, a bracket that it closes, the frame of a keycap."""
    while folded[end : end + 1] in ("\ufe0f", "\u20e3"):
        end += 1
    if folded[start - 1 : start] in ("+", "(") and (folded[start - 1] == "+" or ")" in folded[start:end]):
        start -= 1
    return start, end


def _first(folded: str, groups: list, at: int, rules: dict) -> tuple[int, dict] | None:
    """Returns (index behind the last group, rule) of the first rule that fits the groups from `at` on, or None."""
    left = folded[max(0, groups[at][0] - 24) : groups[at][0]]
    if at == 0 and _DECIMAL.search(left):
        return None
    numbers, digits = [], ""
    for to in range(at, min(len(groups), at + 20)):
        digits += folded[groups[to][0] : groups[to][1]]
        if len(digits) > MOST_DIGITS:
            break
        if len(digits) >= LEAST_DIGITS:
            numbers.append((to + 1, digits))
    if not numbers:
        return None
    for rule in rules["numbers"]:
        fitting = [(to, digits) for to, digits in numbers if rule["digits"].fullmatch(digits)]
        if not fitting or (rule["before"] and not rule["before"].search(left)):
            continue
        for to, digits in reversed(fitting):
            count, right = to - at, folded[groups[to - 1][1] :][:20]
            shape = "-".join(str(b - a) for a, b in groups[at:to])
            if not _CHECKS[rule.get("check")](digits) or (rule["shape"] and not rule["shape"].fullmatch(shape)):
                continue
            if not rule["before"] and not rule["shape"] and 6 < count < len(digits):  # a list of small numbers
                continue
            if (rule["after"] and not rule["after"].match(right)) or (rule["before"] and _AMOUNT.match(right)):
                continue
            return to, rule
    return None


def placeholder(kind: str) -> str:
    """Returns what stands in place of a contact datum of `kind`."""
    rules = contact_rules()
    return rules["placeholder"].format(rules["names"][kind])


def contact_needs() -> list[str]:
    """Returns patterns for `screen`: a text without any of them has no contact data."""
    return [_WORTH]
