"""Four servers that differ and fail, and no concurrency given; then three clients on one run.

    python -m tests.benchmarks.many_servers servers [SECONDS [ROUNDS [SLOWER]]]
    python -m tests.benchmarks.many_servers clients [ROUNDS] [postgresql://...]

Servers of 8 slots each with 20, 100, 200 and 400 ms for an answer (tests/slot_server.py): the second is down for 20 s,
the first says 429 for one second of every eight. The ideal is the sum of slots over latency while a server is up, and
says no 429; the bar is 0.85 of it. SLOWER=4 takes four times the latencies, for a machine that has no processor to
spare. Beside it in the same round: a fixed number in flight in all, as it was before (32 was the default).

Clients: three processes with the same requests and one ledger. Bars: each call once by the servers' count; together 0.9
of the rate of one, and twice the rate of one where each may make 20 calls a second; of three of which one is killed the
others lose nothing.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import aiolimiter  # noqa: F401  (what a client loads when it first asks; it is no time of the servers)
import openai  # noqa: F401
import stamina  # noqa: F401

from data_pipeline.llm import Server, run_all
from data_pipeline.llm.limiter import Limit
from data_pipeline.records import Request
from tests.conftest import REPOSITORY

SLOTS = 8
LATENCIES = (0.02, 0.1, 0.2, 0.4)
DOWN = (8.0, 20.0)  # from, seconds
BUSY = (8.0, 1.0)  # every, seconds
FIXED = (32, 256)
ROWS, HELD = 6000, 20  # of the clients' run; calls a second
WAYS = (("one", 1, 0, False), ("three", 3, 0, False), ("one, held", 1, HELD, False), ("three, held", 3, HELD, False),
        ("three, one killed", 3, 0, True))  # fmt: skip
CLIENT = """
import sys
from tests.benchmarks.many_servers import asked
asked(sys.argv[1].split(), int(sys.argv[2]), sys.argv[3], requests_per_minute=float(sys.argv[4]) or None)
"""


@contextmanager
def serving(*servers: tuple[float, str]) -> Iterator[list[str]]:
    """Gives the addresses of servers of these latencies and further words, which end with the block."""
    with ExitStack() as stack:
        urls = []
        for latency, words in servers:
            command = [sys.executable, "-m", "tests.slot_server", "--latency", str(latency), "--slots", str(SLOTS)]
            process = subprocess.Popen([*command, *words.split()], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
            stack.enter_context(process)
            stack.callback(process.terminate)
            assert process.stdout
            urls.append(process.stdout.readline().strip())
        yield urls


def stats(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/stats") as answer:
        return json.load(answer)


def requests(count: int) -> list[Request]:
    return [Request("benchmark", str(n), 0, [{"role": "user", "content": f"row {n}"}], {}) for n in range(count)]


def asked(urls: list[str], count: int, ledger: str, **settings) -> float:
    """Returns the seconds until all are answered."""
    begun = time.monotonic()
    place = ledger if "://" in ledger else Path(ledger)
    replies = run_all(Server(urls, "tiny", **settings), requests(count), place, "benchmark")
    assert all(reply.finish == "stop" for reply in replies), [r.error for r in replies if r.finish != "stop"][:3]
    return time.monotonic() - begun


def ideal(seconds: float, slower: float) -> float:
    """Returns how many answers the servers could give."""
    up = [seconds - seconds // BUSY[0] * BUSY[1], seconds - max(0.0, min(seconds - DOWN[0], DOWN[1])), seconds, seconds]
    return sum(SLOTS / (slower * latency) * one for latency, one in zip(LATENCIES, up, strict=True))


def servers(seconds: float = 45, rounds: float = 3, slower: float = 1) -> None:
    told: dict[str, list[float]] = {}
    words = [f"--busy {BUSY[0]}:{BUSY[1]}", f"--down {DOWN[0]}:{DOWN[1]}", "", ""]
    count = round(0.9 * ideal(seconds, slower))
    for _ in range(int(rounds)):
        for name in ("found by trying", *map(str, FIXED)):
            with ExitStack() as stack:
                urls = stack.enter_context(serving(*zip([slower * one for one in LATENCIES], words, strict=True)))
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                settings = {}
                if name.isdigit():
                    settings = {"concurrency": int(name)}
                    for what in ("answered", "refused"):
                        stack.enter_context(mock.patch.object(Limit, what, lambda *_: None))
                cpu = time.process_time()
                took = asked(urls, count, f"{folder}/ledger.sqlite", **settings)
                cpu = time.process_time() - cpu
                share = count / ideal(took, slower)
                told.setdefault(name, []).append(share)
                figures = [
                    {k: v for k, v in stats(url).items() if k in ("asked", "refused", "answered", "longest_queue")}
                    for url in urls
                ]
                print(f"{name}: {share:.2f} of the ideal, {count / took:.0f}/s for {took:.0f} s,",
                      f"{cpu / count * 1e3:.2f} ms of processor each, load {os.getloadavg()[0]:.1f}")  # fmt: skip
                print(*figures, sep="\n", flush=True)
    for name, shares in told.items():
        print(f"{name}: {statistics.median(shares):.2f} of the ideal (bar 0.85)")


def together(urls: list[str], count: int, ledger: str, clients: int, held: float = 0, kill: bool = False) -> None:
    """Returns when so many processes have all answers; one is killed amid if `kill`."""
    words = [sys.executable, "-c", CLIENT, " ".join(urls), str(count), ledger, str(60 * held)]
    processes = [subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL) for _ in range(clients)]
    if kill:
        while sum(stats(url)["asked"] for url in urls) < count / 3:
            time.sleep(0.05)
        processes[0].send_signal(signal.SIGKILL)
    codes = [process.wait() for process in processes]
    assert codes[kill:] == [0] * (clients - kill), codes


def clients(rounds: int, database: str) -> None:
    told: dict[str, list[float]] = {}
    for n in range(rounds):
        for name, number, held, kill in WAYS:
            with serving(*((latency, "") for latency in LATENCIES)) as urls, tempfile.TemporaryDirectory() as folder:
                count = ROWS // 6 if held else ROWS
                ledger = f"{folder}/ledger.sqlite"
                if database:
                    ledger = f"{database.rstrip('/')}/many{n}_{name.replace(', ', '_').replace(' ', '_')}"
                    subprocess.run(["createdb", "--maintenance-db", f"{database}/postgres", ledger.rpartition("/")[2]])
                together(urls, count, ledger, number, held, kill)
                found = [stats(url) for url in urls]
                took = max(one["last"] for one in found) - min(one["begun"] for one in found if one["begun"])
                texts = {text for one in found for text in one["texts"]}
                answered = sum(one["answered"] for one in found)
                assert len(texts) == count, "an answer is lost"
                told.setdefault(name, []).append(count / took)
                print(f"{name}: {count / took:.0f}/s, {answered} answers to {count} requests, "
                      f"load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
                assert kill or answered == count, "a call was made twice"
    rates = {name: statistics.median(rates) for name, rates in told.items()}
    print(f"three together: {rates['three'] / rates['one']:.2f} of one's rate (bar 0.9)")
    print(f"three together, each held to {HELD}/s: {rates['three, held'] / rates['one, held']:.2f} of one's (bar 2)")


if __name__ == "__main__":
    if sys.argv[1] == "servers":
        servers(*map(float, sys.argv[2:]))
    else:
        given = sys.argv[2:]
        clients(int(next((w for w in given if w.isdigit()), 3)), next((w for w in given if "://" in w), ""))
