"""Where a ledger is kept: a file, or a database."""

from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.llm.postgres_store import PREFIXES, check_address

Where = Path | str  # a file, or the address of a database


def is_database(where: Where) -> bool:
    """Returns whether a ledger's place is the address of a database."""
    return isinstance(where, str) and where.startswith(PREFIXES)


def place(given: str | None, folder: Path) -> Where:
    """Returns where the ledger of a stage's folder is kept: as `ledger=` says, else in the folder. Raises BadInput,
    which does not show it, for a password in an address.
    """
    if not given:
        return folder / "ledger.sqlite"
    if "://" not in given:
        return Path(given)
    if not is_database(given):
        raise BadInput(f"ledger={given}: takes a file, or postgresql://USER@HOST/DATABASE")
    return check_address(given)


def is_there(where: Where) -> bool:
    """Returns whether there may be a ledger: its file, or a database, which is not asked."""
    return is_database(where) or Path(where).exists()
