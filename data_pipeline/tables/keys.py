"""Cells that hold the key of a question, in the ways in which people write it, and the words for kinds of questions.

Nothing is guessed: what can be read in two ways is a Fault.
"""

import re
import unicodedata
from collections.abc import Mapping

from data_pipeline.records import LETTERS, Fault
from data_pipeline.tables.options import OWN_LETTER, Options, as_python, plain, short, without_tags
from data_pipeline.tables.rows import as_json

KINDS = {  # of a word without its brackets, blanks and 题
    "single": ("single", "singlechoice", "singleanswer", "singleselect", "单选", "单项", "单项选择", "单选选择",
               "最佳选择", "a型", "a1型", "a2型", "a1/a2型", "a3型", "a4型", "a3/a4型", "a1", "a2", "a3", "a4", "b型",
               "b1型", "b1"),
    "multi": ("multi", "multiple", "multianswer", "multipleanswer", "multipleselect", "multiselect", "多选", "多项",
              "多项选择", "不定项", "不定项选择", "x型", "x"),
    "true_false": ("truefalse", "true/false", "t/f", "trueorfalse", "判断", "判断正误", "是非", "对错", "judgement",
                   "judgment"),
}  # fmt: skip
_KINDS = {word: kind for kind, words in KINDS.items() for word in words}
TRUE_FALSE = (["True", "False"], ["正确", "错误"])  # English, Chinese
_TRUE = ("对", "正确", "是", "√", "✓", "✔", "t", "true", "right", "correct", "yes", "y")
_FALSE = ("错", "错误", "不正确", "否", "×", "✗", "✘", "f", "false", "wrong", "incorrect", "no", "n")
_BETWEEN = r"[\s,、;/|.·•&+]*"  # after NFKC
_AROUND = r"(?:正确|参考|标准)?(?:答案|选项|选择|故选|应选|本题选|选|answer|ans|key|option)?\s*(?:是|为|is)?\s*:?\s*"
_KEY = re.compile(rf"{_AROUND}[\s(\[【{{<\"']*([a-z](?:{_BETWEEN}[a-z])*){_BETWEEN}[\s)\]】}}>\"'项。]*", re.I)
_PARTS = re.compile(r"[、,，;；|\n]")


def read_key(value: object, options: Options | Fault, index: int | None, hint: str) -> tuple[Options, str] | Fault:
    """Returns (options, letters of the key in the order in which they stand); a Fault for what is no key or may be two.

    With `index` the key counts the options from there (0 or 1). Else it is letters, in any width and wrapping, the
    label or the text of an option, or a list of these. `hint` says how a user tells that a key counts.
    """
    if isinstance(options, Fault):
        return options
    if isinstance(value, str):
        value = as_json(value)
        value = as_python(value) if isinstance(value, str) else value
    if isinstance(value, Fault):
        return value
    items = value if isinstance(value, list) else [value]
    if not items or all(item is None or item == "" for item in items):
        return Fault("no answer")
    letters = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            return Fault("an answer that is neither letters nor a text", short(value))
        text = str(int(item)) if isinstance(item, float) and item.is_integer() else without_tags(str(item)).strip()
        if index is None:
            letter = _by_name(text, options, len(items) == 1, hint)
        else:
            letter = _by_index(text, options, index)
        if isinstance(letter, Fault):
            return letter
        letters.append(letter)
    return options, "".join(letters)


def _by_index(text: str, options: Options, index: int) -> str | Fault:
    numbers = [part for part in re.split(r"[\s,，、;；|]+", unicodedata.normalize("NFKC", text)) if part]
    if len(numbers) == 1 and len(options.texts) < 10 and re.fullmatch(r"[0-9]{2,}", numbers[0]):  # 12, ①②
        numbers = list(numbers[0])
    if not numbers or not all(re.fullmatch(r"[0-9]{1,2}(\.0)?", part) for part in numbers):
        return Fault("an answer that is no index", f"{text!r}; the options are counted from {index}")
    places = [int(float(part)) - index for part in numbers]
    if not all(0 <= place < len(options.texts) for place in places):
        detail = f"{text}, of {len(options.texts)} options counted from {index}; does the column count in two ways?"
        return Fault("an index beyond the options", detail)
    return "".join(LETTERS[place] for place in places)


