"""OpenR1-Psy (PsyLLM, arXiv 2505.15715; hub: GMLHUHE/OpenR1-Psy, about 19,300 English dialogues).

Rows of {post_id, file, conversation: [{patient, counselor_content, counselor_think}, ...]}: every counselor turn has a
thought, and a row where one has none is rejected.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations

LICENCE = (
    'its repository says "research and educational use only" beside '
    "an Apache badge; its posts have licences of their own"
)
ROUND = ("patient", "counselor_content", "counselor_think")


def read(
    path: str | Path,
    merge: bool = False,
    split: str = "train",
    ignore: Collection[str] = (),
    encoding: str = "",
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order.

    `path` is a file, a folder saved by `datasets`, or the data set's name on the hub. `merge` is taken for the sake
    of one form of all readers: rounds cannot be split. `split` is the part of a data set that is read, not of a
    file. `ignore` names fields to leave out; a row with another one that carries meaning and is not known is
    rejected. `encoding` is that of a text file; "" finds it. Raises BadInput for what cannot be read.
    """
    form = conversations.Form(merge, ignore=ignore, encoding=encoding)
    for row in conversations.rows(path, form, split):
        id = f"openr1_psy/{row.table}/{row.number}"
        if isinstance(row.values, Fault):
            yield Reject(id, row.where, *row.values)
            continue
        rounds = _rounds(row.values, form)
        if isinstance(rounds, Fault):
            yield Reject(id, row.where, *rounds)
            continue
        meta = {"post_id": row.values.get("post_id"), "file": row.values.get("file")}
        yield conversations.dialogue(id, "openr1_psy", row.where, _turns(rounds), form, thoughts=True, **meta)


def _rounds(row: dict, form: conversations.Form) -> list[dict] | Fault:
    rounds = row.get("conversation")
    if not isinstance(rounds, list) or not all(isinstance(r, dict) for r in rounds):
        return Fault("not an object with a list of rounds under conversation")
    unknown = [form.unknown(row, "post_id", "conversation"), *(form.unknown(one, *ROUND) for one in rounds)]
    return next(filter(None, unknown), rounds)


def _turns(rounds: list[dict]) -> Iterator[tuple]:
    for round in rounds:
        yield "client", round.get("patient"), None
        yield "counselor", round.get("counselor_content"), round.get("counselor_think")
