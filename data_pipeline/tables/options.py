"""Cells that hold the options of a question, in the ways in which people write them.

Nothing is guessed: what can be read in two ways is a Fault.
"""

import ast
import html
import io
import re
import tokenize
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from data_pipeline.records import LETTERS, Fault
from data_pipeline.tables.rows import as_json

_LABELS, _TEXTS = (
    ("key", "label", "letter", "id", "option_key", "index"),
    ("value", "text", "content", "option", "option_text"),
)

_SIGNS = r"(?:[.．、:：)）,，。・·•]|——)"  # behind a letter
OWN_LETTER = (  # of an option: A. (A) A、 A： **A.** 选项A：
    r"\s*(?:(?:选项|option)\s*)?(?:[（(【\[]\s*{0}\s*[)）】\]]\s*[.．、:：,，]?"
    rf"|\*\*\s*{{0}}\s*{_SIGNS}?\s*\*\*{_SIGNS}?|{{0}}\s*{_SIGNS}|{{0}}(?=\s))\s*"
)
_CIRCLED = {chr(first + n): f"{letter}." for first in (0x24B6, 0x24D0) for n, letter in enumerate(LETTERS)}  # Ⓐ ⓐ
_ODD = re.compile(r"\s*(?:选项|option)?\s*([A-Z])\s*[^\w\s(（\[【+]", re.IGNORECASE)  # A- A/ A>
# What stands behind the last option, or in a stem, in files that part nothing: 答案：A
_HOLDS_ANSWER = re.compile(
    r"(?:答案|answer|key)\s*(?:是|为|is)?\s*[:：]\s*[（(]?(?-i:[A-ZＡ-Ｚ]{1,8}|[对错√×])\s*(?:$|[|。.,，;；)）\n])|解析\s*[:：]|【(?:答案|解析)】",
    re.IGNORECASE,
)
_OWN = [re.compile(OWN_LETTER.format(f"[{a}{a.lower()}{chr(ord(a) + 0xFEE0)}{chr(ord(a) + 0xFF00)}]")) for a in LETTERS]
_IN_ORDER = list(LETTERS)
_BEARS = re.compile(
    rf"^(?:{OWN_LETTER.format('[A-Za-zＡ-Ｚａ-ｚ]')}|[A-Z][\u4e00-\u9fff]|[Ⓐ-ⓩ]|{_ODD.pattern}|[A-Z]$)", re.M | re.I
)
_IDEOGRAPH, _CAPITAL = re.compile("[\u4e00-\u9fff]"), re.compile("[A-Z]")
_ALIKE = re.compile("[\u4e00-\u9fff]+")  # as they are compared already
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_ALONE = re.compile(r"[\s()（）\[\]【】.．、:：]")  # around a letter
_LETTER_AND_SIGN = re.compile(r"\s*[（(【\[]?\s*([A-Za-zＡ-Ｚａ-ｚ])\s*[.．、:：)）】\]]")
_BRACKETED = re.compile(r"[（(【\[]\s*([A-ZＡ-Ｚ])\s*[)）】\]]\s*")
_MARKED = re.compile(
    r"(?:^|(?<=[\s|;；,，。]))(?:[（(【\[]([A-Za-zＡ-Ｚ])[)）】\]]|([A-Za-zＡ-Ｚ])\s*[.．、:：)）])\s*"
)
_LINE = re.compile(r"\s*(?:[（(【\[]?([A-Za-zＡ-Ｚ])\s*[.．、:：)）】\]]|([A-Za-zＡ-Ｚ])(?=\s))\s*")


@dataclass(slots=True)
class Options:
    texts: list[str]
    plain: list[str]  # the texts as they are compared
    labels: list[str] = field(default_factory=list)  # what the table calls them, if it is not A, B, C


def read_options(value: object) -> Options | Fault:
    """Returns the options of a cell: a list or object of texts, objects of label and text, lettered lines, or `|`.

    A list of columns comes as a list, None or "" for an empty one. Texts lose letters of their own where every option
    bears the letter of its place. A Fault is what is no text, what bears letters of other places, and two options with
    one text.
    """
    if isinstance(value, str):
        value = as_json(value)
        value = as_python(value) if isinstance(value, str) else value
    if isinstance(value, Fault):
        return value
    labels: list[str] = []
    if isinstance(value, dict) and len(value) == 2 and all(isinstance(part, list) for part in value.values()):
        value = _pairs_of_lists(value)
    if isinstance(value, str):
        parts = _cut(value)
        if isinstance(parts, Fault):
            return parts
        value = parts
    if isinstance(value, dict):
        if odd := next((item for item in value.values() if isinstance(item, dict | list)), None):
            return Fault("an option that is no text", short(odd))
        labels, value = [str(key).strip() for key in value], list(value.values())
        labels = [] if labels == _IN_ORDER[: len(labels)] else labels  # nearly all
    if not isinstance(value, list):
        return Fault("options that are neither a list nor an object nor lettered lines", short(value))
    if any([isinstance(item, dict) for item in value]):
        pairs = [_pair(item) for item in value]
        if isinstance(fault := next((pair for pair in pairs if isinstance(pair, Fault)), None), Fault):
            return fault
        labels, value = [label for label, _ in pairs], [text for _, text in pairs]
    if len(value) > len(LETTERS):
        return Fault("more than 26 options", str(len(value)))
    texts = []
    for item in value:
        text = item if type(item) is str else text_of(item)
        if isinstance(text, Fault):
            return Fault("an option that is no text", text.reason)
        texts.append(text.strip())
    return _in_order(texts, labels)


