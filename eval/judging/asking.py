"""Who plays clients and who judges: a server, or recorded replies; asked the same way, and named in a report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import recorded
from data_pipeline.llm.ledger import Ledger
from data_pipeline.llm.places import Where, is_there
from data_pipeline.llm.recorded import Recorded
from data_pipeline.records import Request, Response

Whom = llm.Server | Recorded


def whom(given: Mapping[str, Any], where: str) -> Whom:
    """Returns the server, or with `replies` the recorded replies, that a recipe describes; raises BadInput, opening
    with `where`.
    """
    if not given.get("replies"):
        return llm.server_from({key: value for key, value in given.items() if key != "replies"}, where)
    known = ("replies", "model")
    if odd := next((key for key, value in given.items() if key not in known and value), None):
        raise BadInput(f"{where}: {odd} is not for recorded replies; they take replies (a folder) and model (a name)")
    if not Path(given["replies"]).is_dir():
        raise BadInput(f"{where}.replies={given['replies']}: no such folder")
    return Recorded(str(given["replies"]), str(given.get("model") or "recorded"))


def asker(one: Whom, ledger: Where, title: str) -> Callable[[list[Request]], list[Response]]:
    """Returns what asks it; raises BadInput as `llm.run_all`, and for a request that no reply is recorded for."""
    if isinstance(one, Recorded):
        return recorded.asker(Path(one.replies))
    return llm.asker(one, ledger, title)


def known(one: Whom, requests: list[Request], ledger: Where) -> list[Response | None]:
    """Returns what has been said already of each request, else None."""
    return [None] * len(requests) if isinstance(one, Recorded) else llm.stored(one, requests, ledger)


def described(one: Whom, ledger: Where) -> str:
    """Returns its model, with the names that it answered by where they are others, for a report."""
    if isinstance(one, Recorded):
        return f"{one.model} (recorded replies, which no model gave)"
    served: list[str] = []
    if is_there(ledger):
        with Ledger(ledger) as opened:
            served = [name for name in opened.served(one.model) if name != one.model]
    if not served:
        return one.model
    mixed = "; its name changed on the way, so its replies are of several models" if len(served) > 1 else ""
    return f"{one.model}, which answered as {', '.join(sorted(served))}{mixed}"
