"""A budget for paid calls, counted before a request is sent: none is begun that would exceed it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from data_pipeline.errors import BadInput
from data_pipeline.llm.completions import count_tokens
from data_pipeline.llm.server import Server


class BudgetSpent(Exception):
    """No further request fits into the budget; what is finished stands in the ledger. Commands exit with 1."""


class Estimate(NamedTuple):
    """What requests would take that the ledger does not answer; no repetition after a fault is in it."""

    calls: int
    prompt_tokens: int  # a guess from the bytes of the messages, as `count_tokens` makes it
    tokens: int  # of the completions: max_tokens of each, so a ceiling; requests without max_tokens add 0
    cost: float | None  # None without prices


@dataclass
class BudgetTracker:
    """What is left of a budget in the currency of the server's prices; None is no limit.

    A request in flight holds back what it may cost: its prompt, guessed, and `max_tokens`. Without max_tokens only the
    prompt is held back, and the replies in flight may exceed the budget, as may repetitions after empty replies.
    """

    server: Server
    budget: float | None
    spent: float
    reserved: float = 0.0

    def __post_init__(self) -> None:
        if self.budget is None:
            return
        right = isinstance(self.budget, int | float) and not isinstance(self.budget, bool)
        if not right or not math.isfinite(self.budget) or self.budget < 0:
            raise BadInput(f"budget: {self.budget!r} is not a sum of money, 0 or more")
        if self.budget and self.server.input_price is None:
            raise BadInput(
                f"budget={self.budget:g} needs prices: set input_price and output_price of {self.server.model!r} "
                "(currency per million tokens; the budget is in the same currency)"
            )

    def price(self, body: dict) -> float:
        """Returns what a request may cost; 0 where nobody asks."""
        return self.server.cost(*count_tokens(body)) or 0.0 if self.budget else 0.0

    def fits(self, price: float) -> bool:
        """Returns whether a request of this price may begin; with a budget of 0 none may, a free one neither."""
        return self.budget is None or (self.budget > 0 and self.spent + self.reserved + price <= self.budget + 1e-9)

    def settle(self, price: float, cost: float | None) -> None:
        """Takes the cost of a finished request in place of its price."""
        self.reserved -= price
        self.spent += cost or 0.0
