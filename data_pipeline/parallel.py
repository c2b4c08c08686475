"""The same function over many items, on all cores of the machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

PIECE = 500  # items that go to a process at once
FEW = 20_000  # items that are done before processes would have started


def in_processes(function: Callable, items: Iterable) -> Iterator:
    """Gives `function(item)` of each item, in their order; `function` stands at the top of a module.

    Few items are done in this process. Raises what `function` raises.
    """
    items = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(items) <= FEW or cores == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _begin) as pool:
        try:
            yield from pool.map(function, items, chunksize=PIECE)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    parent = multiprocessing.parent_process()
    assert parent is not None  # a process of the pool has one
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # it may be killed
