"""The one client of OpenAI-compatible servers: many requests at once, each finished call kept in a ledger.

A call is on disk before its response is seen, so that a run that continues another pays for nothing twice. A request
that fails is a response with finish "failed", logged, and asked again by the next run.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from data_pipeline.errors import BadInput
from data_pipeline.llm.budget import BudgetSpent, BudgetTracker, Estimate
from data_pipeline.llm.completions import count_tokens, request_body
from data_pipeline.llm.dispatch import Dispatcher, dispatching
from data_pipeline.llm.ledger import Ledger
from data_pipeline.llm.places import Where, is_there
from data_pipeline.llm.rates import Rates, told
from data_pipeline.llm.server import Server
from data_pipeline.records import Request, Response
from data_pipeline.safety.shown import shown, text_column

OnReply = Callable[[Request, Response, float | None], None]
AskOne = Callable[[Request], Awaitable[Response]]
Watch = Callable[[Dispatcher], None]  # is given what asks, to tell of it
_AHEAD = 64  # requests that wait beside those in flight: what others ask does not keep a slot empty


async def complete_all(
    server: Server,
    requests: list[Request],
    ledger_path: Where,
    title: str,
    on_reply: OnReply | None = None,
    budget: float | None = None,
    watch: Watch = lambda _: None,
) -> list[Response]:
    """Returns one response per request, in order; what the ledger holds is replayed, equal requests are asked once.

    `on_reply(request, response, cost)` is called for each as soon as it is on disk, cost None when nothing was paid.
    `budget` is what all calls of the ledger may cost together, those of earlier runs too, in the currency of the
    prices; 0 asks nothing. Raises BudgetSpent before the first request that does not fit, after those in flight.
    Raises BadInput, opening with `title`, when key, model, address or ledger cannot be used, or when the server
    refuses every request; what is finished by then stays in the ledger.
    """
    keys = [_key(server, request) for request in requests]
    places: dict[str, list[int]] = {}  # of equal requests
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    responses: dict[str, Response] = {}
    refusals = []

    def keep(key: str, response: Response, cost: float | None) -> None:
        responses[key] = response
        for place in places[key]:
            if on_reply:
                on_reply(requests[place], response, cost)
            cost = None  # paid once

    async def work(dispatcher: Dispatcher, left: list[str]) -> None:
        while left:
            key = left.pop()
            try:
                answer = await dispatcher.ask(key, requests[places[key][0]])
            except BudgetSpent:
                left.append(key)
                return
            keep(key, answer.response, answer.cost)
            if answer.refused:
                refusals.append(answer.response.error)

    try:
        with Ledger(ledger_path) as ledger:
            for key, response in ledger.replies(places):
                keep(key, response, None)
            left = [key for key in reversed(places) if key not in responses]
            spent = ledger.spent() if budget else 0.0
            tracker = BudgetTracker(server, budget, spent)
            if left and tracker.fits(tracker.price(request_body(server, requests[places[left[-1]][0]]))):
                async with dispatching(server, ledger, tracker) as dispatcher, asyncio.TaskGroup() as group:
                    watch(dispatcher)
                    for _ in range(min(2 * server.at_most + _AHEAD, len(left))):
                        group.create_task(work(dispatcher, left))
        if refusals and len(refusals) == len(places):
            raise BadInput(f"{server.address} refuses every request to model {server.model!r}: {refusals[0]}")
    except (BadInput, ExceptionGroup) as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error  # it ended the other tasks
        if isinstance(first, BadInput):
            raise BadInput(f"{title}: {first}") from None
        raise first from None
    if left:
        spent = (
            f"the budget of {budget:g} is spent ({tracker.spent:.4f} in {ledger_path})" if budget else "the budget is 0"
        )
        raise BudgetSpent(
            f"{title}: {spent}: {sum(len(places[key]) for key in left)} of {len(requests)} requests are not asked; "
            "what is finished is kept, run again with a larger budget"
        )
    return [responses[key] for key in keys]


@asynccontextmanager
async def connected(server: Server, ledger_path: Where, watch: Watch = lambda _: None) -> AsyncIterator[AskOne]:
    """Gives the function by which the tasks of this event loop ask one request each, through one dispatcher.

    As `complete_all`: slots, limits per minute, replies of the ledger, equal requests at the same time asked once.
    Raises BadInput when key or ledger cannot be used; the function, when a request shows that model, key or address
    cannot.
    """
    asked: dict[str, asyncio.Task[Response]] = {}

    async def work(key: str, request: Request) -> Response:
        return await ledger.reply(key) or (await dispatcher.ask(key, request)).response

    def forget(key: str, task: asyncio.Task) -> None:
        del asked[key]
        _ = task.cancelled() or task.exception()  # looked at, should all who asked have been cancelled

    async def ask_one(request: Request) -> Response:
        key = _key(server, request)
        if key not in asked:
            asked[key] = asyncio.create_task(work(key, request))
            asked[key].add_done_callback(lambda task: forget(key, task))
        return await asyncio.shield(asked[key])  # one of several who ask the same may be cancelled

    with Ledger(ledger_path) as ledger:
        async with dispatching(server, ledger, BudgetTracker(server, None, 0.0)) as dispatcher:
            watch(dispatcher)
            try:
                yield ask_one
            finally:
                for task in asked.values():
                    task.cancel()
                await asyncio.gather(*asked.values(), return_exceptions=True)


def run_all(
    server: Server,
    requests: list[Request],
    ledger_path: Where,
    title: str,
    on_reply: OnReply | None = None,
    budget: float | None = None,
) -> list[Response]:
    """Runs `complete_all` to its end with a progress bar; Ctrl-C ends it and leaves the ledger whole."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = text_column("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    failed = tokens = 0
    rates, shown_at = Rates(), 0.0
    with Progress(*columns, text_column("{task.fields[state]}"), transient=True) as progress:
        task = progress.add_task(shown(title), total=len(requests), state="")

        def show(request: Request, response: Response, cost: float | None) -> None:
            nonlocal failed, tokens, shown_at
            failed, tokens = failed + (response.finish == "failed"), tokens + response.tokens
            progress.update(task, advance=1)
            if time.monotonic() - shown_at >= 1:
                state = f"{failed} failed, {tokens:,} tokens, {told(rates.servers(), '', rates.cost())}"
                progress.update(task, state=state)
                shown_at = time.monotonic()
            if on_reply:
                on_reply(request, response, cost)

        return asyncio.run(complete_all(server, requests, ledger_path, title, show, budget, rates.watch))


