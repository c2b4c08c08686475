"""Reads the answer letters out of a response. What cannot be read is `None`, never guessed. Rules: reward/rules.md.

Used by the reward, by question selection and by evaluation, so that all three mean the same by "right".
How one response is read: `python -m reward.explain`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from reward import wording
from reward.thought import split_thought
from reward.wording import normalise

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_ANSWER_CHARS = 4000  # ours: an answer part beyond this is padding, and unreadable


class Statement(NamedTuple):
    """A place that states an answer: the words, and its sorted letters, or None where it hedges or names no option."""

    text: str
    letters: str | None


class Reading(NamedTuple):
    letters: str | None  # sorted, or None: unreadable
    why: str
    statements: tuple[Statement, ...] = ()


def read_answer(response: str, options: list[str], think_prefilled: bool = False) -> str | None:
    """Returns the sorted letters that the response states as its answer, or None when that cannot be read.

    `options` are the texts by position: letters beyond them are no answer. Only what follows </think> counts. All
    statements must agree; a hedge ("A 或 B") or a letter beyond the options makes the response unreadable.
    """
    return read(response, options, think_prefilled).letters


def read(response: str, options: list[str], think_prefilled: bool = False) -> Reading:
    """As `read_answer`, with the reason and the statements that were found."""
    return read_parts(split_thought(response, think_prefilled)[1], options)


def read_parts(answer: str | None, options: list[str]) -> Reading:
    """As `read`, of the answer part that `split_thought` gave."""
    if answer is None:
        return Reading(None, "the thought is not closed, or there are several")
    if len(answer) > MAX_ANSWER_CHARS:
        return Reading(None, f"the answer part has {len(answer)} characters, more than {MAX_ANSWER_CHARS}")
    found = tuple(statements(normalise(answer), tuple(options)))
    if not found:
        return Reading(None, "no statement of an answer")
    letters = {statement.letters for statement in found}
    if None in letters:
        return Reading(None, "a statement that hedges, or names no option", found)
    if len(letters) > 1:
        return Reading(None, "statements that disagree", found)
    return Reading(found[0].letters, "stated", found)


def statements(text: str, options: tuple[str, ...]) -> list[Statement]:
    """Returns every place of the normalised text that states an answer, in order of their kind."""
    found: list[Statement] = []
    for cue in wording.CUE.finditer(text):
        statement = _after_cue(text, cue, options)
        if statement is not None:
            found.append(statement)
    found += [s for match in wording.RIGHT.finditer(text) if (s := _before_right(text, match, options))]
    found += _bare_lines(text, options)
    return found


def _before_right(text: str, match: re.Match[str], options: tuple[str, ...]) -> Statement | None:
    """Returns the statement of "因此 B 项正确" or "B 是正确答案"; without such words it has to be the whole first line,
    since further down "B 项正确" is one step of an analysis."""
    before = text[max(0, match.start() - 20) : match.start()]
    opens = match.start() < 20 and not before.strip(" \n\t\"'([选项optinOPTIN")
    whole_line = opens and wording.LINE_END.match(text, match.end())
    if match["noun"] or match["noun2"] or whole_line or wording.SO.search(before):
        return Statement(match[0].strip(), _checked(match["run"].replace("and", ""), options))
    return None


def _after_cue(text: str, cue: re.Match[str], options: tuple[str, ...]) -> Statement | None:
    at = cue.start()
    start = wording.GAP.match(text, cue.end()).end()
    if start >= len(text) or not ("A" <= text[start] <= "Z" or "a" <= text[start] <= "z"):
        return None
    if at and text[at - 1] != "\n":
        sentence = wording.SENTENCE_END.split(text[max(0, at - 60) : at])[-1]
        clause = wording.CLAUSE_END.split(sentence)[-1]
        if wording.NEGATED.search(clause) or wording.CONDITIONAL.search(clause):
            return None
        if wording.IF.search(sentence) and not wording.SO_WORD.search(
            clause
        ):  # "if it is asked ..., the answer is B" is a hedge
            return Statement(text[at:start].strip(), None) if text[at] in "答Aa" else None
        if text[at] in "OoCc" and wording.EACH.search(clause):
            return None  # "let us look at each option: A. ..."
    if plain := wording.AT_ONCE.match(text, start):
        letters = plain[0].replace("、", "").replace(",", "").replace(" ", "")
        if len(set(letters)) == len(letters) <= len(options):
            return Statement(text[at : plain.end()], _checked(letters, options))
    run = _run(text, start, options)
    if run is None:
        return None
    letters, end, whole_line = run
    gap = text[at:start]
    if "\n" in gap[:-1].strip(" \t") and not whole_line and ":" not in gap:
        return None  # a heading, and then a sentence that begins with a letter
    if letters is not None:
        if wording.HEDGED.match(text, end):
            letters = None
        elif wording.DENIED.match(text, end):
            return None
    return Statement(text[at:end].strip(), letters and _checked(letters, options))


def _run(text: str, at: int, options: tuple[str, ...]) -> tuple[str | None, int, bool] | None:
    """Returns (letters, end, whether the line ends there) of the letters at `at`; None when they are part of a word.

    Letters may be followed by their own option's text; by another option's text they are None.
    """
    letters, end, first, with_text = "", at, True, False
    starts_line = "\n" in text[max(0, at - 4) : at]
    while True:
        word = wording.LETTER.match(text, at)
        if word is None or not _is_option_letters(word[0], text, word.end(), options, first):
            break
        tail = word.end()
        letters += word[0].upper()
        if len(word[0]) == 1:
            own, other, tail = _option_text(text, tail, word[0].upper(), options)
            if other:
                return None, tail, True
            with_text = own
        end, first = tail, False
        if note := wording.PARENTHESIS.match(text, end):
            if not re.match(r"\s*\(\s*(?:或|or\b|也|[A-Z]\s*\))", note[0]):
                end = note.end()
        separator = wording.SEPARATOR.match(text, end)
        at = separator.end()
        if "\n" in separator[0]:  # a list goes on below when every line is a letter with its own option's text
            below = _next_line_letter(text, end, options) if with_text else None
            if below is None:
                break
            if not starts_line:
                return None, end, False  # "答案：A. 甲", and "B. 乙" below it
            at = below
        elif separator[0].strip() == "" and separator[0] and _denied_word(text, at):
            break
        if len(letters) > len(LETTERS):
            return None, end, False
    if not letters:
        return None
    return letters, end, bool(wording.REST_OF_LINE.match(text, end))


def _denied_word(text: str, at: int) -> bool:
    """True for "B选项错误" after a blank: a new sentence, not a further letter."""
    word = wording.LETTER.match(text, at)
    return word is not None and bool(re.match(r"[ \t]*(?:选项|项)?[ \t]*[一-龥]", text[word.end() : word.end() + 4]))


def _next_line_letter(text: str, end: int, options: tuple[str, ...]) -> int | None:
    line = re.compile(r"[^\S\n]*[,、;。.\"')\]}]*\s*\n\s*").match(text, end)
    if line is None:
        return None
    at = wording.BULLET.match(text, line.end()).end()
    stop = text.find("\n", at)
    return at if _single_line(text[at : stop if stop >= 0 else len(text)], options) == "text" else None


def _is_option_letters(word: str, text: str, end: int, options: tuple[str, ...], first: bool) -> bool:
    """True when a word of Latin letters is letters of an answer, not a word of a sentence."""
    if word.upper() != word:
        if not word.islower() or not wording.AFTER_LOWER_CASE.match(text, end):
            return False
    if len(word) > max(len(options), 1) or len(set(word)) != len(word) or wording.NOT_AN_OPTION.match(text, end):
        return False
    following = text[end : end + 1]
    if following and "一" <= following <= "龥" and not wording.AFTER.match(text, end):
        return len(word) == 1 and any(_starts(text, end, _plain(o)) for o in options)
    if following.isdigit() or following in ("_", "'") and text[end + 1 : end + 2].isalpha():
        return False
    if wording.NOUN.match(text, end) and not wording.ENGLISH_AFTER.match(text, end):
        own = LETTERS.find(word.upper()) if len(word) == 1 else len(options)
        return own < len(options) and _starts(text, end + 1, _plain(options[own]))
    return True


@lru_cache(4096)
def _plain(option: str) -> str:
    return normalise(option).strip().rstrip("。.;,")


def _starts(text: str, at: int, option: str) -> bool:
    return bool(option) and text.startswith(option, at)


def _option_text(text: str, end: int, letter: str, options: tuple[str, ...]) -> tuple[bool, bool, int]:
    """Returns (own option's text follows, another option's text follows, where reading goes on)."""
    at = wording.AFTER_LETTER.match(text, end).end()
    if at >= len(text) or text[at] == "\n":
        return False, False, end
    index = LETTERS.find(letter)
    own = _plain(options[index]) if index < len(options) else ""
    if _starts(text, at, own):
        return True, False, at + len(own)
    if not wording.LETTER.match(own or "一") and at > end:
        for place, option in enumerate(options):
            plain = _plain(option)
            if place != index and len(plain) > 1 and _starts(text, at, plain):
                return False, True, at + len(plain)
    return False, False, end


def _bare_lines(text: str, options: tuple[str, ...]) -> list[Statement]:
    """Returns the lines that are nothing but letters; and the first line when it is a letter with its option's text."""
    found: list[Statement] = []
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    under_heading = False  # the heading's own statement has read these lines already
    for number, line in enumerate(lines):
        kind = _single_line(line, options) if number == 0 or len(line) <= 60 else None
        if kind == "letters" and not under_heading:
            found.append(Statement(line, _checked("".join(wording.LETTER.findall(line.replace("and", ""))), options)))
        elif number == 0 and (opening := wording.OPENING.match(line)):
            found.append(Statement(opening[0], _checked(opening[0].replace("and", ""), options)))
        elif kind == "text" and number == 0 and not _is_option_list(lines, options):
            found.append(Statement(line, _checked(_first_letters(line), options)))
        if kind != "letters":
            end = len(line.rstrip(" :#】]"))
            under_heading = len(line) <= 60 and any(m.end() >= end for m in wording.CUE.finditer(line))
    return found


