"""A dialogue as the items of an evaluation: each of the client's turns, after what was really said before it."""

from collections.abc import Iterator
from dataclasses import replace

from data_pipeline.dialogues import MESSAGE_ROLES
from data_pipeline.records import Dialogue, Turn
from eval.contract import Item


def client_turns(dialogue: Dialogue) -> Iterator[tuple[Dialogue, str]]:
    """Yields (the dialogue up to and with a client's turn, the counsellor's reply that followed, "" for none)."""
    number = 0
    for place, turn in enumerate(dialogue.turns):
        if turn.role == "client":
            number += 1
            reply = dialogue.turns[place + 1].content if place + 1 < len(dialogue.turns) else ""
            yield replace(dialogue, id=f"{dialogue.id}#{number}", turns=dialogue.turns[: place + 1]), reply


def messages(turns: list[Turn]) -> list[dict]:
    """Returns the turns as messages, without the thoughts of earlier replies."""
    return [{"role": MESSAGE_ROLES[turn.role], "content": turn.content} for turn in turns]


def history(item: Item) -> list[tuple[str, str]]:
    """Returns what was said before the reply, [(role, text)], without a system prompt."""
    return [(turn.role, turn.content) for turn in item.dialogue.turns if turn.role != "system"]
