"""CPsyCoun (Zhang et al. 2024, arXiv 2405.16433): CPsyCounD's text files and CPsyCounE's JSON lists.

CPsyCounD (3,084 files): a turn begins a line with 来访者： or 心理咨询师：, and further lines belong to the turn before
them. CPsyCounE (9 topics): one list of strings per dialogue, each beginning with 求助者： or 支持者：. It is an
evaluation set: meta["benchmark"] says so, and the exporter refuses it as training data.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline import dialogues
from data_pipeline.encodings import read_text
from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations

LICENCE = "CC BY 4.0"
_SPEAKERS = [name for name in dialogues.ROLES if not name.isascii()]
# A line such as 督导师： begins a turn too, of a role that is not understood: no turn swallows another speaker.
_TURN = re.compile(
    rf"^[^\S\n]*({'|'.join(_SPEAKERS)}|{conversations.OTHERS}|[^\s：:，。]{{1,8}}(?:者|师|医生))[^\S\n]*[：:]",
    re.MULTILINE | re.IGNORECASE,
)
_PREFIX = re.compile(r"\s*([^：:\n]{1,10}?)\s*[：:]")


def read(
    path: str | Path, merge: bool = False, roles: Mapping[str, str] | None = None, encoding: str = ""
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every file, paths sorted; `path` is a folder of .txt and .json files, or a file.

    `merge` joins turns of one speaker in a row. `roles` maps further speakers, {督导师: counselor}; null maps none.
    `encoding` is that of the files; "" finds it. A file that is no text of one encoding, or not JSON, is rejected;
    raises BadInput for a path without such files.
    """
    root, form = Path(path), conversations.Form(merge, roles or {}, encoding=encoding)
    for file in conversations.files(root, ".txt", ".json"):
        name = file.relative_to(root) if root.is_dir() else Path(file.name)
        id, where = f"cpsycoun/{name.with_suffix('').as_posix()}", str(file)
        turns = _text(file, encoding) if file.suffix == ".txt" else _list(conversations.json_file(file, form))
        if isinstance(turns, Fault):
            yield Reject(id, where, *turns)
            continue
        meta: dict[str, Any] = {"benchmark": "CPsyCounE", "topic": file.parent.name} if file.suffix == ".json" else {}
        yield conversations.dialogue(id, "cpsycoun", where, turns, form, **meta)


def _text(file: Path, encoding: str) -> list[tuple] | Fault:
    """Returns the turns of a text, or the Fault of its encoding or of text before the first speaker."""
    text = read_text(file, encoding)
    if isinstance(text, Fault):
        return text
    pieces = _TURN.split(text)
    if pieces[0].strip():
        speakers = ", ".join(_SPEAKERS)
        return Fault("text before the first speaker", f"{pieces[0].strip()[:20]!r}; speakers are {speakers}")
    return [(name, text, None) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)]


def _list(strings: object) -> list[tuple] | Fault:
    """Returns the turns of a JSON list, or the Fault for which there are none."""
    if isinstance(strings, Fault):
        return strings
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings):
        return Fault("expected a list of strings")
    turns = []
    for number, string in enumerate(strings, 1):
        prefix = _PREFIX.match(string)
        if not prefix:
            return Fault("a turn does not begin with a speaker and a colon", f"turn {number}, {string[:20]!r}")
        turns.append((prefix[1], string[prefix.end() :], None))
    return turns
