"""What an answer is while it arrives: pieces of thought and reply (reward/thought.py), up to the words that stop it."""

from collections.abc import Generator, Iterable, Iterator

from reward.thought import Piece, beginning

Pieces = Generator[Piece, None, None]  # of an answer; closing them stops what makes them


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
