"""Plain dialogues: sharegpt rows and OpenAI messages, in any table (`data_pipeline/tables/rows.py`), mostly JSON.

    {"id": ..., "messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"id": ..., "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "system": ...}

Names of roles: `dialogues.ROLES`. Where a thought may stand: `conversations.message_turns`. Without an `id` a row is
named by its file and number.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations
from data_pipeline.tables.rows import as_json


def read(
    path: str | Path,
    merge: bool = False,
    roles: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    encoding: str = "",
    split: str = "",
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order.

    `merge` joins turns of one speaker in a row. `roles` maps further names of roles, {therapist: counselor}; null
    maps none. `ignore` names fields to leave out; a row with another one that carries meaning and is not known is
    rejected. `encoding` is that of a text file; "" finds it. `split` is the part of a data set that is read; ""
    asks where there are several. Raises BadInput for a missing or broken file.
    """
    form = conversations.Form(merge, roles or {}, ignore, encoding)
    for row in conversations.rows(path, form, split):
        id = f"{row.table}/{row.number}"
        if isinstance(row.values, Fault):
            yield Reject(id, row.where, *row.values)
            continue
        if row.values.get("id") not in (None, ""):
            id = str(row.values["id"])
        name = "messages" if row.values.get("messages") is not None else "conversations"
        turns, system = as_json(row.values.get(name)), row.values.get("system") or ""
        if not isinstance(turns, list):
            yield Reject(id, row.where, "not an object with a list under messages or conversations")
        elif unknown := form.unknown(row.values, "system", name):
            yield Reject(id, row.where, *unknown)
        else:
            head = [] if not system or _begins_with(turns, system) else [{"role": "system", "content": system}]
            said = conversations.message_turns(head + turns, form)
            yield conversations.dialogue(id, "messages", row.where, said, form)


def _begins_with(turns: list, system: str) -> bool:
    """Returns whether the first message is this system prompt: rows that say it twice mean one."""
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    return first.get("role", first.get("from")) == "system" and first.get("content", first.get("value")) == system
