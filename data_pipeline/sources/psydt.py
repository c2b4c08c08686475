"""PsyDTCorpus (SoulChat2.0, arXiv 2412.13660): rows of {id, normalizedTag, messages}, OpenAI roles, a system prompt.

`PsyDTCorpus_train_mulit_turn_packing.json` holds one dialogue per row, `PsyDTCorpus_test_single_turn_split.json` one
row per turn that is to be answered. The test file is the evaluation set of the paper: meta["benchmark"] says so, and
the exporter refuses it as training data.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations

LICENCE = "to be had of its publisher, whose permission it needs"


def read(
    path: str | Path, merge: bool = False, ignore: Collection[str] = (), encoding: str = ""
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row of the JSON or JSONL file, in order.

    `merge` joins turns of one speaker in a row. `ignore` names fields to leave out; a row with another one that
    carries meaning and is not known is rejected. `encoding` is the file's; "" finds it. Raises BadInput for a missing
    or broken file.
    """
    form = conversations.Form(merge, ignore=ignore, encoding=encoding)
    for row in conversations.rows(path, form):
        id = f"psydt/{row.table}/{row.number}"
        if isinstance(row.values, Fault):
            yield Reject(id, row.where, *row.values)
        elif not isinstance(row.values.get("messages"), list):
            yield Reject(id, row.where, "not an object with a list of messages")
        elif unknown := form.unknown(row.values, "normalizedTag", "messages"):
            yield Reject(id, row.where, *unknown)
        else:
            meta: dict[str, Any] = {"released_id": row.values.get("id"), "topic": row.values.get("normalizedTag")}
            if "_test_" in Path(row.table).name:
                meta["benchmark"] = "PsyDTCorpus test"
            turns = conversations.message_turns(row.values["messages"], form)
            yield conversations.dialogue(id, "psydt", row.where, turns, form, **meta)
