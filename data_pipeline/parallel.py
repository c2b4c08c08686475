"""The same function over pieces of many items, on all cores of the machine; only a window of them is held at once."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

PIECE = 500  # items that go to a process at once
FEW = 20_000  # items that are done before processes would have started


def in_processes(
    function: Callable[[list[Item]], Made], items: Iterable[Item], few: int = FEW
) -> Iterator[tuple[list[Item], Made]]:
    """Gives (piece, function(piece)) of the items' pieces, in their order; `function` stands at the top of a module.

    No more items than `few` (FEW unless told) are done in this process. Raises what `function` raises.
    """
    items = iter(items)
    first = list(islice(items, few + 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pieces = _pieces(chain(first, items))
    if len(first) <= few or cores == 1:
        yield from ((piece, function(piece)) for piece in pieces)
        return
    del first
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _begin) as pool:
        pending = deque()
        try:
            for piece in pieces:
                pending.append((piece, pool.submit(function, piece)))
                if len(pending) > 4 * cores:
                    yield _done(*pending.popleft())
            while pending:
                yield _done(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(piece: list[Item], made: Future[Made]) -> tuple[list[Item], Made]:
    return piece, made.result()


def _pieces(items: Iterator[Item]) -> Iterator[list[Item]]:
    while piece := list(islice(items, PIECE)):
        yield piece


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # it may be killed