def _in_order(texts: list[str], labels: list[str]) -> Options | Fault:
    """Returns the options by their letters, without their own; gaps stay, for the caller to see."""
    letters = [label if len(label) == 1 and label in LETTERS else letter_of(label) for label in labels]
    if labels and all(letters):
        if len(set(letters)) < len(letters):
            return Fault("two options with one letter", "".join(letters))
        by_letter = dict(zip(letters, texts, strict=True))
        texts = [by_letter.get(letter, "") for letter in LETTERS[: LETTERS.index(max(letters)) + 1]]
        labels = []
    elif labels and labels not in ([str(n) for n in range(1, len(labels) + 1)], [str(n) for n in range(len(labels))]):
        return Fault("labels of options that are neither letters nor numbers in a row", " ".join(labels)[:80])
    while texts and not texts[-1]:
        texts.pop()
    bare = without_letters(texts)
    if isinstance(bare, Fault):
        return bare
    if held := held_answer(" | ".join(bare)):
        return Fault("an option that holds the answer", held)
    compared = bare if _ALIKE.fullmatch("".join(bare)) else [plain(text) for text in bare]
    filled = [text for text in compared if text]
    if len(set(filled)) < len(filled):
        return Fault("two options are the same", " | ".join(bare)[:120])
    return Options(bare, compared, labels)


def without_letters(texts: list[str]) -> list[str] | Fault:
    """Returns the texts without the letters that they bear, where every one bears that of its place; a Fault where
    letters stand at other places, before some texts alone, are all that there is, or may be part of the texts.
    """
    if not _BEARS.search("\n".join(texts)):
        return texts
    if all(text[0] in _CIRCLED for text in texts if text):
        texts = [_CIRCLED[text[0]] + text[1:] if text else "" for text in texts]
    filled = [(place, text) for place, text in enumerate(texts) if text]
    if len(filled) > 1 and all(_ALONE.sub("", text).upper() == LETTERS[place] for place, text in filled):
        return Fault("options that are letters alone", "they stand in a picture, or in another column?")
    own = {place: _OWN[place].match(text) for place, text in filled}
    if all(own.values()):
        bare = [text[match.end() :].strip() if (match := own.get(place)) else text for place, text in enumerate(texts)]
        # of A型 to D型 the letters are what tells them apart
        return bare if all(bare[place] for place in own) and len({*map(bare.__getitem__, own)}) == len(own) else texts
    told, letters = " | ".join(texts)[:120], "".join(LETTERS[place] for place, _ in filled)
    said = "".join(letter_of(match[1]) if (match := _LETTER_AND_SIGN.match(text)) else " " for _, text in filled)
    if "".join(sorted(said)) == letters or (len(said) > 1 and said in LETTERS):
        return Fault("options that bear the letters of other places", told)
    if sum(letter == one for letter, one in zip(letters, said, strict=True)) > 1:  # one alone is a name: A. 班杜拉
        return Fault("options of which some bear their letters", told)
    if len(filled) > 1 and all((odd := _ODD.match(text)) and odd[1].upper() == LETTERS[n] for n, text in filled):
        return Fault("options that may bear their letters", f"{told}; write them as A. and B.")
    if all(_IDEOGRAPH.match(text, 1) for _, text in filled):  # A视觉
        heads, behind = "".join(text[0] for _, text in filled), {text[1] for _, text in filled}
        if "".join(sorted(heads)) != letters or len(behind) == 1:  # A组, B组
            return texts
        if heads != letters or len(behind) < max(3, len(filled)) or any(_CAPITAL.search(t, 1) for _, t in filled):
            return Fault("options that may bear their letters", f"{told}; write them as A. and B.")
        return [text[1:] for text in texts]
    return texts


def _pairs_of_lists(value: dict) -> object:
    """Returns [{label, text}] of {"text": [...], "label": [...]}, as ARC writes its choices."""
    text, label = (
        next((key for key in value if key in (*names, *(f"{n}s" for n in names))), "") for names in (_TEXTS, _LABELS)
    )
    if not text or not label or len(value[text]) != len(value[label]):
        return value
    return [{"label": a, "text": b} for a, b in zip(value[label], value[text], strict=True)]


