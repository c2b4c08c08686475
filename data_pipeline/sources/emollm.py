"""EmoLLM (SmartFlowAI/EmoLLM, datasets/): rows of {conversation: [{system, input, output}, {input, output}, ...]}.

Single-turn files also come as plain rows of {system, input, output}. The system prompt stands in the first round; the
released data.json has a few rows with an empty conversation, which are rejected.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject


def read(path: str | Path, merge: bool = False) -> Iterator[Dialogue | Reject]:
    """Yields a Dialogue or Reject for every row of the JSON or JSONL file, in order.

    A thought in <think></think> before an output is the turn's thought. `merge` is taken for the sake of one form of
    all readers: rounds cannot be split. Raises BadInput for a missing or broken file.
    """
    path = Path(path)
    for number, row in dialogues.rows(path):
        id, where = f"emollm/{path.stem}/{number}", f"{path} row {number}"
        rounds = row.get("conversation", [row]) if isinstance(row, dict) else None
        if not isinstance(rounds, list) or not all(isinstance(r, dict) for r in rounds):
            yield Reject(id, where, "not an object with a list of rounds under conversation")
            continue
        yield dialogues.dialogue(id, "emollm", where, _turns(rounds), merge)


def _turns(rounds: list[dict]) -> Iterator[tuple]:
    for number, round in enumerate(rounds):
        if (system := round.get("system")) and (number == 0 or system != rounds[0].get("system")):
            yield "system", system, None
        yield "client", round.get("input"), None
        thought, reply = dialogues.leading_thought(round.get("output"))
        yield "counselor", reply, thought
