"""An OpenAI-compatible server (vLLM, an API): its settings, checked, and its key, which only the environment holds."""

import re
from collections.abc import Mapping
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


Variable = Annotated[str, AfterValidator(lambda name: check_variable(name, "api_key_env"))]
FINITE: dict[str, Any] = {"allow_inf_nan": False}


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Server:
    """Where and how to ask; raises BadInput or pydantic's ValidationError for a value that cannot be."""

    base_url: Annotated[str, AfterValidator(_address)]  # address, such as http://127.0.0.1:8000/v1
    model: Annotated[str, Field(min_length=1)]  # as the server calls it
    api_key_env: Variable | None = None  # NAME of the environment variable with the key; null: the server asks for none
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32  # requests in flight; ours
    # seconds for a whole answer, of a streamed one the longest silence; ours
    timeout_s: Annotated[float, Field(ge=0.001, **FINITE)] = 600
    attempts: Annotated[int, Field(ge=1)] = 8  # at most so many of a request that fails in passing; ours
    requests_per_minute: Annotated[float | None, Field(ge=1, **FINITE)] = None  # the server's limit, if it has one
    # the server's limit; a request counts its bytes / 4 and max_tokens, much as servers count
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
    """Returns whether the server is on this machine."""
    host = urlsplit(server.base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def api_key(server: Server) -> str:
    """Returns the key, "" where none is needed; raises BadInput for a variable that is not set, but on this machine."""
    key = key_in(server.api_key_env) if server.api_key_env else ""
    if not key and server.api_key_env and not is_loopback(server):
        raise BadInput(f"{server.api_key_env} is not set: put the key of {server.base_url} into this variable")
    return key
