"""How many requests a server is asked at once: found by trying, as TCP finds its window (AIMD), so nobody guesses.

Up by one with every answer at first, by one with every round of answers from the first sign of too many on. Down to 0.9
when the server says so (429, 503), once for all that were on their way; and to 0.75 when latency has grown so much that
twice as many at once bring hardly more answers: the requests wait for each other then. Every number here is ours, tried
by tests/benchmarks/many_servers.py.
"""

import time

START = 8
LEAST = 8  # answers that a latency is taken from; of more than 32 in flight a quarter
SHARE = 0.9  # of what was too many by the server's own word
WAITING = 0.75  # of what was too many by latency: some may wait at the server, so that no slot is empty for a moment
GAIN = 0.15  # more answers a second that twice as many at once have to bring


class Limit:
    """The requests in flight at one server, and how many there may be: `most` at the end of all growth."""

    def __init__(self, most: int, start: int = START) -> None:
        self.most, self.size, self.in_flight = most, float(min(start, most)), 0
        self._doubles, self._cut_at = True, 0.0
        self._latency: dict[int, float] = {}  # seconds for an answer with so many in flight, as last seen
        self._window: list[tuple[int, float]] = []

    @property
    def free(self) -> bool:
        return self.in_flight < int(self.size)

    def answered(self, sent: float, among: int, wanted: bool) -> None:
        """Takes the answer to a request that was sent (monotonic) as one of `among`. `wanted`: requests wait for a
        slot; else it says nothing of how many there could be.
        """
        if wanted and 2 * self.in_flight >= self.size:
            self.size = min(self.most, self.size + (1 if self._doubles else 1 / self.size))
        if sent < self._cut_at:
            return
        self._window.append((among, time.monotonic() - sent))
        if len(self._window) < max(LEAST, self.size / 4):
            return
        many, took = (sum(column) / len(self._window) for column in zip(*self._window, strict=True))
        self._window.clear()
        fewer = max((number for number in self._latency if 2 * number <= many), default=0)
        self._latency[int(many)] = took
        # With n in flight, n / latency are answered a second
        if fewer and many / took < (1 + GAIN * (many / fewer - 1)) * fewer / self._latency[fewer]:
            self._cut(WAITING * min(many, self.size))

    def refused(self, sent: float) -> None:
        """Takes the server's word that there are too many, but of one that was sent (monotonic) before the last cut."""
        if sent >= self._cut_at:
            self._cut(SHARE * self.size)

    def _cut(self, size: float) -> None:
        self.size, self._doubles, self._cut_at = max(1.0, size), False, time.monotonic()
        self._window.clear()
