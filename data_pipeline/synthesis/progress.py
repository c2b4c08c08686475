"""How far the rows of a step that asks are: on the terminal, and in a file for `status` in another one."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

from data_pipeline.llm.rates import Rates, told
from data_pipeline.records import write_text
from data_pipeline.safety.shown import shown, text_column

_SHOW, _WRITE = 1.0, 5.0  # seconds between two


class Following:
    """Counts rows; a context manager. The file goes when it ends."""

    def __init__(self, title: str, total: int, file: Path) -> None:
        columns = text_column("  {task.description}"), SpinnerColumn(), BarColumn(), MofNCompleteColumn()
        self.progress = Progress(*columns, TimeElapsedColumn(), text_column("{task.fields[state]}"), transient=True)
        self.task = self.progress.add_task(shown(title), total=total, state="")
        self.title, self.total, self.file, self.rates = title, total, file, Rates()
        self.done, self.begun, self.shown_at, self.written_at = 0, time.monotonic(), 0.0, time.monotonic()

    def __enter__(self) -> Self:
        self.progress.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self.progress.__exit__(*what)  # pyright: ignore[reportArgumentType]
        self.file.unlink(missing_ok=True)

    def advance(self) -> None:
        """Counts a row that is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.shown_at >= _SHOW:
            state = self.state(now)
            self.progress.update(self.task, completed=self.done, state=in_words(state))
            self.shown_at = now
            if now - self.written_at >= _WRITE:
                write_text(self.file, json.dumps(state) + "\n")
                self.written_at = now

    def state(self, now: float) -> dict:
        rate = self.done / max(now - self.begun, 1e-9)
        return {
            "step": self.title,
            "done": self.done,
            "rows": self.total,
            "rows_per_s": round(rate, 2),
            "left_s": round(max(0, self.total - self.done) / rate),
            "calls_per_s": {address: round(one, 2) for address, one in self.rates.servers().items()},
            "slowest": self.rates.slowest(),
            "cost": self.rates.cost(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def in_words(state: dict) -> str:
    """Returns what `state` gives: "2.1 rows/s, 0:10:00 left, 8.4 calls/s (...), cost 0.1, slowest: reason_reply"."""
    left = timedelta(seconds=state["left_s"])
    asked = told(state["calls_per_s"], state["slowest"], state["cost"])
    return f"{state['rows_per_s']:.1f} rows/s, {left} left, {asked}"


def last_seen(steps: Path) -> list[str]:
    """Returns a line for each pipeline whose rows are on their way, or were when its process was ended."""
    lines = []
    for file in sorted(steps.glob("*/progress.json")):
        state = json.loads(file.read_text(encoding="utf-8"))
        lines.append(f"{state['step']}: {state['done']} of {state['rows']} at {state['at']}: {in_words(state)}")
    return lines
