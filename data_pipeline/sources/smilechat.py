"""SMILECHAT (Qiu et al. 2024, arXiv 2305.00450, CC0): one JSON file per dialogue, a list of {role, content}.

The roles are client and counselor; sentence annotations, where a file has them, are left behind.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline import dialogues
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Reject, parse_json


def read(path: str | Path, merge: bool = False) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every file, names sorted; `path` is the folder or one file.

    `merge` joins split turns. A file that is not JSON is rejected; raises BadInput for a path without JSON files.
    """
    for file in dialogues.files(path, ".json"):
        id, where = f"smilechat/{file.stem}", str(file)
        try:
            turns = parse_json(file.name, file.read_bytes())
        except BadInput as error:
            yield Reject(id, where, str(error))
            continue
        if not isinstance(turns, list):
            yield Reject(id, where, f"expected a list of turns, found {type(turns).__name__}")
            continue
        yield dialogues.dialogue(id, "smilechat", where, dialogues.message_turns(turns), merge)
