"""What every reader and exporter of dialogues shares: names of roles, what makes a dialogue usable, thoughts in text.

A usable dialogue is an optional system turn, then client and counselor in turn, the client first, none of them empty,
with at least one answer. A client's last words without an answer are kept.
"""

import re

from data_pipeline.encodings import MAYBE_LOST, lost_characters
from data_pipeline.records import Fault, Turn
from data_pipeline.reply_marks import EDGES, LABELS, SIGNS, edge_labels, foreign_mark, may_have_words, role_line
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
_BLANKS = {sign for sign in map(chr, range(0x3001)) if sign.isspace()}
_UNSURE = LABELS | _BLANKS | {""}  # a turn that begins with none of them, in a text without doubt, is sound
_DOUBTFUL = re.compile(f"[{SIGNS}{MAYBE_LOST}]")
_IN_TURN = ["client", "counselor"]
MESSAGE_ROLES = {"system": "system", "client": "user", "counselor": "assistant"}


def fault(turns: list[Turn]) -> Fault | None:
    """Returns the Fault for which the turns are no usable dialogue (its detail names the turn, from 1), or None."""
    texts = [turn.content for turn in turns]
    whole, begin = "\n".join(texts), {text[:1] for text in texts}
    doubtful = _DOUBTFUL.search(whole) is not None or may_have_words(whole, begin)
    # Nearly all dialogues are seen to be sound as a whole.
    if doubtful or not _UNSURE.isdisjoint(begin) or any([turn.thought for turn in turns]):
        for number, turn in enumerate(turns, 1):
            sure = not doubtful and not turn.thought and turn.content[:1] not in _UNSURE
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
    roles = [turn.role for turn in spoken]
    in_turn = roles == (_IN_TURN * len(roles))[: len(roles)]  # nearly all
    for number, (turn, after) in enumerate(() if in_turn else zip(spoken, spoken[1:], strict=False), first + 1):
        if after.role == "system":
            return Fault("a system turn in the middle", f"turn {number + 1}")
        if turn.role == after.role:
            detail = f"{number} and {number + 1}; options: {{merge: true}} joins split turns"
            return Fault(f"two {turn.role} turns in a row", detail)
    if len(spoken) == 1:
        return Fault("no counselor turn")
    replies = texts[first + 1 :: 2]
    edged = not EDGES.isdisjoint(begin) or not EDGES.isdisjoint([reply[-1:] for reply in replies])
    if edged and (labels := edge_labels(replies)):
        place, label, number = labels
        return Fault(f"labels {place} the replies", f"{label}, {number} of {len(replies)}")
    return None


def _unfit(turn: Turn) -> Fault | None:
    """Returns the Fault of a turn by itself; its detail goes before the turn's place."""
    if not turn.content.strip():
        return Fault("an empty turn")
    if turn.thought and turn.role != "counselor":
        return Fault("a thought that is not the counselor's")
    what = "reply" if turn.role == "counselor" else "text"
    mark = stray_mark(turn.content) or (role_line(turn.content) if turn.role != "system" else "")
    if mark := mark or (foreign_mark(turn.content) if what == "reply" else ""):
        return Fault(f"{mark} inside a {what}")
    if lost := lost_characters(turn.content):
        return Fault(lost.code, f"{lost.detail}, {what} of ")
    if turn.thought and (mark := stray_mark(turn.thought)):
        return Fault(f"{mark} inside a thought")
    if turn.thought and (lost := lost_characters(turn.thought)):
        return Fault(lost.code, f"{lost.detail}, thought of ")
    return None


def with_thought(turn: Turn) -> str:
    """Returns the turn's text as Qwen3's chat template writes it: the thought, if any, in <think></think> before it."""
    return join_thought(turn.thought, turn.content)


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Returns the turns as OpenAI messages, thoughts included; `sources/messages.py` reads them back as they were."""
    return [{"role": MESSAGE_ROLES[turn.role], "content": with_thought(turn)} for turn in turns]
