"""SMILECHAT (Qiu et al. 2024, arXiv 2305.00450, CC0): one JSON file per dialogue, a list of {role, content}.

The roles are client and counselor; sentence annotations, where a file has them, are left behind.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Fault, Reject, json_or_fault


def read(path: str | Path, merge: bool = False) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every file, paths sorted; `path` is the folder or one file.

    `merge` joins turns of one speaker in a row. A file that is not JSON is rejected; raises BadInput for a path without
    JSON files.
    """
    root = Path(path)
    for file in dialogues.files(root, ".json"):
        name = file.relative_to(root) if root.is_dir() else Path(file.name)  # folders may have files of one name
        id, where = f"smilechat/{name.with_suffix('').as_posix()}", str(file)
        turns = json_or_fault(file.read_bytes())
        if isinstance(turns, Fault):
            yield Reject(id, where, *turns)
        elif not isinstance(turns, list):
            yield Reject(id, where, "expected a list of turns", f"found {type(turns).__name__}")
        else:
            yield dialogues.dialogue(id, "smilechat", where, dialogues.message_turns(turns), merge)
