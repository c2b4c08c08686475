"""Reads the answer letters out of a response, in two ways named as in lm-evaluation-harness; the rules are ours.

Strict-match reads the form that our prompts ask for; the reward pays by it. Flexible-extract reads what models really
write, for all else. What cannot be read is `None`, never guessed: reward/rules.md, `python -m reward.explain`."""

import re
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from reward import wording
from reward.thought import split_thought, with_opening
from reward.wording import TEXT, normalise

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NARROW = dict(zip(range(0xFF21, 0xFF3B), LETTERS, strict=True))
MAX_ANSWER_CHARS = 4000  # ours: a longer answer part is padding, and unreadable by both
MAX_LETTERS = 200  # ours: and one that names more letters
NEAR = 60  # characters around some letters that say how they are meant; ours

# The form (reward/rules.md): one closed thought that is not empty; one line, the announcement and capital letters.
STRICT = re.compile(
    r"\s*+<think>(?!\s*+</think>)(?P<thought>[^<]*+(?:<(?!/?think>)[^<]*+)*+)</think>\s*+"
    r"(?:(?:答案|Answer)[^\S\n]*+[:：]|(?P<box>\\boxed\{))[^\S\n]*+"
    r"(?P<letters>[A-ZＡ-Ｚ](?:[^\S\n]*+(?:[、,，][^\S\n]*+)?[A-ZＡ-Ｚ]){0,25}+)[^\S\n]*+(?(box)\})\s*+"
)


class Kind(IntEnum):
    """How some letters of a response are meant. The first four state an answer, the better form first."""

    ANNOUNCED = 1  # "答案：B", "因此选 B", a line of letters alone
    NAMED = 2  # "应该是 B", a sentence of letters alone
    LISTED = 3  # a line with a letter and its option's text alone
    RIGHT = 4  # "B 正确"
    POSSIBLE = 5  # alternatives, odds, a doubt, a condition, and whatever is neither of these two: "B 更准确"
    TOLD = 6  # what they are, and that they mislead: "B 项是……", "B 容易混淆"
    WRONG = 7  # a denial: "B 错误"


class Mention(NamedTuple):
    """Letters that stand together: sorted, or None where they are alternatives or no options."""

    letters: str | None
    kind: Kind
    line: int
    start: int
    end: int
    text: str  # with some of what stands around it


class Reading(NamedTuple):
    letters: str | None  # sorted, or None: unreadable
    why: str
    mentions: tuple[Mention, ...] = ()


def read_strict_match(response: str, options: list[str], think_prefilled: bool = False) -> str | None:
    """Returns the sorted letters of a response in the form that the prompts ask for (STRICT), None for any other."""
    return match_strict(response, len(options), think_prefilled)[0]


def match_strict(response: str, options: int, think_prefilled: bool = False) -> tuple[str | None, str]:
    """Returns (letters, thought) as `read_strict_match`, for a number of options; (None, "") when it is no match."""
    match = STRICT.fullmatch(with_opening(response, think_prefilled))
    if match is None or match.end() - match.end("thought") > MAX_ANSWER_CHARS:
        return None, ""
    letters = sound("".join(filter(str.isalpha, match["letters"].translate(NARROW))), options)
    return letters, match["thought"] if letters else ""


def read_answer(response: str, options: list[str], think_prefilled: bool = False) -> str | None:
    """Returns the sorted letters that the response, outside the thought, plainly commits itself to (flexible-extract),
    or None. `options` are the texts by position: letters beyond them are no answer."""
    return read(response, options, think_prefilled).letters


def read(response: str, options: list[str], think_prefilled: bool = False) -> Reading:
    """As `read_answer`, with the reason and all letters that are mentioned."""
    answer = split_thought(response, think_prefilled)[1]
    if answer is None:
        return Reading(None, "the thought is not closed, or there are several")
    text = normalise(answer[: MAX_ANSWER_CHARS + 1])
    if len(answer) > MAX_ANSWER_CHARS or len(wording.CAPITAL.findall(text)) > MAX_LETTERS:
        return Reading(None, f"an answer part of more than {MAX_ANSWER_CHARS:,} characters or {MAX_LETTERS} letters")
    lines = _lines(_option_texts(text, tuple(options)))
    mentions = [list(_mentions(line, number, len(options))) for number, line in enumerate(lines)]
    return Reading(*_settle(lines, mentions, LETTERS[: len(options)]), tuple(m for line in mentions for m in line))


