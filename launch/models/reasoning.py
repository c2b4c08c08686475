"""Tells thought from reply, and finds stop words, while a text is still arriving."""

from collections.abc import Generator, Iterable, Iterator

OPEN, CLOSE = "<think>", "</think>"
Piece = tuple[str, str]  # ("thought" or "reply", text); ("late", ""): all that came as reply was a thought
Pieces = Generator[Piece, None, None]  # of an answer; closing them stops what makes them


class Splitter:
    """Takes a text in pieces and gives it back as thought and reply, without the tags and the empty lines around them.

    `prefilled`: the prompt has opened the thought already. A `</think>` that nothing opened makes what came before it
    a thought, once; after a thought it is no tag and left out.
    """

    def __init__(self, prefilled: bool = False) -> None:
        self.inside, self.closed, self.begun, self.held = prefilled, False, False, ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Yields what can be told apart so far; a tail that may be the beginning of a tag waits."""
        self.held += text
        while tags := sorted((self.held.find(tag), tag) for tag in (OPEN, CLOSE) if tag in self.held):
            at, tag = tags[0]
            yield from self._give(self.held[:at])
            self.held = self.held[at + len(tag) :]
            if tag == CLOSE:
                if not self.inside and not self.closed:
                    yield "late", ""
                self.closed = True
            self.inside, self.begun = tag == OPEN, False
        keep = beginning(self.held, (OPEN, CLOSE))
        yield from self._give(self.held[: len(self.held) - keep])
        self.held = self.held[len(self.held) - keep :]

    def end(self) -> Iterator[Piece]:
        """Yields what was waiting."""
        yield from self._give(self.held)
        self.held = ""

    def _give(self, text: str) -> Iterator[Piece]:
        text = text if self.begun else text.lstrip("\n")
        if text:
            self.begun = True
            yield "thought" if self.inside else "reply", text


def beginning(text: str, words: Iterable[str]) -> int:
    """Returns how many characters at the end of `text` may be the beginning of one of `words`."""
    sizes = (n for word in words for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n]))
    return max(sizes, default=0)


def until(pieces: Iterable[str], stops: Iterable[str]) -> Iterator[str]:
    """Yields the text up to the first of the words `stops`, which are not part of it, as OpenAI's API does."""
    stops, held = [word for word in stops if word], ""
    for piece in pieces:
        held += piece
        if places := [at for word in stops if (at := held.find(word)) >= 0]:
            held = held[: min(places)]
            break
        keep = beginning(held, stops)
        if ready := held[: len(held) - keep]:
            yield ready
        held = held[len(held) - keep :]
    if held:
        yield held
