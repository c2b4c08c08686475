"""What a conversation shows: on a terminal thoughts are dimmed, elsewhere they stand in their tags."""

import sys
from io import TextIOWrapper
from typing import cast

from rich.console import Console

from data_pipeline.safety.shown import shown

_STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m"}


class Terminal:
    """Writes to standard output; notes about an answer go to standard error, unless both are one terminal."""

    def __init__(self, shown: bool) -> None:
        self.shown, self.state, self.at_start = shown, "", True
        for stream in (sys.stdout, sys.stderr):
            cast(TextIOWrapper, stream).reconfigure(errors="replace")
        self.terminal = sys.stdout.isatty()
        self.dims = self.terminal and Console().color_system is not None  # not TERM=dumb

    def guidance(self, text: str) -> None:
        """Shows guidance to help, apart from what the model says."""
        self._close_thought()
        self._write("" if self.at_start else "\n")
        self._write(f"{text}\n\n", "bold")

    def thought(self, text: str) -> None:
        if not self.shown:
            return
        if self.state != "thought":
            self._write("" if self.dims else "<think>\n")
            self.state = "thought"
        self._write(text, "dim")

    def reply(self, text: str) -> None:
        self._close_thought()
        self._write(text)

    def end(self) -> None:
        """Ends an answer; a thought that did not end stays open."""
        self.state = ""
        self._write("" if self.at_start else "\n")

    def note(self, text: str) -> None:
        """Says something about the conversation that is no part of it."""
        if self.terminal:
            self._write(f"[{text}]\n", "dim")
        else:
            print(f"[{text}]", file=sys.stderr, flush=True)

    def ask(self) -> str:
        """Returns a line from the terminal; the prompt never goes into a file."""
        if self.terminal:
            return input("> ")
        print("> ", end="", file=sys.stderr, flush=True)
        return input()

    def _close_thought(self) -> None:
        if self.state == "thought":
            self._write("\n\n" if self.dims else ("" if self.at_start else "\n") + "</think>\n\n")
        self.state = ""

    def _write(self, text: str, style: str = "") -> None:
        if not text:
            return
        self.at_start = text.endswith("\n")
        if self.terminal:
            text = shown(text)  # a model's words move no cursor
        if style and self.dims:
            text = f"{_STYLES[style]}{text}\x1b[0m"
        sys.stdout.write(text)  # not rich's print, which Ctrl-C can make write twice
        sys.stdout.flush()