def sound(letters: str, options: int) -> str | None:
    """Returns the letters sorted; None without any, with one twice, or with one beyond the options."""
    known = set(letters)
    return "".join(sorted(known)) if known and known <= set(LETTERS[:options]) and len(known) == len(letters) else None


def _settle(lines: list[str], mentions: list[list[Mention]], options: str) -> tuple[str | None, str]:
    """Returns (letters, why) of the last statement in the best form, (None, why) where it does not stand by the
    principles of reward/rules.md. Lines that call one option right and every other wrong are a statement together."""
    said: dict[Kind, Mention] = {}  # the last statement in each form, without letters where they disagree
    faults: dict[Kind, str] = {}
    called: list[Mention] = []
    settled = None
    right = {at for line in mentions for m in line if m.kind == Kind.RIGHT for at in m.letters or ""}
    rest = "".join(at for at in options if at not in right)  # the answer, where what is wrong is asked for
    for number, line in enumerate(lines):
        for mention in mentions[number]:
            states = mention.kind <= (Kind.NAMED if number else Kind.RIGHT)  # further down, steps of an analysis
            for kind, statement in said.items():
                if not (states and kind == mention.kind) and _refuses(mention, statement, line, rest):
                    faults[kind] = f"beside or after it, {mention.kind.name.lower()}: {mention.text!r}"
            if states:
                agrees = mention.letters and mention.letters == said.get(mention.kind, mention).letters
                said[mention.kind] = mention if agrees else mention._replace(letters=None)
                faults[mention.kind] = "" if agrees else f"no answer, or not the same as before: {mention.text!r}"
        called += [mention for mention in mentions[number] if mention.kind in (Kind.RIGHT, Kind.WRONG)]
        one = [mention for mention in called if mention.kind == Kind.RIGHT]
        if not said and len(one) == 1 and sorted(mention.letters or "" for mention in called) == [*options]:
            said, faults = {Kind.RIGHT: one[0]}, {Kind.RIGHT: ""}
        for match in wording.RETRACTED.finditer(line):
            after = [kind for kind, last in said.items() if (last.line, last.end) <= (number, match.start())]
            faults |= dict.fromkeys(after, f"after it, taken back: {match[0].strip()!r}")
        if said and not faults[min(said)]:
            letters = said[min(said)].letters
            if settled not in (None, letters):
                return None, f"read as {settled} before a later line says {letters}"
            settled = letters
    why = faults[min(said)] if said else "no statement of an answer"
    return (None, why) if why else (settled, "stated")


def _refuses(mention: Mention, statement: Mention, line: str, rest: str) -> bool:
    """Returns whether a mention, in that line, makes a statement before it unreadable; `rest` is not called right."""
    named, stated = set(mention.letters or "?"), set(statement.letters or "")
    if named <= stated or mention.kind >= Kind.TOLD:
        return False
    beside = mention.line == statement.line and not wording.SENTENCE.search(line, statement.end, mention.start)
    below = mention.kind == Kind.LISTED and mention.line == statement.line + 1
    also = mention.kind == Kind.RIGHT and (named & stated or statement.kind == Kind.RIGHT or statement.letters != rest)
    return bool(beside or below or also or mention.kind in (Kind.POSSIBLE, Kind.NAMED))