def _pair(item: object) -> tuple[str, object] | Fault:
    """Returns (label, text) of an option that is an object: {"A": text}, or a label and a text under usual names."""
    if isinstance(item, dict):
        if len(item) == 1:
            ((label, text),) = item.items()
            return str(label), text
        label = [key for key in item if key in _LABELS or key == "option" and letter_of(str(item[key]))]
        text = [key for key in item if key in _TEXTS and key not in label]
        if len(label) == len(text) == 1 and len(item) == 2:
            return str(item[label[0]]), item[text[0]]
    return Fault("an option that is not a label and a text", short(item))


def as_python(text: str) -> object:
    """Returns the list or object that Python wrote, as in a cell of a table that pandas saved; else the text.

    Numpy parts the texts of a list by blanks alone, which Python would join to one; if such stand deeper, it is text.
    """
    if text.lstrip().startswith(("[", "{")):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            value = ast.literal_eval(text.strip())
            tokens = [t for t in tokenize.generate_tokens(io.StringIO(text.strip()).readline) if t.type != tokenize.NL]
            if not any(one.type == other.type == tokenize.STRING for one, other in pairwise(tokens)):
                return value
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    return text


def _cut(cell: str) -> list[str] | Fault:
    """Returns the options of one text: parted by `|`, lettered lines, or lettered parts of a line."""
    lines = [line for line in cell.replace("\r\n", "\n").split("\n") if line.strip()]
    if len(lines) > 1 and (match := _LINE.match(lines[0])) and letter_of(match[1] or match[2]) == "A":
        options: list[str] = []
        for line in lines:
            match = _LINE.match(line)
            letter = letter_of(match[1] or match[2]) if match else ""
            if len(options) == len(LETTERS):
                return Fault("more than 26 options", short(cell))
            if letter and letter == LETTERS[len(options)]:
                options.append(line)
            elif match and match[1] and letter:
                return Fault("options whose letters are not in order", short(cell))
            else:
                options[-1] += "\n" + line  # it goes on
        if len(options) > 1:
            return options
    marks = list(_MARKED.finditer(cell))
    letters = "".join(letter_of(mark[1] or mark[2]) for mark in marks)
    if len(marks) > 1 and not cell[: marks[0].start()].strip():
        if letters != LETTERS[: len(letters)]:
            return Fault("options whose letters are not in order", short(cell))
        ends = [mark.start() for mark in marks[1:]] + [len(cell)]
        return [cell[mark.start() : end].strip(" \t\r\n|;；,，") for mark, end in zip(marks, ends, strict=True)]
    marks = list(_BRACKETED.finditer(cell))  # （A）视觉（B）思维
    letters = "".join(letter_of(mark[1]) for mark in marks)
    if len(marks) > 1 and letters == LETTERS[: len(letters)] and not cell[: marks[0].start()].strip():
        ends = [mark.start() for mark in marks[1:]] + [len(cell)]
        return [cell[mark.start() : end].strip(" \t\r\n|;；,，") for mark, end in zip(marks, ends, strict=True)]
    if "|" in cell:
        return cell.split("|")
    return Fault("options that are neither a list nor an object nor lettered lines", short(cell))


def held_answer(text: str) -> str:
    """Returns where a text says an answer, as 答案：A behind an option; "" where it says none."""
    if not (":" in text or "：" in text or "】" in text) or not (held := _HOLDS_ANSWER.search(text)):
        return ""
    return f"{held[0]!r} in {text[-80:]!r}; take it out"


def is_empty(cell: object) -> bool:
    """Returns whether a cell of options, or all of several, hold nothing."""
    return all(text_of(one) == "" for one in (cell if isinstance(cell, list) else [cell]))


def text_of(value: object) -> str | Fault:
    """Returns the text of a cell, "" for an empty one; a Fault for what is no text or number."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, Fault):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault(type(value).__name__, short(value))
    return str(value)


def plain(text: str) -> str:
    """Returns a text as it is compared: width, blanks, case and a full stop at the end make no difference."""
    text = without_tags(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(text.split()).rstrip("。.;").casefold()


def without_tags(text: str) -> str:
    """Returns the text without HTML's tags, what HTML spells out as characters; for comparing, not for keeping."""
    return html.unescape(_TAG.sub("", text)) if "<" in text or "&" in text else text


def letter_of(label: str | None) -> str:
    """Returns the letter that a label is, in any width, case and bracket: "（a）" is A; "" for any other."""
    folded = unicodedata.normalize("NFKC", label or "").strip().strip("()[]【】.:、").upper()
    folded = folded.removeprefix("选项").removeprefix("OPTION").strip(" _")
    return folded if len(folded) == 1 and folded in LETTERS else ""


def short(value: object) -> str:
    return repr(value)[:80]
