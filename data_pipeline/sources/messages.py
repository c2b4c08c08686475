"""Plain dialogues: sharegpt rows and OpenAI messages, as JSON lists or JSONL.

    {"id": ..., "messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"id": ..., "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "system": ...}

Names of roles: `dialogues.ROLES`. A thought stands in <think></think> before a reply, or under `reasoning_content`.
Without an `id` a row is named by its file and number.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject


def read(path: str | Path, merge: bool = False) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order.

    `merge` joins turns of one speaker in a row. Raises BadInput for a missing or broken file.
    """
    path = Path(path)
    for number, row in dialogues.rows(path):
        where = f"{path} row {number}"
        named = row.get("id") if isinstance(row, dict) else None
        id = f"{path.stem}/{number}" if named is None else str(named)
        turns = row.get("messages", row.get("conversations")) if isinstance(row, dict) else None
        if not isinstance(turns, list):
            yield Reject(id, where, "not an object with a list under messages or conversations")
        else:
            head = [{"role": "system", "content": row["system"]}] if row.get("system") else []
            yield dialogues.dialogue(id, "messages", where, dialogues.message_turns(head + turns), merge)
