"""A call of a model as the ledger keeps it, and the checksum that tells whether it is as it was written."""

import hashlib
from typing import NamedTuple


class Call(NamedTuple):
    key: str  # sha256 of model, messages, parameters and sample number
    step: str
    row: str
    sample: int
    model: str
    base_url: str
    finish: str  # "failed": asked again by the next run
    text: str
    reasoning: str
    error: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # of all attempts; None without prices
    latency: float  # seconds of the last attempt
    attempts: int
    at: str  # UTC
    served: str = ""  # the model that answered, as the server names it


_KINDS = list(Call.__annotations__.values())


def checksum(call: Call) -> str:
    """Returns the checksum of a row: of its values as sqlite gives them back."""
    values = [float(v) if kind is not int and isinstance(v, int) else v for v, kind in zip(call, _KINDS, strict=True)]
    return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()
