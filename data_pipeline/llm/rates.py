"""What is going on while models are asked: calls a second by server, cost so far, the step that waits the longest."""

import time
from collections import Counter, deque
from urllib.parse import urlsplit

from data_pipeline.llm.dispatch import Dispatcher

_SPAN = 15.0  # seconds over which a rate is taken; ours


class Rates:
    """Looks at dispatchers, when it is asked."""

    def __init__(self) -> None:
        self.watched: list[Dispatcher] = []
        self.before = 0.0  # paid by earlier calls of the ledger
        self._seen: deque[tuple[float, Counter[str]]] = deque()

    def watch(self, dispatcher: Dispatcher) -> None:
        if not self.watched and dispatcher.server.input_price is not None:
            self.before = dispatcher.ledger.spent()
        self.watched.append(dispatcher)

    def servers(self) -> dict[str, float]:
        """Returns {address: answers a second} of the last seconds."""
        now, answers = time.monotonic(), Counter[str]()
        for member in (member for one in self.watched for member in one.pool.members):
            answers[str(member.connection.server.base_url)] += member.answers
        while len(self._seen) > 1 and now - self._seen[1][0] > _SPAN:
            self._seen.popleft()
        begun, before = self._seen[0] if self._seen else (now, answers)
        self._seen.append((now, answers))
        return {address: (count - before[address]) / max(now - begun, 1e-9) for address, count in answers.items()}

    def slowest(self) -> str:
        """Returns the step that has waited the longest for answers, "" before the first."""
        waited = Counter[str]()
        for one in self.watched:
            waited.update(one.seconds)  # pyright: ignore[reportArgumentType]  (a Counter of seconds)
        return max(waited, key=lambda step: waited[step], default="")

    def cost(self) -> float | None:
        """Returns what all calls of the ledger have cost, None without prices."""
        priced = [one for one in self.watched if one.server.input_price is not None]
        return self.before + sum(one.paid for one in priced) if priced else None


def told(servers: dict[str, float], slowest: str, cost: float | None) -> str:
    """Returns it in words."""
    parts = [f"{sum(servers.values()):.1f} calls/s"]
    if len(servers) > 1:
        parts[0] += f" ({', '.join(f'{urlsplit(address).netloc} {rate:.1f}' for address, rate in servers.items())})"
    parts += [f"cost {cost:.4f}"] if cost is not None else []
    parts += [f"slowest: {slowest}"] if slowest else []
    return ", ".join(parts)
