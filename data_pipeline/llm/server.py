"""An OpenAI-compatible server (vLLM, an API): its settings, checked, and its key, which only the environment holds."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import BadInput


@dataclass(frozen=True)
class Server:
    """Where and how to ask; raises BadInput for a value that cannot be."""

    base_url: str  # address, such as http://127.0.0.1:8000/v1
    model: str  # as the server calls it
    api_key_env: str | None = None  # NAME of the environment variable with the key; null: the server asks for none
    concurrency: int = 32  # requests in flight; ours
    timeout_s: float = 600  # seconds for a whole answer; ours
    attempts: int = 8  # at most so many of a request that fails in passing; ours
    requests_per_minute: float | None = None  # the server's limit, if it has one
    # the server's limit; a request counts its bytes / 4 and max_tokens, much as servers count
    tokens_per_minute: float | None = None
    input_price: float | None = None  # of a million prompt tokens, in any one currency
    output_price: float | None = None  # of a million generated tokens, in the same currency
    json_schema: bool = False  # the server takes response_format json_schema; ours, for not every server does
    extra_body: dict = field(default_factory=dict)  # sent with every request, such as chat_template_kwargs

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        if not isinstance(self.model, str) or not self.model:
            raise BadInput(f"model: {self.model!r} is not the name of a model")
        if self.api_key_env is not None and not re.fullmatch("[A-Z][A-Z0-9_]*", str(self.api_key_env)):
            raise BadInput(
                "api_key_env: not the name of an environment variable, such as OPENAI_API_KEY (the value is not shown, "
                "for it may be a key; keys belong in the environment)"
            )
        for name, kind, least in (
            ("concurrency", int, 1),
            ("attempts", int, 1),
            ("timeout_s", (int, float), 0.001),
            ("requests_per_minute", (int, float), 1),
            ("tokens_per_minute", (int, float), 1),
            ("input_price", (int, float), 0),
            ("output_price", (int, float), 0),
        ):
            value = getattr(self, name)
            if name.endswith(("_minute", "_price")) and value is None:
                continue
            most = 1000 if name == "concurrency" else math.inf  # as many connections as openai's transport opens
            right = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            if not right or not least <= value <= most:
                wanted = "a whole number" if kind is int else "a number"
                raise BadInput(f"{name}: {value!r} is not {wanted} from {least} to {most:g}")
        if (self.input_price is None) != (self.output_price is None):
            raise BadInput("input_price and output_price: only one is set; set both or none")
        if not isinstance(self.json_schema, bool):
            raise BadInput(f"json_schema: {self.json_schema!r} is not true or false")
        if not isinstance(self.extra_body, dict):
            raise BadInput(f"extra_body: {self.extra_body!r} is not a mapping")

    def cost(self, prompt_tokens: int, tokens: int) -> float | None:
        """Returns the price of so many tokens, or None when no prices are set."""
        if self.input_price is None or self.output_price is None:
            return None
        return (prompt_tokens * self.input_price + tokens * self.output_price) / 1e6


def server_from(settings: Mapping[str, Any], where: str) -> Server:
    """Returns the server that a recipe describes; raises BadInput, opening with `where`, for unknown or bad values."""
    known = [f.name for f in fields(Server)]
    if unknown := [str(name) for name in settings if name not in known]:
        raise BadInput(f"{where}: unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
    if missing := [name for name in ("base_url", "model") if settings.get(name) is None]:
        raise BadInput(f"{where}: {' and '.join(missing)} missing")
    try:
        return Server(**settings)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _check_address(base_url: Any) -> None:
    if isinstance(base_url, str) and re.search("[@?#]", base_url):
        raise BadInput("base_url: credentials or a query in the address (not shown); name the key by api_key_env")
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        good = False
    if not good:
        raise BadInput(f"base_url: {base_url!r} is not an address, such as http://127.0.0.1:8000/v1")


def is_loopback(server: Server) -> bool:
    """Returns whether the server is on this machine."""
    host = urlsplit(server.base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def api_key(server: Server) -> str:
    """Returns the key, "" where none is needed; raises BadInput for a variable that is not set, but on this machine."""
    key = os.environ.get(server.api_key_env or "", "").strip()
    if not key and server.api_key_env and not is_loopback(server):
        raise BadInput(f"{server.api_key_env} is not set: put the key of {server.base_url} into this variable")
    if not key.isascii() or not key.isprintable():
        raise BadInput(f"the key in {server.api_key_env} has characters that no HTTP header carries (it is not shown)")
    return key
