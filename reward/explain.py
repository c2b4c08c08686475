"""Shows how one response is read and scored.

    python -m reward.explain "RESPONSE" options=甲,乙,丙,丁 key=B
    python -m reward.explain "因为……</think>答案：B" options=甲,乙,丙,丁 key=AB think_prefilled=true multi_rule=subset
    python -m reward.explain - 'options=["一、二", "三"]' key=A < response.txt

RESPONSE       the text, or - for standard input
options=       the options' texts, separated by commas, or a JSON list; without it the letters A to F are possible
key=           the right letters; without it the response is read, not scored
multi_rule=, format_weight=, format_gate=, think_prefilled=
               reward_kwargs of the recipe, explained in reward/rules.md
"""

import difflib
import io
import json
import re
import sys
from typing import Any, cast

from reward.answer import LETTERS, MAX_ANSWER_CHARS, Reading, read_parts
from reward.psyche import MULTI_RULES, compute_score, credit, is_well_formed
from reward.thought import split_thought

DEFAULTS = {"multi_rule": "strict", "format_weight": 0.1, "format_gate": False, "think_prefilled": False}
KNOWN = ("options", "key", *DEFAULTS)


class BadWord(Exception):
    """A word of the command is wrong; the message names it, and what would be right."""


def main(words: list[str]) -> None:
    """Prints the explanation; raises BadWord."""
    if not words or {"-h", "--help"} & set(words):
        print((__doc__ or "").strip())
        return
    response, given = _response(words[0]), _given(words[1:])
    options = _options(given.pop("options")) if "options" in given else list("ABCDEF")
    key = _key(given.pop("key"), options) if "key" in given else None
    kwargs = DEFAULTS | {name: _value(name, value) for name, value in given.items()}
    print("\n".join(explain(response, options, key, **kwargs)))


def explain(response: str, options: list[str], key: str | None, **kwargs: Any) -> list[str]:
    """Returns the lines that say how `response` is read and, with a key, scored; `kwargs` are all of DEFAULTS."""
    prefilled = kwargs["think_prefilled"]
    thought, answer = split_thought(response, prefilled)
    reading = read_parts(answer, options)
    lines = [
        f"thought      {'none' if thought is None else f'{len(thought):,} characters'}",
        f"answer part  {'none' if answer is None else repr(answer[:300]) + ' ...' * (len(answer) > 300)}"
        + (f", {len(answer):,} of at most {MAX_ANSWER_CHARS:,} characters" if answer else ""),
        "options      " + "  ".join(f"{letter}={text}" for letter, text in zip(LETTERS, options, strict=False)),
        "statements   " + (_statements(reading) or "none"),
        f"reading      {reading.letters or 'unreadable'}: {reading.why}",
        f"format       {format_fault(response, prefilled) or 'well-formed'}",
    ]
    if key is None:
        return lines
    scores = compute_score("", response, key, {"options": options}, **kwargs)
    weight, rule, formed = kwargs["format_weight"], kwargs["multi_rule"], int(scores["format"])
    earned = credit(reading.letters, key, rule)
    told = f"credit {earned:g} ({reading.letters or 'nothing'} for the key {key}, {rule})"
    if kwargs["format_gate"] and not formed:
        told = f"credit 0 (format_gate: {earned:g} only when well-formed)"
    lines += [f"{name:12} {value:g}" for name, value in scores.items()]
    lines += [f"score        = {weight:g} x format {formed} + {1 - weight:g} x {told} = {scores['score']:g}"]
    return lines


def format_fault(response: str, think_prefilled: bool = False) -> str | None:
    """Returns the part of the format rule that the response breaks, None when it is well-formed."""
    if is_well_formed(response, think_prefilled):
        return None
    thought, answer = split_thought(response, think_prefilled)
    if "<think>" not in response and "</think>" not in response and not think_prefilled:
        return "no thought: the response has no <think>...</think>"
    if thought is None:
        return "not exactly one thought: <think> and </think> must stand once each, in this order"
    if not thought.strip():
        return "the thought is empty"
    if not think_prefilled and not response.lstrip().startswith("<think>"):
        return "text before the thought"
    return "not well-formed" if answer and answer.strip() else "nothing after the thought"


def _statements(reading: Reading) -> str:
    return ("\n" + " " * 13).join(f"{s.letters or 'none'} <- {s.text!r}" for s in reading.statements)


def _response(word: str) -> str:
    if word != "-":
        text = word
    else:
        try:
            return sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadWord(f"standard input: not UTF-8 ({error.reason} at byte {error.start})") from None
    if re.match(rf"(?:{'|'.join(KNOWN)})=", text):
        raise BadWord(f"{text}: the first word is the response, or - to read it from standard input")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadWord("RESPONSE: not UTF-8; pass it by standard input (-)")
    return text


def _given(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"; did you mean {near[0]}=?" if near else "; quote a response that has blanks"
            raise BadWord(f"{word}: after the response come {'=, '.join(KNOWN)}={hint}")
        if name in given:
            raise BadWord(f"{name}= stands twice")
        given[name] = value
    return given


def _options(value: str) -> list[str]:
    options = re.split("[,，]", value)
    if value.lstrip().startswith("["):
        try:
            options = json.loads(value)
        except ValueError as error:
            raise BadWord(f"options={value}: not a JSON list ({error})") from None
    options = [text.strip() if isinstance(text, str) else text for text in options]
    if not all(isinstance(text, str) and text for text in options) or not 2 <= len(options) <= len(LETTERS):
        raise BadWord(f"options={value}: 2 to {len(LETTERS)} texts, separated by commas, or a JSON list of texts")
    return options


def _key(value: str, options: list[str]) -> str:
    letters = value.strip().upper()
    possible = LETTERS[: len(options)]
    if not letters or len(set(letters)) != len(letters) or set(letters) - set(possible):
        raise BadWord(f"key={value}: letters of A to {possible[-1]}, each once, such as key=B or key=ABD")
    return "".join(sorted(letters))


def _value(name: str, value: str) -> object:
    if name == "multi_rule":
        known = {rule: rule for rule in MULTI_RULES}
    elif name == "format_weight":
        try:
            known = {value: float(value)} if 0 <= float(value) <= 1 else {}
        except ValueError:
            known = {}
    else:
        known = {"true": True, "false": False}
    if value not in known:
        right = "a number from 0 to 1" if name == "format_weight" else " or ".join(known)
        raise BadWord(f"{name}={value}: must be {right}")
    return known[value]


if __name__ == "__main__":
    try:
        cast(io.TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
        main(sys.argv[1:])
    except BadWord as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