def asker(
    server: Server, ledger_path: Where, title: str, budget: float | None = None
) -> Callable[[list[Request]], list[Response]]:
    """Returns the function by which a step asks the server: `run_all` with these settings."""
    return lambda requests: run_all(server, requests, ledger_path, title, budget=budget)


def stored(server: Server, requests: list[Request], ledger_path: Where) -> list[Response | None]:
    """Returns what the ledger holds of each request, else None; nothing is asked and no ledger is made."""
    keys, known = [_key(server, request) for request in requests], {}
    if is_there(ledger_path):
        with Ledger(ledger_path) as ledger:
            known = dict(ledger.replies(dict.fromkeys(keys)))
    return [known.get(key) for key in keys]


def estimate(server: Server, requests: list[Request], ledger_path: Where) -> Estimate:
    """Returns about what `run_all` would ask and pay, for a dry run: nothing is asked and no ledger is made."""
    new = {_key(server, request): request_body(server, request) for request in requests}
    if is_there(ledger_path):
        with Ledger(ledger_path) as ledger:
            for key, _ in ledger.replies(list(new)):
                del new[key]
    counts = [count_tokens(body) for body in new.values()]
    prompt, completion = sum(count[0] for count in counts), sum(count[1] for count in counts)
    return Estimate(len(new), prompt, completion, server.cost(prompt, completion))


def generate(
    server: Server,
    conversations: list[list[dict]],
    samples: int,
    step: str,
    rows: list[str],
    ledger_path: Where,
    **params,
) -> list[list[Response]]:
    """Returns `samples` responses per conversation, in order, as `launch.models.local.generate` does in this process.

    `rows` are the ids of the conversations. With a `seed` and a temperature other than 0, sample i is asked with
    seed + i. Raises BadInput as `complete_all`.
    """
    seed = params.get("seed")
    greedy = params.get("temperature") == 0
    requests = [
        Request(step, row, sample, messages, params if seed is None or greedy else {**params, "seed": seed + sample})
        for row, messages in zip(rows, conversations, strict=True)
        for sample in range(samples)
    ]
    replies = run_all(server, requests, ledger_path, f"{server.model}: {step}")
    return [replies[start : start + samples] for start in range(0, len(replies), samples)]


def _key(server: Server, request: Request) -> str:
    # The address is no part of it: a server that moved must not be paid twice. ASCII, so that any text has a key.
    return hashlib.sha256(
        json.dumps([request_body(server, request), request.sample], sort_keys=True).encode()
    ).hexdigest()
