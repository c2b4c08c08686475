"""Reads the answer letters out of a response. What cannot be read is `None`, never guessed.

Used by the reward, by question selection and by evaluation, so that all three mean the same by "right".
"""

import re
import unicodedata

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Letters of an answer, with what people put between them: "ABD", "A、B、D", "A, B and D", "A 和 D".
_RUN = r"[A-Z](?:(?:[\s,、;和与及&]|and\b)*[A-Z])*"
_STATEMENT = re.compile(
    r"(?:(?:正确|最终|最后)?(?:答案|选项)|故选|应选|应该选|因此选|所以选|选择|[Aa]nswer)"
    r"\s*(?:应该|应当|应)?\s*(?:是|为|选|is)?\s*[:]?\s*[\"'\[({【「\\]*(?:boxed\{)?\s*"
    rf"(?P<letters>{_RUN})(?![A-Za-z])"
)
_BARE = re.compile(rf"^[\s\[({{【「]*(?P<letters>{_RUN})[\s\])}}】」.。]*$", re.MULTILINE)
_HEDGE = re.compile(r"[A-Z]\s*(?:或|or\b|/|还是|以及可能)\s*[A-Z]?|不确定|无法判断|不选|排除|错误的是|not\s+[A-Z]\b")


def split_thought(response: str, think_prefilled: bool = False) -> tuple[str | None, str | None]:
    """Returns (thought, answer part). The thought is None without one; the answer part is None when the thought is
    not closed, or when there are several. With `think_prefilled` the chat template has opened the thought already.
    """
    text = ("<think>" + response) if think_prefilled and not response.lstrip().startswith("<think>") else response
    opened, closed = text.count("<think>"), text.count("</think>")
    if opened == closed == 0:
        return None, text
    if opened != 1 or closed != 1 or text.index("<think>") > text.index("</think>"):
        return None, None
    before, rest = text.split("<think>")
    thought, answer = rest.split("</think>")
    return thought, (answer if not before.strip() else before + answer)


def read_answer(response: str, options: list[str], think_prefilled: bool = False) -> str | None:
    """Returns the sorted letters that the response states as its answer, or None when that cannot be read.

    `options` are the texts by position: letters beyond them are no answer. Only what follows </think> counts. All
    statements must agree; a hedge ("A 或 B"), an elimination or a letter beyond the options makes it unreadable.
    """
    _, answer = split_thought(response, think_prefilled)
    if answer is None:
        return None
    text = unicodedata.normalize("NFKC", answer).replace("*", "").replace("`", "")
    statements = [m["letters"] for m in _STATEMENT.finditer(text)] or [m["letters"] for m in _BARE.finditer(text)]
    if not statements or _HEDGE.search(text):
        return None
    readings = {"".join(sorted(set(re.findall("[A-Z]", letters)))) for letters in statements}
    if len(readings) != 1:
        return None
    letters = readings.pop()
    return letters if set(letters) <= set(LETTERS[: len(options)]) else None
