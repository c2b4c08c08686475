"""Asking models: the names that others use, each loaded when it is first used, so that who needs few loads few."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_pipeline.llm.budget import BudgetSpent
    from data_pipeline.llm.client import asker, complete_all, connected, estimate, generate, run_all, stored
    from data_pipeline.llm.ledger import totals
    from data_pipeline.llm.server import Server, server_from
    from data_pipeline.records import Request

_HOME = {
    "BudgetSpent": "data_pipeline.llm.budget",
    "Request": "data_pipeline.records",
    "Server": "data_pipeline.llm.server",
    "server_from": "data_pipeline.llm.server",
    "totals": "data_pipeline.llm.ledger",
}
__all__ = [
    "BudgetSpent",
    "Request",
    "Server",
    "asker",
    "complete_all",
    "connected",
    "estimate",
    "generate",
    "run_all",
    "server_from",
    "stored",
    "totals",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "data_pipeline.llm.client")), name)
