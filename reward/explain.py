"""Shows how one response is read, by strict-match and by flexible-extract, and scored.

    python -m reward.explain "RESPONSE" options=甲,乙,丙,丁 key=B
    python -m reward.explain "因为……</think>答案：B" options=甲,乙,丙,丁 key=A、C think_prefilled=true multi_rule=subset
    python -m reward.explain - 'options=["一、二", "三"]' key=A < response.txt

RESPONSE       the text, or - for standard input
options=       the options' texts, separated by commas, or a JSON list; without it the letters A to F are possible
key=           the right letters, such as B, AC, A、C; without it the response is read, not scored
reading=, multi_rule=, format_weight=, format_gate=, think_prefilled=
               reward_kwargs of the recipe, explained in reward/rules.md
"""

import difflib
import io
import json
import re
import sys
from typing import Any, cast

from reward.answer import LETTERS, MAX_ANSWER_CHARS, Reading, read, read_strict_match
from reward.psyche import MULTI_RULES, READINGS, compute_score, credit, read_key
from reward.thought import split_thought, template_opened

DEFAULTS = {
    "reading": "strict_match",
    "multi_rule": "strict",
    "format_weight": 0.1,
    "format_gate": False,
    "think_prefilled": False,
}
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
    prefilled, paid_by = kwargs["think_prefilled"], kwargs["reading"]
    thought, answer = split_thought(response, prefilled)
    strict, flexible = read_strict_match(response, options, prefilled), read(response, options, prefilled)
    lines = [
        f"thought           {'none' if thought is None else f'{len(thought):,} characters'}",
        f"answer part       {'none' if answer is None else repr(answer[:300]) + ' ...' * (len(answer) > 300)}"
        + (f", {len(answer):,} of at most {MAX_ANSWER_CHARS:,} characters" if answer else ""),
        "options           " + "  ".join(f"{letter}={text}" for letter, text in zip(LETTERS, options, strict=False)),
        f"strict-match      {strict or 'unreadable'}: {form_fault(response, options, prefilled) or 'in the form'}",
        f"flexible-extract  {flexible.letters or 'unreadable'}: {flexible.why}",
        "letters           " + (_mentions(flexible) or "none"),
    ]
    if key is None:
        return lines
    scores = compute_score("", response, key, {"options": options}, **kwargs)
    weight, rule, formed = kwargs["format_weight"], kwargs["multi_rule"], int(scores["format"])
    letters = flexible.letters if strict is None and paid_by == "flexible_extract" else strict
    earned = credit(letters, key, rule)
    told = f"credit {earned:g} ({letters or 'nothing'} for the key {key} by {paid_by}, {rule})"
    if kwargs["format_gate"] and not formed:
        told = f"credit 0 (format_gate: {earned:g} only in the form)"
    lines += [f"{name:17} {value:g}" for name, value in scores.items()]
    lines += [f"score             = {weight:g} x format {formed} + {1 - weight:g} x {told} = {scores['score']:g}"]
    return lines


def form_fault(response: str, options: list[str], think_prefilled: bool = False) -> str | None:
    """Returns the part of the asked form that the response breaks, None when strict-match reads it."""
    if read_strict_match(response, options, think_prefilled):
        return None
    thought, answer = split_thought(response, think_prefilled)
    if template_opened(response) and not think_prefilled:
        return "a thought is closed that nothing opened; if the chat template opens it: think_prefilled=true"
    if "<think>" not in response and "</think>" not in response and not think_prefilled:
        return "no thought: the response has no <think>...</think>"
    if thought is None:
        return "not exactly one thought: <think> and </think> must stand once each, in this order"
    if not thought.strip():
        return "the thought is empty"
    if not think_prefilled and not response.lstrip().startswith("<think>"):
        return "text before the thought"
    if not answer or not answer.strip():
        return "nothing after the thought"
    return f"after the thought, not one line `答案：` and letters of A to {LETTERS[len(options) - 1]}, each once"


def _mentions(reading: Reading) -> str:
    told = (f"{m.letters or 'none'} {m.kind.name.lower()} <- {m.text!r}" for m in reading.mentions)
    return ("\n" + " " * 18).join(told)


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
    try:
        return read_key(value, len(options))
    except ValueError as error:
        raise BadWord(str(error)) from None


def _value(name: str, value: str) -> object:
    if name in ("multi_rule", "reading"):
        known = {word: word for word in (MULTI_RULES if name == "multi_rule" else READINGS)}
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
