"""Alpaca rows: {instruction, input, output, system, history: [[asked, answered], ...]}, in any table, mostly JSON.

As LLaMA-Factory reads them, the client says instruction and input, one below the other. In many sets for counselling
the instruction is a prompt ("You are a helpful mental health counselling assistant ..."): `instruction: system`.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations
from data_pipeline.tables.rows import as_json

KNOWN = ("instruction", "input", "output", "system", "history", *conversations.THOUGHT_FIELDS)


def read(
    path: str | Path,
    merge: bool = False,
    instruction: str = "client",
    ignore: Collection[str] = (),
    encoding: str = "",
    split: str = "",
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order; one without an `id` is named by its place.

    A thought stands before an output, marked, or in a field of its own (`conversations.reply`). `merge` joins turns
    of one speaker in a row. `instruction` is client or system: who says it. `ignore` names fields to leave out; a
    row with another one that carries meaning and is not known is rejected. `encoding` is that of a text file; ""
    finds it. `split` is the part of a data set that is read; "" asks where there are several. Raises BadInput for a
    missing or broken file.
    """
    if instruction not in ("client", "system"):
        raise BadInput(f"options.instruction={instruction}: is client or system")
    form = conversations.Form(merge, ignore=ignore, encoding=encoding)
    for row in conversations.rows(path, form, split, columns=("instruction", "output")):
        id = f"alpaca/{row.table}/{row.number}"
        if isinstance(row.values, Fault):
            yield Reject(id, row.where, *row.values)
        elif unknown := form.unknown(row.values, *KNOWN):
            yield Reject(id, row.where, *unknown)
        else:
            turns = _turns(row.values, instruction == "system")
            yield conversations.dialogue(id, "alpaca", row.where, turns, form)


def _turns(row: dict, prompt: bool) -> Iterator[tuple | Fault]:
    instruction, asked = row.get("instruction") or "", row.get("input") or ""
    system = [row.get("system") or "", instruction if prompt else ""]
    if not all(isinstance(text, str) for text in (*system, instruction, asked)):
        yield Fault("not a string", "system, instruction or input")
        return
    if any(system):
        yield "system", "\n".join(filter(None, system)), None
    history = as_json(row.get("history")) or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        yield Fault("a history that is no list of pairs", repr(history)[:80])
        return
    for before, answer in history:
        yield "client", before, None
        yield "counselor", *conversations.reply(answer, {})
    yield "client", asked if prompt else "\n".join(filter(None, (instruction, asked))), None
    yield "counselor", *conversations.reply(row.get("output"), row)
