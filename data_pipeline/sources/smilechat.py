"""SMILECHAT (Qiu et al. 2024, arXiv 2305.00450, CC0): one JSON file per dialogue, a list of {role, content}.

The roles are client and counselor; what `annotation` says of single sentences is left behind.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations

LICENCE = "CC0 1.0"


def read(
    path: str | Path,
    merge: bool = False,
    roles: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    encoding: str = "",
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every file, paths sorted; `path` is the folder or one file.

    `merge` joins turns of one speaker in a row. `roles` maps further names of roles, {therapist: counselor}; null
    maps none. `ignore` names fields to leave out; a row with another one that carries meaning and is not known is
    rejected. `encoding` is that of the files; "" finds it. A file that is not JSON is rejected; raises BadInput for a
    path without JSON files.
    """
    root, form = Path(path), conversations.Form(merge, roles or {}, ignore, encoding)
    for file in conversations.files(root, ".json"):
        name = file.relative_to(root) if root.is_dir() else Path(file.name)  # folders may have files of one name
        id, where = f"smilechat/{name.with_suffix('').as_posix()}", str(file)
        turns = conversations.json_file(file, form)
        if isinstance(turns, Fault):
            yield Reject(id, where, *turns)
        elif not isinstance(turns, list):
            yield Reject(id, where, "expected a list of turns", f"found {type(turns).__name__}")
        else:
            said = conversations.message_turns(turns, form, "annotation")
            yield conversations.dialogue(id, "smilechat", where, said, form)
