"""What every reader and exporter of dialogues shares: names of roles, what makes a dialogue usable, thoughts in text.

A usable dialogue is an optional system turn, then client and counselor in turn, the client first, none of them empty,
with at least one answer. A client's last words without an answer are kept.
"""

import re

from data_pipeline.encodings import lost_characters, may_have_lost
from data_pipeline.records import Fault, Turn
from reward.thought import join_thought, stray_mark

# The names that are understood. Any other one, such as "therapist", rejects the dialogue and is named: nothing is
# guessed about who speaks; a recipe maps it.
ROLES = {
    "system": "system",
    "client": "client",  # SMILECHAT
    "user": "client",  # OpenAI messages, PsyDTCorpus
    "human": "client",  # sharegpt
    "来访者": "client",  # CPsyCounD
    "求助者": "client",  # CPsyCounE
    "counselor": "counselor",  # SMILECHAT
    "assistant": "counselor",
    "gpt": "counselor",
    "心理咨询师": "counselor",  # CPsyCounD
    "咨询师": "counselor",
    "支持者": "counselor",  # CPsyCounE
}
_SIGN = re.compile(r"[<＜&【\[◁]")  # with which tags and marks begin
_TAG = re.compile(r"(?:<|＜|&lt;)\s?/?\s?([^\W\d][\w:.-]{0,30})\s?(?:>|＞|&gt;)")
_THOUGHT = "思考过程|思考|内心独白|内心活动|心理活动|推理过程|推理|thinking|think|thoughts?|reasoning|analysis"
_BRACKETED = re.compile(rf"[【\[]\s?/?(?:{_THOUGHT})[】\]]", re.IGNORECASE)
_LABEL = re.compile(rf"\s*[#*【\[（(]*\s?(?:{_THOUGHT})[】\]）)]*\**\s*(?:[:：]|\n)", re.IGNORECASE)
_ASIDE = re.compile(rf"\s*[（(*]+\s?(?:{_THOUGHT})[:：]", re.IGNORECASE)  # （内心独白：...）
_LABELS = frozenset("#*【[（(思内心推tTrRaA")  # with which labels and asides begin
_ANSWER = re.compile(
    r"^[#*【\[（(]*\s?(?:回复|回答|回应|答复|response|reply|answer)[】\]）)]*\**\s*(?:[:：]|$)", re.I | re.M
)
# Names of HTML's elements, which cleaning takes out
HTML = frozenset(
    "a abbr address area article aside audio b base bdi bdo big blockquote body br button canvas caption center"
    " cite code col dd del div dl dt em embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head"
    " header hr html i iframe img input ins kbd label legend li link main map mark meta nav noscript object ol"
    " optgroup option p picture pre q ruby s samp script section select small source span strike strong style"
    " sub sup svg table tbody td textarea tfoot th thead time title tr u ul video wbr".split()
)
MESSAGE_ROLES = {"system": "system", "client": "user", "counselor": "assistant"}


def fault(turns: list[Turn]) -> Fault | None:
    """Returns the Fault for which the turns are no usable dialogue (its detail names the turn, from 1), or None."""
    whole = "\n".join([turn.content for turn in turns])
    doubtful = may_have_lost(whole) or _SIGN.search(whole) is not None
    for number, turn in enumerate(turns, 1):
        sure = not doubtful and not turn.thought and (first := turn.content[:1]).strip() and first not in _LABELS
        if not sure and (unfit := _unfit(turn)):
            return Fault(unfit.code, f"{unfit.detail}turn {number} ({turn.role})")
    first = 1 if turns and turns[0].role == "system" else 0
    spoken = turns[first:]
    if not spoken:
        return Fault("no turn")
    if spoken[0].role == "counselor":
        return Fault("starts with the counselor")
    if first and spoken[0].role == "system":
        return Fault("two system turns", "1 and 2; keep one, or join them")
    for number, (turn, after) in enumerate(zip(spoken, spoken[1:], strict=False), first + 1):
        if after.role == "system":
            return Fault("a system turn in the middle", f"turn {number + 1}")
        if turn.role == after.role:
            detail = f"{number} and {number + 1}; options: {{merge: true}} joins split turns"
            return Fault(f"two {turn.role} turns in a row", detail)
    if len(spoken) == 1:
        return Fault("no counselor turn")
    return None


def _unfit(turn: Turn) -> Fault | None:
    """Returns the Fault of a turn by itself; its detail goes before the turn's place."""
    if not turn.content.strip():
        return Fault("an empty turn")
    if turn.thought and turn.role != "counselor":
        return Fault("a thought that is not the counselor's")
    what = "reply" if turn.role == "counselor" else "text"
    if mark := stray_mark(turn.content) or (_foreign_mark(turn.content) if what == "reply" else ""):
        return Fault(f"{mark} inside a {what}")
    if lost := lost_characters(turn.content):
        return Fault(lost.code, f"{lost.detail}, {what} of ")
    if turn.thought and (mark := stray_mark(turn.thought)):
        return Fault(f"{mark} inside a thought")
    if turn.thought and (lost := lost_characters(turn.thought)):
        return Fault(lost.code, f"{lost.detail}, thought of ")
    return None


def _foreign_mark(reply: str) -> str:
    """Returns what parts a reply in a way that no reader knows: a tag that is not HTML's, a label of a thought and one
    of the reply behind it; "" without one.
    """
    if _SIGN.search(reply):
        tags = [tag for tag in _TAG.finditer(reply) if tag[1].lower() not in HTML]
        if tags or (tags := list(_BRACKETED.finditer(reply))):
            return tags[0][0]
    label = _LABEL.match(reply)
    if label and (_ANSWER.search(reply, label.end()) or "\n\n" in reply[label.end() :]):
        return label[0].strip()
    return aside[0] if (aside := _ASIDE.match(reply)) else ""


def with_thought(turn: Turn) -> str:
    """Returns the turn's text as Qwen3's chat template writes it: the thought, if any, in <think></think> before it."""
    return join_thought(turn.thought, turn.content)


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Returns the turns as OpenAI messages, thoughts included; `sources/messages.py` reads them back as they were."""
    return [{"role": MESSAGE_ROLES[turn.role], "content": with_thought(turn)} for turn in turns]
