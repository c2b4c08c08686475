"""Whether the model that answers is the one that answered before."""

import logging

from data_pipeline.llm.ledger import Ledger
from data_pipeline.llm.server import Server


class Served:
    """Warns when another model answers than the ledger's earlier calls had, as the server names them."""

    def __init__(self, server: Server, ledger: Ledger) -> None:
        self.server, self.names = server, ledger.served(server.model)

    def tell(self, name: str) -> None:
        if name and self.names and name not in self.names:
            told = "%s: model=%s answers as %s, earlier calls of this run as %s; its replies are mixed from here on"
            logging.getLogger(__name__).warning(
                told, self.server.address, self.server.model, name, ", ".join(self.names)
            )
        if name and name not in self.names:
            self.names.append(name)
