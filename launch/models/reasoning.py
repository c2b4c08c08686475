"""What an answer is while it arrives: pieces of thought and reply (reward/thought.py), up to the words that stop it."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from data_pipeline.llm.completions import Delta
from data_pipeline.records import Response
from reward.thought import Piece, ThoughtStream, beginning

# Of a model in this process or behind a server: what comes, and at last the whole. Closing it stops what makes it.
Stream = Generator[Delta | Response, None, None]
Pieces = Generator[Piece, None, None]


class GenerationInterrupted(Exception):
    """An answer ended before its end; what had come until then was given. The message says why."""


class LengthLimit(GenerationInterrupted):
    """It ended because it reached the limit that it was given: nothing failed."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. In this process it is all that counts: a model's own generation_config.json does not."""

    max_new_tokens: int | None  # None: as many as the model's window has room for
    temperature: float = 0.7  # 0 is greedy
    top_p: float = 0.9
    top_k: int | None = None  # 0: all; None: all, and not sent to a server
    repetition_penalty: float | None = None  # 1: none; None: none, and not sent to a server

    def params(self) -> dict:
        """Returns them as OpenAI's API and vLLM spell them; None is not sent."""
        return {
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
        }


def thought_and_reply(stream: Stream, prefilled: bool, limit: int | None) -> Pieces:
    """Yields thought and reply of a stream: from a field of their own (vLLM, DeepSeek) or out of the tags in the text.

    `prefilled`: the prompt has opened the thought; `limit`: tokens that were asked for at most. Raises LengthLimit, or
    GenerationInterrupted for an answer that broke off or could not be had.
    """
    splitter, response = ThoughtStream(prefilled), None
    for event in stream:
        if isinstance(event, Response):
            response = event
        elif event[0] == "reasoning":
            splitter.inside, splitter.closed = False, True  # whoever makes it parts them
            yield "thought", event[1]
        else:
            yield from splitter.feed(event[1])
    yield from splitter.end()
    if response is None or response.finish == "failed":
        raise GenerationInterrupted(response.error if response else "no answer")
    if response.finish == "length":
        tokens = response.tokens or limit or 0
        raise LengthLimit(f"cut at {tokens} tokens" + ", the end of the model's window" * (tokens != limit))
    if response.finish != "stop":
        raise GenerationInterrupted(f"broken off by the server: {response.finish}")


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
