"""An OpenAI-compatible server (vLLM, an API): its settings, checked, and its key, which only the environment holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from data_pipeline.errors import BadInput, did_you_mean, first_fault
from data_pipeline.safety.credentials import check_variable, could_be_key, key_in


def _address(base_url: str) -> str:
    if re.search("[@?#]", base_url) or could_be_key(base_url):
        raise BadInput("base_url: credentials or a query in the address (not shown); name the key by api_key_env")
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise BadInput(f"base_url: {base_url!r} is not an address, such as http://127.0.0.1:8000/v1")
    return base_url


def _addresses(base_url: str | list[str]) -> str | list[str]:
    """Returns one address or several; raises BadInput for one that is none, and one that stands twice."""
    if isinstance(base_url, str):
        return _address(base_url)
    if not base_url:
        raise BadInput("base_url: the list is empty; name a server")
    known = {}
    for address in map(_address, base_url):
        parts = urlsplit(address)
        host = "127.0.0.1" if parts.hostname in ("localhost", "::1") else parts.hostname
        place = (parts.scheme, host, parts.port, parts.path.rstrip("/"))
        if place in known:
            raise BadInput(f"base_url: {address} stands twice (also as {known[place]}); name each server once")
        known[place] = address
    return base_url


Variable = Annotated[str, AfterValidator(lambda name: check_variable(name, "api_key_env"))]
FINITE: dict[str, Any] = {"allow_inf_nan": False}
MOST = 1000  # requests in flight of one process; ours


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Server:
    """Where and how to ask; raises BadInput or pydantic's ValidationError for a value that cannot be."""

    # address, such as http://127.0.0.1:8000/v1, or a list of servers of the same model
    base_url: Annotated[str | list[str], AfterValidator(_addresses)]
    model: Annotated[str, Field(min_length=1)]  # as the server calls it
    api_key_env: Variable | None = None  # NAME of the environment variable with the key; null: the server asks for none
    # requests in flight at most, of all servers together; null: each server's is found by trying
    concurrency: Annotated[int | None, Field(ge=1, le=MOST)] = None
    # seconds for a whole answer, of a streamed one the longest silence; ours
    timeout_s: Annotated[float, Field(ge=0.001, **FINITE)] = 600
    attempts: Annotated[int, Field(ge=1)] = 8  # at most so many of a request that fails in passing; ours
    # the limit of the account, if it has one: of all servers together
    requests_per_minute: Annotated[float | None, Field(ge=1, **FINITE)] = None
    # as well; a request counts its bytes / 4 and max_tokens, much as servers count
    tokens_per_minute: Annotated[float | None, Field(ge=1, **FINITE)] = None
    # of a million prompt tokens, in any one currency
    input_price: Annotated[float | None, Field(ge=0, **FINITE)] = None
    # of a million generated tokens, in the same currency
    output_price: Annotated[float | None, Field(ge=0, **FINITE)] = None
    json_schema: bool = False  # the server takes response_format json_schema; ours, for not every server does
    extra_body: dict = field(default_factory=dict)  # sent with every request, such as chat_template_kwargs

    @model_validator(mode="after")
    def _prices(self) -> Self:
        if (self.input_price is None) != (self.output_price is None):
            raise BadInput("input_price and output_price: only one is set; set both or none")
        return self

    @property
    def addresses(self) -> Sequence[str]:
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @property
    def address(self) -> str:
        """The address, or all of them, for people."""
        return ", ".join(self.addresses)

    @property
    def at_most(self) -> int:
        """The most requests in flight."""
        return self.concurrency or MOST

    def cost(self, prompt_tokens: int, tokens: int) -> float | None:
        """Returns the price of so many tokens, or None when no prices are set."""
        if self.input_price is None or self.output_price is None:
            return None
        return (prompt_tokens * self.input_price + tokens * self.output_price) / 1e6


def server_from(settings: Mapping[str, Any], where: str) -> Server:
    """Returns the server that a recipe describes; raises BadInput, opening with `where`, for unknown or bad values."""
    known = [f.name for f in fields(Server)]
    if unknown := [str(name) for name in settings if name not in known]:
        near = did_you_mean(unknown[0], known)
        raise BadInput(f"{where}: unknown setting {', '.join(unknown)}; known are {', '.join(known)}{near}")
    if missing := [name for name in ("base_url", "model") if settings.get(name) is None]:
        raise BadInput(f"{where}: {' and '.join(missing)} missing")
    try:
        return Server(**settings)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except ValidationError as error:
        raise BadInput(first_fault(where, error)) from None


def is_loopback(server: Server) -> bool:
    """Returns whether the server, or every one of several, is on this machine."""
    hosts = [urlsplit(address).hostname or "" for address in server.addresses]
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)


def api_key(server: Server) -> str:
    """Returns the key, "" where none is needed; raises BadInput for a variable that is not set, but on this machine."""
    key = key_in(server.api_key_env) if server.api_key_env else ""
    if not key and server.api_key_env and not is_loopback(server):
        raise BadInput(f"{server.api_key_env} is not set: put the key of {server.address} into this variable")
    return key
