"""PsyDTCorpus (SoulChat2.0, arXiv 2412.13660): rows of {id, normalizedTag, messages}, OpenAI roles, a system prompt.

`PsyDTCorpus_train_mulit_turn_packing.json` holds one dialogue per row, `PsyDTCorpus_test_single_turn_split.json` one
row per turn that is to be answered. The test file is the evaluation set of the paper: meta["benchmark"] says so, and
the exporter refuses it as training data.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject


def read(path: str | Path, merge: bool = False) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row of the JSON or JSONL file, in order.

    `merge` joins turns of one speaker in a row. Raises BadInput for a missing or broken file.
    """
    path = Path(path)
    for number, row in dialogues.rows(path):
        id, where = f"psydt/{path.stem}/{number}", f"{path} row {number}"
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
            yield Reject(id, where, "not an object with a list of messages")
            continue
        meta: dict[str, Any] = {"released_id": row.get("id"), "topic": row.get("normalizedTag")}
        if "_test_" in path.name:
            meta["benchmark"] = "PsyDTCorpus test"
        turns = dialogues.message_turns(row["messages"])
        yield dialogues.dialogue(id, "psydt", where, turns, merge, **meta)