def _mentions(line: str, number: int, options: int) -> Iterator[Mention]:
    """Yields the letters that stand together in a line, in order, and how they are meant."""
    runs: list[tuple[str | None, int, int]] = []  # letters, None for alternatives; start, end
    for word in wording.LETTERS.finditer(line):
        if word[0].islower() and not set(word[0].upper()) <= set(LETTERS[:options]):
            continue
        run, start, end = runs[-1] if runs else ("", 0, 0)
        between = line[end : word.start()] if runs and word[0].isupper() == line[start].isupper() else "x"
        own = TEXT not in between or word[0] == run or line[word.end() :][:1] == TEXT
        if own and wording.JOINED.fullmatch(between):
            runs[-1] = (run if run == word[0] and TEXT in between else run and run + word[0], start, word.end())
        elif wording.ALTERNATIVES.fullmatch(between):
            runs[-1] = (run if run == word[0] else None, start, word.end())  # "听觉，即 B" is one
        else:
            runs.append((word[0], word.start(), word.end()))
    for run, start, end in runs:
        letters = run and sound(run.upper(), options)
        kind = _kind(line, start, end, opens=not number and not line[:start].strip(" ("))
        if run is None and kind not in (Kind.ANNOUNCED, Kind.TOLD, Kind.WRONG):
            kind = Kind.POSSIBLE
        if kind == Kind.ANNOUNCED and wording.GOES_ON.match(line, end):
            letters = None
        several = not line[start:end].isalpha() and set(run or "A") & set(LETTERS[:options])  # "X、D 也行" names D
        # Elsewhere a small letter is a word, and capitals that are no options an abbreviation.
        if kind == Kind.ANNOUNCED or line[start].isupper() and (letters or several):
            yield Mention(letters, kind, number, start, end, line[max(0, start - 12) : end + 12].strip())


def _kind(line: str, start: int, end: int, opens: bool) -> Kind:
    """Returns how the letters at `start` are meant; `opens`: the response begins with them."""
    before, after = line[max(0, start - NEAR) : start], line[end : end + NEAR]
    sentence = wording.SENTENCE.split(before)[-1]
    clause = wording.CLAUSE.split(sentence)[-1]
    stop = wording.CLAUSE.search(after)
    rest = after[: stop.end() if stop else None]
    alone, right, ends = (form.match(after) for form in (wording.ALONE, wording.RIGHT, wording.SENTENCE_END))
    if ends and start < NEAR and wording.BARE.fullmatch(before):
        kind = Kind.LISTED if TEXT in ends[0] else Kind.ANNOUNCED
    elif (alone or right or wording.REASONED.match(after)) and wording.ANNOUNCED.search(before):
        kind = Kind.ANNOUNCED
    elif right or alone and wording.NAMED.search(before):
        kind = Kind.RIGHT if right else Kind.NAMED
    elif wording.BARE.fullmatch(sentence):
        kind = Kind.NAMED if ends or opens and wording.OPENS.match(after) else Kind.TOLD  # "A 项，……" is a topic
    else:
        kind = Kind.POSSIBLE if alone else Kind.TOLD
    admitted = kind != Kind.TOLD and wording.ALSO.match(after) or wording.NOT_EXCLUDED.search(before)
    twice = wording.DENIED_TWICE.search(clause + rest)  # "不能算错"
    topic = kind == Kind.TOLD and not admitted
    if topic and wording.WRONG.match(after) and not twice:
        return Kind.WRONG
    supposed = wording.IF.search(sentence) and not wording.CONCLUDED.search(clause)
    if topic or wording.ASIDE.search(clause) or wording.ASIDE.search(rest) or supposed and wording.IF.search(clause):
        return Kind.TOLD if not twice and _told(line[start], clause, after, bool(supposed)) else Kind.POSSIBLE
    following = wording.LETTERS.search(rest)
    denies_it = following and wording.NEGATED.search(rest[: following.start()])  # "B 而不是 A" denies A, not B
    denied = wording.NEGATED.search(clause) or wording.WRONG.match(after) and not denies_it
    if denied and not twice and not wording.NOT_EXCLUDED.search(before):
        return Kind.WRONG
    doubted = supposed or wording.DOUBTED.search(clause) or wording.DOUBTED.search(rest)
    unsure = wording.UNSURE.search(before + rest) or wording.IF_FOLLOWS.match(after)
    return Kind.POSSIBLE if admitted or denied or doubted or unsure else kind


def _told(letter: str, before: str, after: str, rated: bool) -> bool:
    """Returns whether the sentence rules letters out or tells what they are, and rates them only to take it back."""
    before = wording.CAPITAL.split(before)[-1]
    rated = rated or bool(wording.RATED.search(before) and not wording.CONCEDED.search(before))
    told = wording.RULED_OUT.search(before) or letter == "A" and after[:1] == " " and after[1:2].islower()  # an article
    after = wording.CAPITAL.split(wording.SENTENCE.split(after.lstrip(f" .){TEXT}"))[0])[0]
    for clause in wording.PARTS.split(after):
        low, rates = wording.RULED_OUT.search(clause), wording.RATED.search(clause)
        rated = rated and not wording.CONTRAST.match(clause)
        if rates and not (low and low.start() < rates.start()):
            rated = rated or not wording.CONCEDED.search(before + clause)
        else:
            told = told or low or wording.TELLS.search(clause) or wording.CONTRAST.match(clause)
    return bool(told and not rated)


