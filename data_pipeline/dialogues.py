"""What every reader and exporter of dialogues shares: names of roles, what makes a dialogue usable, thoughts in text.

A usable dialogue is an optional system turn, then client and counselor in turn, the client first, none of them empty,
with at least one answer. A client's last words without an answer are kept.
"""

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
MESSAGE_ROLES = {"system": "system", "client": "user", "counselor": "assistant"}


def fault(turns: list[Turn]) -> Fault | None:
    """Returns the Fault for which the turns are no usable dialogue (its detail names the turn, from 1), or None."""
    for number, turn in enumerate(turns, 1):
        at = f"turn {number} ({turn.role})"
        if not turn.content.strip():
            return Fault("an empty turn", at)
        if turn.thought and turn.role != "counselor":
            return Fault("a thought that is not the counselor's", at)
        for what, text in (("reply" if turn.role == "counselor" else "text", turn.content), ("thought", turn.thought)):
            if mark := stray_mark(text):
                return Fault(f"{mark} inside a {what}", at)
            if "\ufffd" in text:
                return Fault("a character that was lost", f"U+FFFD in the {what} of {at}")
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


def with_thought(turn: Turn) -> str:
    """Returns the turn's text as Qwen3's chat template writes it: the thought, if any, in <think></think> before it."""
    return join_thought(turn.thought, turn.content)


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Returns the turns as OpenAI messages, thoughts included; `sources/messages.py` reads them back as they were."""
    return [{"role": MESSAGE_ROLES[turn.role], "content": with_thought(turn)} for turn in turns]
