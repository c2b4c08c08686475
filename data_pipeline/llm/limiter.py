"""How many requests a server is asked at once: found by trying, as TCP finds its window (AIMD), so nobody guesses.

Up while that brings more: twice as many at first, one more from the first sign of too many on. Down to 0.8 when the
server says so (429, 503), and to half when twice as many brought hardly more, which is when latency grows: the requests
wait for each other then. Every number here is ours, measured by tests/benchmarks/many_servers.py.
"""

import time

START = 8
LEAST = 8  # answers that a rate is taken from
SHARE = 0.8  # of what was too many for the server's own word
GAIN = 0.25  # more answers a second that twice as many at once have to bring


class Limit:
    """The requests in flight at one server, and how many there may be: `most` at the end of all growth."""

    def __init__(self, most: int, start: int = START) -> None:
        self.most, self.size, self.in_flight = most, min(start, most), 0
        self.full = False  # somebody waited for a slot in this window
        self._doubles, self._cut_at = True, 0.0
        self._rates: dict[int, float] = {}  # answers a second with so many in flight
        self._open_window()

    @property
    def free(self) -> bool:
        return self.in_flight < self.size

    def answered(self) -> None:
        """Takes an answer; after as many as are asked at once it decides how many that is."""
        self._answers += 1
        if self._answers < max(LEAST, self.size):
            return
        if self.full:  # else nobody wanted more, and the rate says nothing of the server
            rate = self._answers / max(time.monotonic() - self._begun, 1e-9)
            self._rates[self.size] = rate
            fewer = max((size for size in self._rates if 2 * size <= self.size), default=0)
            if fewer and rate < self._rates[fewer] * (1 + GAIN * (self.size / fewer - 1)):
                self._cut(self.size // 2)  # where the rate is taken anew, should it have been of other requests
            else:
                self.size = min(self.most, 2 * self.size if self._doubles else self.size + 1)
        self._open_window()

    def refused(self, sent: float) -> None:
        """Takes the server's word that there are too many, but of one that was sent (monotonic) before the last cut."""
        if sent >= self._cut_at:
            self._cut(int(self.size * SHARE))
            self._open_window()

    def _cut(self, size: int) -> None:
        self.size, self._doubles, self._cut_at = max(1, size), False, time.monotonic()

    def _open_window(self) -> None:
        self._answers, self._begun, self.full = 0, time.monotonic(), False