def _single_line(line: str, options: tuple[str, ...]) -> str | None:
    """Returns "letters" for a line of option letters alone, "text" for one letter with its own option's text."""
    if len(line) == 1 and "a" <= line <= "z":
        return "letters"
    if wording.ONLY_LETTERS.fullmatch(line):
        words = wording.LETTER.findall(line.replace("and", " "))
        return "letters" if all(len(set(word)) == len(word) for word in words) else None
    match = wording.WITH_TEXT.fullmatch(line)
    if match:
        index = LETTERS.find(match["letter"])
        if index < len(options) and match["text"].strip().rstrip("。.;,\"'”’)]}") in (_plain(options[index]),):
            return "text"
    return None


def _first_letters(line: str) -> str:
    word = wording.LETTER.search(line)
    return word[0] if word else ""


def _is_option_list(lines: list[str], options: tuple[str, ...]) -> bool:
    """True when the first lines repeat the question's options in order."""
    if len(lines) < len(options):
        return False
    return all(
        _single_line(line, options) == "text" and _first_letters(line) == letter
        for line, letter in zip(lines, LETTERS[: len(options)], strict=False)
    )


def _checked(letters: str, options: tuple[str, ...]) -> str | None:
    """Returns the sorted letters, None when one of them is beyond the options."""
    found = sorted({letter for letter in letters.upper() if letter in LETTERS})
    return "".join(found) if found and LETTERS.index(found[-1]) < len(options) else None