def _by_name(text: str, options: Options, alone: bool, hint: str) -> str | Fault:
    """Returns the letters for letters, for a label, for the text of an option, or for a letter and its text."""
    there = LETTERS[: len(options.texts)]
    if len(text) == 1 and text in there and not options.labels and text.casefold() not in options.plain:
        return text  # nearly all
    text = text if text.isascii() else "".join(char for char in text if unicodedata.category(char) != "Cf").strip()
    folded, compared = text if text.isascii() else unicodedata.normalize("NFKC", text).strip(), plain(text)
    by_text = LETTERS[options.plain.index(compared)] if compared and compared in options.plain else ""
    if folded.isupper() and folded.isascii() and folded.isalpha():
        letters = folded
    else:
        match = _KEY.fullmatch(folded)
        letters = re.sub(r"[^A-Z]", "", match[1].upper()) if match else ""
    if not set(letters) <= set(there) and (by_text or folded != folded.upper()):
        letters = ""  # a word: Vision
    if options.labels and folded in options.labels:
        return LETTERS[options.labels.index(folded)]
    if not by_text and not letters and alone:  # 视觉、听觉
        parts = [plain(part) for part in _PARTS.split(folded) if part.strip()]
        if len(parts) > 1 and all(options.plain.count(part) == 1 for part in parts):
            by_text = "".join(LETTERS[options.plain.index(part)] for part in parts)
    if letters and by_text and letters != by_text:
        return Fault("an answer that may be two", f"{text!r} is the letter {letters} and the text of {by_text}")
    numbers = re.fullmatch(r"\d+(?:\.0|[\s、,，;；|]*\d+)*", folded)
    if not letters and numbers and (not by_text or not folded.isdecimal() or int(folded) <= len(there)):
        return Fault("an answer that is a number", f"{text!r}; which option is it? {hint}")
    if letters or by_text:
        return letters or by_text
    own = re.match(OWN_LETTER.format("([A-Za-z])"), folded) or re.match(r"([A-Za-z])\s*(?=\(.+\)$)", folded)
    if own:  # "A:视觉", "A(视觉)"
        letter = next(part for part in own.groups() if part).upper()
        behind = folded[own.end() :]
        texts = {plain(behind), plain(behind[1:-1])} if behind.startswith("(") else {plain(behind)}
        if letter in there and options.plain[LETTERS.index(letter)] in texts:
            return letter
        return Fault("an answer whose letter and text do not agree", repr(text[:80]))
    return Fault("the answer is not letters alone", f"{text[:80]!r}, and not the text of an option")


def read_kind(word: str, own: Mapping[str, str]) -> str:
    """Returns "single", "multi" or "true_false" for a word of a column of kinds, "" for one that is not known.

    `own` are the words that the recipe explains, {word: kind}.
    """
    if word in own:
        return own[word]
    folded = re.sub(r"[\s_\-【】\[\]()<>《》:。]", "", unicodedata.normalize("NFKC", word)).casefold()
    return _KINDS.get(folded.removesuffix("题"), "")


def true_or_false(value: object, stem: str, options: Options | Fault | None, hint: str) -> tuple[Options, str] | Fault:
    """Returns the options of a question of true or false and the letter of its key, which may be a word such as 对.

    Without options (None) it gets two, in the language of its stem.
    """
    given = options
    if given is None:
        texts = TRUE_FALSE[bool(re.search(r"[\u3400-\u9fff]", stem))]
        given = Options(texts, [plain(text) for text in texts])
    if isinstance(given, Fault):
        return given
    says = [_truth(text) for text in given.texts]
    if (truth := _truth(value)) is not None and says.count(truth) == 1:
        return given, LETTERS[says.index(truth)]
    if options is None:
        return Fault(
            "an answer that is neither true nor false", f"{value!r}; understood are {', '.join(_TRUE + _FALSE)}"
        )
    return read_key(value, given, None, hint)


def _truth(value: object) -> bool | None:
    """Returns what a word such as 对, 正确, √ or T says; None for any other."""
    word = unicodedata.normalize("NFKC", str(value)).strip().strip("()[]【】。.\"'").casefold()
    word = re.sub(r"^(?:正确)?答案\s*(?:是|为)?\s*:?\s*", "", word)
    return True if word in _TRUE else False if word in _FALSE else None
