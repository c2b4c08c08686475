"""Sends each row by itself through several steps that ask a model, so that it waits for no other row.

A step over all rows ends with its slowest row: one that met three faults has waited for seconds, and with a few hundred
rows those ends are most of the time (`tests/benchmarks/dialogue.py`). Here the replies are only gathered in the ledger.
The steps then run over all rows as ever, find them there, and ask once more what had failed.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server
from data_pipeline.records import Ask, Response
from data_pipeline.steps import Result


@dataclass(frozen=True)
class Step:
    run: Callable[[list, Ask], Result]  # of rows that stand alone: its calls about one do not depend on the others
    server: Server


def ask_ahead(rows: list, steps: list[Step], ledger: Path, title: str) -> None:
    """Fills the ledger with the replies that `steps`, one after the other, need for `rows`; shows its progress.

    As many rows are at work at once as the server of the first step takes requests. Raises BadInput, opening with
    `title`, when key, model, address or ledger cannot be used; Ctrl-C ends it, and what is finished is kept.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(title, total=len(rows))
        try:
            asyncio.run(_ask_all(rows, steps, ledger, lambda: progress.update(task, advance=1)))
        except BadInput as error:
            raise BadInput(f"{title}: {error}") from None


async def _ask_all(rows: list, steps: list[Step], ledger: Path, on_row: Callable[[], None]) -> None:
    loop, ended = asyncio.get_running_loop(), threading.Event()
    pool = ThreadPoolExecutor(min(len(rows), steps[0].server.concurrency), "row")
    asks: list[Ask] = []  # of the steps

    def blocking(ask_one: Callable) -> Ask:
        async def ask_all(requests: list[llm.Request]) -> list[Response]:
            return await asyncio.gather(*map(ask_one, requests))

        def ask(requests: list[llm.Request]) -> list[Response]:
            if ended.is_set():
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(ask_all(requests), loop).result()

        return ask

    def work(row) -> None:
        alone = [row]
        for step, ask in zip(steps, asks, strict=True):
            if alone:
                alone = step.run(alone, ask).rows

    async with AsyncExitStack() as stack:
        for number, step in enumerate(steps):
            same = [asks[n] for n in range(number) if steps[n].server == step.server]
            asks.append(
                same[0] if same else blocking(await stack.enter_async_context(llm.connected(step.server, ledger)))
            )
        try:
            for done in asyncio.as_completed([loop.run_in_executor(pool, work, row) for row in rows]):
                await done
                on_row()
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the rows at work end with their connections
