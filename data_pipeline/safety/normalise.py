"""Text as the crisis rules read it: one spelling for what people and filters' evaders write in many.

Compatibility characters, traditional ones, accents and look-alikes are folded; invisible characters, and separators
between characters, fall away; emoji, pinyin, homophones, net language and dialect become plain words. The tables are
data: `crisis_words.yaml`. Each character of the reading knows which one of the text it came from.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import yaml

from data_pipeline.errors import BadInput
from data_pipeline.safety.needed_words import needed_words, words_near

HAN = "\u3400-\u9fff\U00020000-\U0003ffff"
_NOTHING = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # fillers: letters by their category, blank to the eye
_DIGIT = str.maketrans("01345789@$!|", "oieasteqasil")
_LATIN = re.compile(r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL )?([A-Z])(?: WITH|$)")
_COMMAS = "，？！：；"
_PUT = str | Callable[[re.Match], str]


def compiled(pattern: str, where: str) -> re.Pattern:
    """Returns the pattern; raises BadInput that names `where` for one that is none, or that needs no word."""
    try:
        needed_words(pattern)
        return re.compile(pattern)
    except (TypeError, ValueError, re.error) as error:
        raise BadInput(f"{where}: {error}; correct the pattern {str(pattern)[:80]!r}") from None


def read_yaml(name: str) -> dict:
    """Returns a YAML file of this folder; raises BadInput for one that cannot be read, with its line."""
    try:
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{name}: {error}; restore it: git checkout data_pipeline/safety/{name}") from None


class _Characters(dict):
    """What each character is read as, made when it is first met; for str.translate."""

    def __init__(self, data: dict) -> None:
        super().__init__({ord("\n"): "\n", ord("\t"): " ", ord("\r"): " ", ord("_"): "-"})
        pairs = "".join(data["traditional"].split())
        self.same = dict(zip(pairs[::2], pairs[1::2], strict=True)) | dict(data["look_alike"])
        self.words = {sign: word for word, signs in data["emoji"].items() for sign in signs}

    def __missing__(self, code: int) -> str:
        self[code] = self.words.get(chr(code)) or self._folded(chr(code))
        return self[code]

    def _folded(self, sign: str) -> str:
        kind = unicodedata.category(sign)
        if kind in ("Cf", "Cc", "Cs", "Co", "Mn", "Me") or sign in _NOTHING:
            return ""
        for first, last in ((0x1F150, 0x1F169), (0x1F170, 0x1F189), (0x1F1E6, 0x1F1FF)):  # letters in circles, flags
            if first <= ord(sign) <= last:
                return chr(97 + ord(sign) - first)
        if letter := _LATIN.match(unicodedata.name(sign, "")):  # small capitals, letters with a stroke
            return letter[1].lower()
        folded = [c for c in unicodedata.normalize("NFKD", sign).lower() if unicodedata.category(c) != "Mn"]
        if kind in ("So", "Sk") and not any(c.isalnum() for c in folded):
            return " "
        return "".join(self.same.get(c, c) for c in folded)


def _letters(match: re.Match) -> str:
    joined = re.sub("[^a-z]", "", match[0])
    return f"i {joined[1:]}" if match[0].startswith("i ") else joined


def _disguises(han: str, syllables: dict[str, str]) -> tuple[list[tuple[str, _PUT]], list[tuple[str, _PUT]]]:
    """Returns what is done to a text with Latin letters, and to any; it is fast where a pattern begins with a sign."""
    quotes = r"()《》<>\[\]{}'\"“”‘’「」『』【】"
    gap, wide, any_gap = rf"[^\w\s,;:!?。、{quotes}]", rf"[^\w,;:!?。、{quotes}]", rf"[^\w{quotes}]"
    one = "|".join(sorted(syllables, key=len, reverse=True))

    def spoken(match: re.Match) -> str:
        said = re.findall(one, match[0])
        beside = match.string[match.start() - 1 : match.start()] + match.string[match.end() : match.end() + 1]
        return "".join(syllables[each] for each in said) if len(said) > 2 or re.search(han, beside) else match[0]

    inside, ends = r"[0-9@$!|]{0,8}(?=[a-z])", r"(?<=[0-9])[0-9]*(?![0-9a-z])"
    leet = rf"[0-9@$!|](?:(?<=[a-z].)(?:{inside}|{ends})|(?<=[5$])(?<!\w.)(?=[a-z]{{3}}))"
    latin: list[tuple[str, _PUT]] = [
        (rf"[a-z](?<![a-z0-9].)(?:{gap}[a-z]){{2,40}}(?![a-z0-9])", _letters),  # k.m.s
        (r"[a-z](?<![a-z0-9'].)(?: [a-z]){2,60}(?![a-z0-9'])", _letters),  # k i l l
        (r"[a-z](?<![a-z].)[a-z]{0,2}(?:[-._*][a-z]{1,3}){2,20}(?![a-z])", _letters),  # su-i-ci-de
        (rf"(?<={han})\s?[a-z](?:(?:{gap}| )[a-z]){{1,40}}(?![a-z0-9])", _letters),  # 想 s i
        (leet, lambda match: match[0].translate(_DIGIT)),  # k1ll
        (r"([a-z])\1{2,}", r"\1"),  # dieeee
        (r"(?<=[a-z,.;]) ?\n ?(?=[a-z])", " "),
        (rf"(?=[a-z])(?<![a-z])(?:(?:{one})[ ']?){{0,30}}(?:{one})(?![a-z])", spoken),  # wo bu xiang huo le
    ]
    return latin, [
        (rf"[(<\[{{'\"“‘「『【]({han}{{1,2}}|[a-z0-9])[)>\]}}'\"”’」』】]", r"\1"),  # 想(死)
        (rf"{wide}(?<={han}.){wide}{{0,3}}(?={han})", ""),  # 想*死, and 不想 at the end of a line, 活 in the next
        (rf"{any_gap}(?<={han}.)(?<!{han}{han}.){any_gap}{{0,2}}(?={han})", ""),  # 我。想。死
        (rf"{any_gap}(?<={han}.){any_gap}{{0,2}}(?={han}(?![{HAN}\w]))", ""),  # 想，死
    ]


@lru_cache(1)
def _tables() -> tuple:
    """Returns (characters, steps for Latin letters and for all, words, which may be there, whether all is plain)."""
    data = read_yaml("crisis_words.yaml")
    characters = _Characters(data)
    words = [(each, word) for word, variants in data["words"].items() for each in variants]
    words = [(compiled(pattern, f"crisis_words.yaml: {word}"), word) for pattern, word in words]
    disguises = _disguises(f"[{HAN}]", data["pinyin"])
    latin, every = ([(re.compile(p, re.DOTALL), put) for p, put in steps] for steps in disguises)
    han = "".join(chr(code) for code in range(0x4E00, 0xA000) if chr(code) not in characters.same)
    signs = f"[0-9,;:!?。、{_COMMAS}]*+"
    plain = re.compile(f"{signs}(?:[{han}]{{2,}}+{signs})*+").fullmatch  # with no Chinese character alone
    return characters, latin, every, words, words_near([pattern.pattern for pattern, _ in words]), plain


def _rewritten(text: str, places: list[int] | None, plain: bool = False) -> str:
    """Returns what all steps make of a text in folded characters, of a `plain` one that of words; `places` follow."""
    _, latin, every, words, near, _ = _tables()
    for pattern, put in () if plain else [*(latin if re.search("[a-z]", text) else ()), *every]:
        text = _step(text, places, pattern, put)
    left = near(text)
    while left:
        new = _step(text, places, *words[left[0]])
        left = left[1:] if new == text else [place for place in near(new) if place > left[0]]
        text = new
    return text


def _step(text: str, places: list[int] | None, pattern: re.Pattern, put: _PUT) -> str:
    if places is None:
        return pattern.sub(put, text)
    at, parts, moved = 0, [], []
    for match in pattern.finditer(text):
        new = put(match) if callable(put) else match.expand(put)
        old = places[match.start() : match.end()]
        parts += text[at : match.start()], new
        moved += places[at : match.start()] + [old[place * len(old) // len(new)] for place in range(len(new))]
        at = match.end()
    places[:] = moved + places[at:]
    return "".join([*parts, text[at:]])


def normalised(text: str) -> str:
    """Returns `text` as the rules read it."""
    characters, *_, plain = _tables()
    if not plain(text):
        return _rewritten(text.translate(characters), None)
    for sign in _COMMAS:  # faster than translate
        text = text.replace(sign, characters[ord(sign)])
    return _rewritten(text, None, plain=True)


def normalised_with_places(text: str) -> tuple[str, list[int]]:
    """Returns (`text` as the rules read it, for each of its characters the place in `text` that it came from)."""
    pieces = [_tables()[0][ord(sign)] for sign in text]
    places = [place for place, piece in enumerate(pieces) for _ in piece]
    return _rewritten("".join(pieces), places), places
