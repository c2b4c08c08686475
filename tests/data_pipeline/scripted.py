"""A real HTTP server that answers each request as a test's function says, and steps' `ask` for tests."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data_pipeline import llm
from data_pipeline.llm import Server
from data_pipeline.llm.structured import Failure, Shape, ask_json, calls_report, under
from data_pipeline.records import Request
from data_pipeline.steps import Outcome, Step, StepSettings, passes_on
from data_pipeline.synthesis.apply import AskAll, Bound, in_rounds, merged
from tests.model_server import Answer, ModelServer, completion


@dataclass
class _Plan:
    """Takes the place of ModelServer's plan: asks `reply(messages)` for a text, a dict (sent as JSON) or an Answer."""

    reply: Callable
    server: ModelServer | None = None

    def get(self, _text: str, _default: list) -> list[Answer]:
        assert self.server is not None
        reply = self.reply(self.server.calls[-1].body["messages"])
        if isinstance(reply, Answer):
            return [reply]
        return [Answer(completion(reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)))]


@contextmanager
def model(reply: Callable, folder, **settings) -> Iterator:
    """Gives an `ask` over HTTP; `ask.server.calls` has what was asked. Its ledger is `folder`/ledger.sqlite."""
    plan = _Plan(reply)
    with ModelServer(plan=plan) as server:
        plan.server = server
        asker = llm.asker(Server(server.url, "tiny", attempts=1, **settings), folder / "ledger.sqlite", "the test")

        def ask(requests):
            return asker(requests)

        ask.server = server
        yield ask


def ask_all_json(
    ask: AskAll, requests: list[Request], shape: type[Shape], repairs: int = 1
) -> tuple[list[Shape | Failure], dict[str, int]]:
    """Returns what `ask_json` gives for each request, all asked as the rows of one step, and their counts together."""

    async def row(request, settings, ask) -> Outcome:
        result, counts = await ask_json(ask, request, shape, repairs)
        return Outcome([result], counts=under("calls", counts))

    step = Step(
        (Request,),
        StepSettings,
        row,
        asks="model",
        calls=lambda settings, size, selectors: passes_on(size),
        report=lambda counts, settings: calls_report(counts),
    )
    whole = merged(in_rounds(Bound("ask_all_json", step, StepSettings(), {}), requests, ask))
    return whole.rows, calls_report(whole.counts)


FAULT = Answer(b"boom", status=500)
CUT = Answer(completion("<think>想了一半", "length"))