def _lines(text: str) -> list[str]:
    """Returns the lines that are not empty. The row of a table is the cell of its one answer column, or all cells; a
    list, one letter a line, all with their option's text or none, is joined to the heading that announces it."""
    lines: list[str] = []
    column: int | None = None
    heading = listing = reasoned = False
    for line in filter(None, map(str.strip, text.split("\n"))):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            column = None
        elif column is None:
            heads = [place for place, cell in enumerate(cells) if wording.HEAD.search(cell)]
            column = heads[0] if len(heads) == 1 else -1
            continue
        else:
            line = f"答案: {cells[column]}" if 0 <= column < len(cells) else ": ".join(cells)
        item = bool(wording.ITEM.fullmatch(line))
        if listing and item and (TEXT in line) == (TEXT in lines[-1]):
            lines[-1] += f"、{line}"
        elif heading and (item or lines[-1].endswith(":")) and wording.ITEM.match(line):
            lines[-1] += f" {line}"
            heading, listing, reasoned = False, item, not item
        else:
            reasoned = reasoned and bool(wording.ITEM.match(line))
            lines.append("或 " * reasoned + line)
            names = len(line) > NEAR or wording.CAPITAL.search(line)
            heading, listing = not names and bool(wording.ANNOUNCED.search(line)), False
    return lines


@lru_cache(1024)
def _patterns(options: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], dict[str, str]]:
    """Returns expressions for a letter with its option's text and for a text alone, and the letters of texts."""
    texts = [normalise(option).replace("\n", " ").rstrip("。.;, ") for option in options]
    known = set(LETTERS[: len(texts)])  # a text of such letters alone, as of blood groups, cannot be told from them
    pairs = [(at, text, re.escape(text)) for at, text in zip(LETTERS, texts, strict=False) if not set(text) <= known]
    letters = {text: letter for letter, text, _ in pairs if texts.count(text) == 1}
    start = r"(?:(?<![一-龥])|(?<=[是为选择即项案和与及或]))"
    end = r"(?=[ )]*(?:[。.,;!、(即这也亦更同都均和与及\n]|\Z))"
    whole = r"(?:(?<![A-Za-z0-9])|(?![A-Za-z0-9]))"  # "Answer" is no A with an option "n"
    own = [rf"{at}(?:[ ).:、=—-]{{0,4}}\(?{text}{whole}\)?|(?:选?项)?[。,]{text}{end})" for at, _, text in pairs]
    alone = "|".join(re.escape(text) for text in sorted(letters, key=len, reverse=True)) or "(?!)"
    either = "|".join(own) or "(?!)"
    return re.compile(rf"(?<![A-Za-z0-9])(?:{either})"), re.compile(f"{start}(?:{alone}){end}"), letters


def _option_texts(text: str, options: tuple[str, ...]) -> str:
    """Returns the text with TEXT for an option's text behind its letter, and with the letter and TEXT for a text that
    stands for it; the question's options, repeated in a row, are left out."""
    own, alone, letters = _patterns(options)

    def row(match: re.Match[str]) -> str:
        repeats = "".join(wording.CAPITAL.findall(match[0])) == LETTERS[: len(options)]
        return "\n" if repeats and not wording.HEAD.search(match.string[: match.start()][-12:]) else match[0]

    text = wording.ROW.sub(row, own.sub(lambda match: match[0][0] + TEXT, text))
    done, at = "", 0
    for match in alone.finditer(text):
        done, at = done + text[at : match.start()], match.end()
        states = not done[-NEAR:].rpartition("\n")[2].strip(" (") or wording.STANDS_FOR.search(done[-NEAR:])
        follows = text[at : at + 3].lstrip(" )")[:1] or "\n"
        states = states or follows in "也亦更同都均" or follows in "。;!\n" and wording.ENDED.search(done[-4:])
        beside = wording.BESIDE.search(done[-NEAR:])  # another letter: "A（听觉）" is neither
        done += f"{'或' * bool(beside)}{letters[match[0]]}{TEXT}" if states or beside else match[0]
    return done + text[at:]
