"""EmoLLM (SmartFlowAI/EmoLLM, datasets/): rows of {conversation: [{system, input, output}, {input, output}, ...]}.

Single-turn files also come as plain rows of {system, input, output}. The system prompt stands in the first round; the
released data.json has a few rows with an empty conversation, which are rejected. Its rows of {instruction, input,
output} are `alpaca`'s.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from data_pipeline.records import Dialogue, Fault, Reject
from data_pipeline.tables import conversations

ROUND = ("system", "input", "output", *conversations.THOUGHT_FIELDS)


def read(
    path: str | Path, merge: bool = False, ignore: Collection[str] = (), encoding: str = ""
) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row, in order.

    A thought stands before an output, marked, or in a field of its own (`conversations.reply`). `merge` is taken
    for the sake of one form of all readers: rounds cannot be split. `ignore` names fields to leave out; a row with
    another one that carries meaning and is not known is rejected. `encoding` is that of a text file; "" finds it.
    Raises BadInput for a missing or broken file.
    """
    form = conversations.Form(merge, ignore=ignore, encoding=encoding)
    for row in conversations.rows(path, form, columns=("output",)):
        id = f"emollm/{row.table}/{row.number}"
        rounds = row.values if isinstance(row.values, Fault) else _rounds(row.values, form)
        if isinstance(rounds, Fault):
            yield Reject(id, row.where, *rounds)
        else:
            yield conversations.dialogue(id, "emollm", row.where, _turns(rounds), form)


def _rounds(row: dict, form: conversations.Form) -> list[dict] | Fault:
    rounds = row.get("conversation", [row])
    if not isinstance(rounds, list) or not all(isinstance(r, dict) for r in rounds):
        return Fault("not an object with a list of rounds under conversation")
    if "conversation" in row and (unknown := form.unknown(row, "conversation")):
        return unknown
    return next((unknown for one in rounds if (unknown := form.unknown(one, *ROUND))), rounds)


def _turns(rounds: list[dict]) -> Iterator[tuple]:
    for number, round in enumerate(rounds):
        if (system := round.get("system")) and (number == 0 or system != rounds[0].get("system")):
            yield "system", system, None
        yield "client", round.get("input"), None
        yield "counselor", *conversations.reply(round.get("output"), round)
