"""Whom the steps ask: one model each, several for the selectors, or recorded replies in place of any."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import recorded
from data_pipeline.llm.client import Watch
from data_pipeline.llm.places import Where
from data_pipeline.llm.server import api_key
from data_pipeline.records import Ask, Request, Response
from data_pipeline.steps import Step, find_step
from data_pipeline.synthesis.apply import AskAll, Bound
from data_pipeline.synthesis.configuration import Configuration


@dataclass(frozen=True)
class Models:
    """The servers of a run; `recorded` answers in their place where replies are given."""

    main: llm.Server | None
    selectors: Mapping[str, llm.Server | None]
    own: Mapping[str, llm.Server]  # of steps that ask another model
    recorded: AskAll | None
    ledger: Where
    budget: float | None
    replies: str = ""  # hash of the recorded ones
    failed: Counter[str] = field(default_factory=Counter)  # requests of each step that failed, and may yet be answered

    def servers(self, name: str, step: Step) -> dict[str, llm.Server | None]:
        """Returns {selector, or "": server} of a step that asks; a server is None where replies are recorded."""
        if step.asks == "selectors":
            return dict(self.selectors)
        return {"": self.own.get(name, self.main)}

    def ask_all(self, name: str, step: Step) -> AskAll | dict[str, AskAll] | None:
        """Returns whom the step asks under `apply.in_rounds`; None where it asks nobody."""
        if not step.asks:
            return None

        def asker(title: str, server: llm.Server | None) -> AskAll:
            if self.recorded is not None:
                return self.recorded
            assert server is not None  # there is one wherever no reply is recorded
            ask = llm.asker(server, self.ledger, title or name, self.budget)
            return lambda requests: self.counted(name, ask(requests))

        asks = {title: asker(title, server) for title, server in self.servers(name, step).items()}
        return asks if step.asks == "selectors" else asks[""]

    def check_keys(self, wanted: Iterable[str]) -> None:
        """Raises BadInput for a server that one of these steps asks and whose key is not in the environment."""
        for name in wanted:
            if (step := find_step(name, "steps")).asks and self.recorded is None:
                for server in filter(None, self.servers(name, step).values()):
                    api_key(server)

    async def connected(
        self, stack: AsyncExitStack, chain: Sequence[Bound], watch: Watch
    ) -> list[Ask | dict[str, Ask]]:
        """Returns whom each of the steps asks under `apply.on_its_way`; a server of several is connected once, and
        `watch` is given what asks it.
        """
        whom, known = [], {}
        for bound in chain:
            asks = {}
            for title, server in self.servers(bound.name, bound.step).items():
                assert server is not None  # rows go on their way only where no reply is recorded
                key = repr(server)
                if key not in known:
                    known[key] = await stack.enter_async_context(llm.connected(server, self.ledger, watch))
                asks[title] = _several(known[key], partial(self.counted, bound.name))
            whom.append(asks if bound.step.asks == "selectors" else asks[""])
        return whom

    def counted(self, name: str, replies: list[Response]) -> list[Response]:
        self.failed[name] += sum(reply.passing for reply in replies)
        return replies

    def concurrency(self, name: str, step: Step) -> int:
        return sum(server.at_most for server in self.servers(name, step).values() if server)

    def described(self, name: str, step: Step) -> object:
        """Returns who is asked, for a step's key: another model or prompt parameter makes its output another."""
        if self.recorded is not None:
            return {"replies": self.replies}
        servers = self.servers(name, step).items()
        return {title: server and [server.model, server.json_schema, server.extra_body] for title, server in servers}


def _several(
    ask_one: Callable[[Request], Awaitable[Response]],
    counted: Callable[[list[Response]], list[Response]] = lambda replies: replies,
) -> Ask:
    """Returns what asks requests at once, and hands their replies through `counted`."""

    async def ask(requests: list[Request]) -> list[Response]:
        return counted(list(await asyncio.gather(*map(ask_one, requests))))

    return ask


def base_settings(config: Configuration) -> dict | None:
    """Returns {"replies": folder}, or a server's settings; None when nobody is named.

    A server named on the command line takes the place of the recorded replies that a recipe names.
    """
    base = dict(config.llm) if config.llm else None
    if base and base.get("base_url"):
        base.pop("replies", None)
    return base


def find_models(config: Configuration, ledger: Where) -> Models:
    """Returns whom the wanted steps ask; raises BadInput for wrong settings of a server, and for a step that asks while
    nobody is named. The settings of a selector, and of a step under `models`, stand over those of `llm`.
    """
    base = base_settings(config)
    asking = {name: step for name in config.wanted() if (step := find_step(name, "steps")).asks}
    for name, step in sorted(asking.items()):
        if base is None:
            raise BadInput(f"{name} asks a model: say llm=openai, vllm, deepseek or recorded (recipes/llm/)")
        if step.asks == "selectors" and not config.selectors:
            raise BadInput(f"{name} asks selector models, but selectors is empty: name one (recipes/llm/)")
    if base is None or "replies" in base:
        ask, replies = None, ""
        if base:
            ask = recorded.asker(Path(base["replies"]))
            files = sorted(Path(base["replies"]).glob("*.jsonl"))
            replies = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        return Models(None, {name: None for name in config.selectors}, {}, ask, ledger, config.budget, replies)

    def servers(key: str, named: Mapping) -> dict[str, llm.Server]:
        return {name: llm.server_from({**base, **(more or {})}, f"{key}.{name}") for name, more in named.items()}

    selectors, own = servers("selectors", config.selectors), servers("models", config.models)
    return Models(llm.server_from(base, "llm"), selectors, own, None, ledger, config.budget)
