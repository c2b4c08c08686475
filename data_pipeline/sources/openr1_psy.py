"""OpenR1-Psy (PsyLLM, arXiv 2505.15715; hub: GMLHUHE/OpenR1-Psy, about 19,300 English dialogues).

Rows of {post_id, file, conversation: [{patient, counselor_content, counselor_think}, ...]}: every counselor turn has a
thought, and a row where one has none is rejected.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject
from data_pipeline.sources import table


def read(path: str | Path, merge: bool = False, split: str = "train") -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order.

    `path` is a .json, .jsonl or .parquet file, a folder saved by `datasets`, or the data set's name on the hub.
    `split` is the part of a data set that is read, not of a file. `merge` is taken for the sake of one form of all
    readers: rounds cannot be split. Raises BadInput for what cannot be read.
    """
    name = Path(path).stem
    rows = dialogues.rows(path) if Path(path).suffix in (".json", ".jsonl") else table.rows_of(str(path), split)
    for number, row in rows:
        id, where = f"openr1_psy/{name}/{number}", f"{path} row {number}"
        rounds = row.get("conversation") if isinstance(row, dict) else None
        if not isinstance(rounds, list) or not all(isinstance(r, dict) for r in rounds):
            yield Reject(id, where, "not an object with a list of rounds under conversation")
            continue
        meta = {"post_id": row.get("post_id"), "file": row.get("file")}
        yield dialogues.dialogue(id, "openr1_psy", where, _turns(rounds), merge, thoughts=True, **meta)


def _turns(rounds: list[dict]) -> Iterator[tuple]:
    for round in rounds:
        yield "client", round.get("patient"), None
        yield "counselor", round.get("counselor_content"), round.get("counselor_think")
