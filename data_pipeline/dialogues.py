"""What every reader and exporter of dialogues shares: names of roles, what makes a dialogue usable, thoughts in text.

A usable dialogue is an optional system turn, then client and counselor in turn, the client first, none of them empty,
with at least one answer. A client's last words without an answer are kept.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Fault, Reject, Turn, parse_json, read_jsonl
from reward.thought import CLOSE, OPEN, join_thought

# The names that are understood. Any other one, such as "therapist", rejects the dialogue and is named: nothing is
# guessed about who speaks.
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
# Inside a text they would end a thought or a turn in Qwen's templates, in training and at inference.
MARKS = (OPEN, CLOSE, "<|im_start|>", "<|im_end|>")


def dialogue(
    id: str, source: str, where: str, turns: Iterable, merge: bool = False, thoughts: bool = False, **meta
) -> Dialogue | Reject:
    """Returns the Dialogue that `turns` make, or a Reject whose detail names the turn.

    `turns` are (name of the role, text, thought); the thought is None where there is none, and empty where the data
    set has a place for one with nothing in it, which is a fault. With `thoughts` every counselor turn needs one.
    `merge` joins turns of one speaker in a row by a line break, and counts them in meta["merged_turns"].
    """
    kept: list[Turn] = []
    merged = 0
    for number, (name, text, thought) in enumerate(turns, 1):
        role = ROLES.get(name) if isinstance(name, str) else None
        at = f"turn {number} ({role})"
        if role is None:
            known = ", ".join(ROLES)
            detail = f"{name!r}, turn {number}; understood are {known}"
            return Reject(id, where, "a role that is not understood", detail)
        for what, value in (("text", text), ("thought", "" if thought is None else thought)):
            if not isinstance(value, str):
                return Reject(id, where, "not a string", f"the {what} of {at} is {type(value).__name__}")
        if (role == "counselor" and thoughts and thought is None) or (thought is not None and not thought.strip()):
            return Reject(id, where, "an empty thought", at)
        turn = Turn(role, _clean(text), _clean(thought or ""))
        if merge and kept and kept[-1].role == role != "system" and turn.content:
            kept[-1].content += "\n" + turn.content
            kept[-1].thought = "\n".join(filter(None, (kept[-1].thought, turn.thought)))
            merged += 1
        else:
            kept.append(turn)
    if found := fault(kept):
        return Reject(id, where, *found)
    return Dialogue(id, source, kept, {"where": where, **meta, **({"merged_turns": merged} if merged else {})})


def fault(turns: list[Turn]) -> Fault | None:
    """Returns the Fault for which the turns are no usable dialogue (its detail names the turn, from 1), or None."""
    for number, turn in enumerate(turns, 1):
        at = f"turn {number} ({turn.role})"
        if not turn.content.strip():
            return Fault("an empty turn", at)
        if turn.thought and turn.role != "counselor":
            return Fault("a thought that is not the counselor's", at)
        for what, text in (("reply" if turn.role == "counselor" else "text", turn.content), ("thought", turn.thought)):
            for mark in MARKS:
                if mark in text:
                    return Fault(f"{mark} inside a {what}", at)
    first = 1 if turns and turns[0].role == "system" else 0
    spoken = turns[first:]
    if not spoken:
        return Fault("no turn")
    if spoken[0].role == "counselor":
        return Fault("starts with the counselor")
    for number, (turn, after) in enumerate(zip(spoken, spoken[1:], strict=False), first + 1):
        if after.role == "system":
            return Fault("a system turn in the middle", f"turn {number + 1}")
        if turn.role == after.role:
            detail = f"{number} and {number + 1}; merge=true joins split turns"
            return Fault(f"two {turn.role} turns in a row", detail)
    if len(spoken) == 1:
        return Fault("no counselor turn")
    return None


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def with_thought(turn: Turn) -> str:
    """Returns the turn's text as Qwen3's chat template writes it: the thought, if any, in <think></think> before it."""
    return join_thought(turn.thought, turn.content)


def leading_thought(text: object) -> tuple[str | None, object]:
    """Returns (thought, reply) of a text that begins with a closed thought; (None, text) of any other.

    A tag that is left in either of them is found by `fault`, which names it.
    """
    if isinstance(text, str) and text.lstrip().startswith(OPEN) and CLOSE in text:
        thought, _, reply = text.lstrip().removeprefix(OPEN).partition(CLOSE)
        return thought, reply
    return None, text


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Returns the turns as OpenAI messages, thoughts included; `sources/messages.py` reads them back as they were."""
    return [{"role": MESSAGE_ROLES[turn.role], "content": with_thought(turn)} for turn in turns]


def message_turns(row: list) -> Iterator[tuple]:
    """Yields (role, text, thought) of OpenAI messages or sharegpt turns, as `dialogue` takes them.

    A thought is what stands in <think></think> at the beginning of a text, or a message's `reasoning_content`.
    """
    for message in row:
        if not isinstance(message, dict):
            yield None, message, None
            continue
        name = message.get("role", message.get("from"))
        text, thought = message.get("content", message.get("value")), message.get("reasoning_content") or None
        if thought is None and ROLES.get(name if isinstance(name, str) else "") == "counselor":
            thought, text = leading_thought(text)
        yield name, text, thought


def files(path: str | Path, *suffixes: str) -> list[Path]:
    """Returns the file, or the folder's files of these suffixes at any depth, paths sorted; BadInput without one."""
    path = Path(path)
    found = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in suffixes and f.is_file())
    if not found:
        raise BadInput(f"{path}: {'no ' + ' or '.join(suffixes) + ' file in it' if path.is_dir() else 'no such file'}")
    return found


def rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, row) of a JSONL file or of a JSON list; raises BadInput for any other content."""
    path = Path(path)
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
        return
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    found = parse_json(path, path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    if not isinstance(found, list):
        raise BadInput(f"{path}: expected a list of dialogues, found {type(found).__name__}")
    yield from enumerate(found, 1)
