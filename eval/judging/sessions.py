"""Whole sessions of a model with simulated clients, and several in a row in which both remember.

All clients that are still there speak, then the model answers all of them, so that whatever generates (a server, vLLM,
this process) gets its prompts together. The model sees what a chat would show it: system prompt, then every turn of
all sessions so far, without its earlier thoughts. A session ends with the client's last words and the answer to them,
or at the limit. From one seed and the ledger all is replayed as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_pipeline.records import Response
from eval.contract import Item, Scoring
from eval.judging.clients import AskClient, Client, begun, speak
from eval.judging.profiles import Sitting
from eval.judging.transcripts import CLIENT, LIMIT, UNANSWERED, Said
from eval.metrics import answer_part, whole_text
from reward.thought import split_thought

# (conversations, their rows) -> a response to each
Answer = Callable[[list[list[dict]], list[str]], list[Response]]


@dataclass
class _Held:
    """A client's sessions as they go on, and what the model has used for them."""

    sitting: Sitting
    client: Client
    messages: list[dict]
    cut: bool = False
    tokens: int = 0
    prompt_tokens: int = 0

    def open(self) -> None:
        self.client.transcript.sessions.append([])
        self.client.leaves = False

    def hear(self) -> bool:
        """Takes the client's new words; returns whether there are any."""
        if self.client.over:
            return False
        words = self.client.transcript.sessions[-1][-1].content
        if len(self.client.transcript.sessions) > 1 or self.client.turn > 1:  # the first ones are asked already
            self.messages.append({"role": "user", "content": words})
        return True

    def take(self, response: Response, prefilled: bool) -> None:
        self.tokens += response.tokens
        self.prompt_tokens += response.prompt_tokens
        self.cut |= response.finish == "length"
        transcript = self.client.transcript
        if response.finish == "failed":
            self.client.error = response.error or "the model gave no reply"
            return
        if not (words := answer_part(response, prefilled)):
            transcript.ended.append(UNANSWERED)
            return
        thought = split_thought(whole_text(response), prefilled and not response.reasoning)[0] or ""
        transcript.sessions[-1].append(Said("counselor", words, thought.strip()))
        self.messages.append({"role": "assistant", "content": words})
        if self.client.leaves or self.client.turn == self.sitting.turns:
            transcript.ended.append(CLIENT if self.client.leaves else LIMIT)

    def response(self) -> Response:
        if self.client.error:
            return Response("", "failed", self.tokens, "", self.prompt_tokens, self.client.error)
        said = self.client.transcript.said_by("counselor")
        text = self.client.transcript.dumps() if said else ""  # without a word of the model there is nothing to judge
        return Response(text, "length" if self.cut else "stop", self.tokens, "", self.prompt_tokens)


def hold(
    session: Callable[[Item], Sitting],
    opened: Sequence[tuple[Item, list[dict]]],
    samples: int,
    step: str,
    ask: AskClient,
    answer: Answer,
    scoring: Scoring,
) -> list[list[Response]]:
    """Returns, for each item, `samples` responses: each the transcript of all sessions with the item's client.

    `session` says who that is; `opened` are the items with the messages that open their first session. A session in
    which a request failed is a failed response, so that the same command asks again what failed.
    """
    held = [
        _Held(session(item), begun(session(item).profile, item.id, sample, scoring.seed, step), list(messages))
        for item, messages in opened
        for sample in range(samples)
    ]
    for number in range(max((one.sitting.sessions for one in held), default=0)):
        there = [one for one in held if not one.client.error and number < one.sitting.sessions and _whole(one)]
        for one in there:
            one.open()
        while there := [one for one in there if not one.client.over]:
            speak([one.client for one in there], ask)
            there = [one for one in there if one.hear()]
            rows = [f"{one.client.row}/{one.client.session}.{one.client.turn}" for one in there]
            replies = answer([one.messages for one in there], rows) if there else []
            for one, reply in zip(there, replies, strict=True):
                one.take(reply, scoring.think_prefilled)
    responses = iter(one.response() for one in held)
    return [[next(responses) for _ in range(samples)] for _ in opened]


def _whole(one: _Held) -> bool:
    """Whether its sessions so far ended as they should; after one that broke off there is no further one."""
    return all(end in (CLIENT, LIMIT) for end in one.client.transcript.ended)
