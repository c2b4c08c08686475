"""A simulated client: what it is asked before it speaks, and what its model may know then.

In every turn its model is asked twice: first, of the counsellor's last words alone, which topics they ask about; then
to speak, with the facts that are due and no others (eval/judging/profiles.py). What is not due stands in no prompt, so
that it cannot be told. Stance, length and every request's seed are drawn from the evaluation's seed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from data_pipeline.llm.structured import parse
from data_pipeline.prompts import render_file
from data_pipeline.records import NO_TEXT, Request, Response
from eval.judging.profiles import Fact, Profile
from eval.judging.transcripts import REFUSED, Said, Transcript
from reward.thought import split_thought

PROMPTS = Path(__file__).parent
ASKED = {"temperature": 0.0, "max_tokens": 512}  # ours
SPEAKS = {"temperature": 0.7, "max_tokens": 512}  # the temperature of PsychEval's client; tokens ours
AskClient = Callable[[list[Request]], list[Response]]


class Asked(BaseModel, extra="forbid"):
    """What the counsellor's last words ask."""

    asked: list[int]  # topics
    anything: bool
    closes: bool


NOTHING = Asked(asked=[], anything=False, closes=False)


@dataclass
class Client:
    """One client, and where its sessions stand."""

    profile: Profile
    row: str  # the item's id
    sample: int
    seed: int
    step: str
    transcript: Transcript
    known: dict[int, Fact] = field(default_factory=dict)  # facts that it may tell, by number
    leaves: bool = False  # with its next words
    error: str = ""  # a request failed: the sessions cannot go on

    @property
    def session(self) -> int:
        return len(self.transcript.sessions)

    @property
    def turn(self) -> int:
        """Of the client, in this session: the last one."""
        return sum(said.role == "client" for said in self.transcript.sessions[-1])

    @property
    def place(self) -> str:
        """Of its next turn, for a request."""
        return f"{self.row}/{self.session}.{self.turn + 1}"

    @property
    def over(self) -> bool:
        return bool(self.error) or len(self.transcript.ended) == self.session

    def request(self, what: str, text: str, params: dict, attempt: int = 0, shape: type | None = None) -> Request:
        drawn = hashlib.sha256(f"{self.seed} {self.place} {self.sample} {attempt}".encode()).hexdigest()
        messages = [{"role": "user", "content": text}]
        number = self.sample + 10_000 * attempt
        return Request(
            f"{self.step}/{what}", self.place, number, messages, {**params, "seed": int(drawn[:7], 16)}, shape
        )


def begun(profile: Profile, row: str, sample: int, seed: int, step: str) -> Client:
    """Returns the client of an item before its first session."""
    transcript = Transcript(profile.language, profile.stance_of(seed, sample), [], [], len(profile.facts))
    return Client(profile, row, sample, seed, step, transcript)


def speak(clients: Sequence[Client], ask: AskClient) -> None:
    """Lets each client say its next words, which stand at the end of its transcript.

    One whose request fails has an `error`; a session whose client's model refuses, or says nothing, ends there.
    """
    opening, rest = [c for c in clients if not c.turn], [c for c in clients if c.turn]
    for client in opening:
        _say(client, client.profile.first_words(client.session), {})
    due = dict(zip(map(id, rest), _asked(rest, ask), strict=True))
    rest = [client for client in rest if not client.error]
    requests = [_speaking(client, due[id(client)]) for client in rest]
    for client, reply in zip(rest, ask(requests) if requests else [], strict=True):
        words = (split_thought(reply.text)[1] or "").strip()
        if reply.finish == "failed":
            client.error = reply.error or "the client's model gave no reply"
        elif not words or reply.finish in (*NO_TEXT, "content_filter"):
            client.transcript.ended.append(REFUSED)
        else:
            _say(client, words, due[id(client)])


def _say(client: Client, words: str, told: dict[int, Fact]) -> None:
    client.known |= told
    client.transcript.sessions[-1].append(Said("client", words, told=sorted(told)))


def _asked(clients: Sequence[Client], ask: AskClient) -> list[dict[int, Fact]]:
    """Returns the facts that each client tells first in its next turn; a reply that cannot be read is asked once more,
    and then tells nothing.
    """
    found: dict[int, Asked] = {}
    left = list(clients)
    for attempt in range(2):
        replies = ask([_asking(client, attempt) for client in left]) if left else []
        unread = []
        for client, reply in zip(left, replies, strict=True):
            if reply.finish == "failed":
                client.error = reply.error or "the client's model gave no reply"
                continue
            try:
                found[id(client)] = parse(reply.text, Asked)
            except ValueError:
                unread.append(client)
        left = unread
    for client in left:
        client.transcript.unreadable += 1
    due = []
    for client in clients:
        asked = found.get(id(client), NOTHING)
        client.leaves = asked.closes or client.turn + 1 == client.profile.stays
        due.append(_due(client, asked))
    return due


def _topics(client: Client) -> list[tuple[int, str]]:
    facts = enumerate(client.profile.facts, 1)
    return [
        (n, fact.topic) for n, fact in facts if fact.topic and n not in client.known and fact.session <= client.session
    ]


def _asking(client: Client, attempt: int) -> Request:
    said = client.transcript.sessions[-1][-1].content
    file = PROMPTS / f"client_asked.{client.profile.language}.jinja"
    return client.request("asked", render_file(file, said=said, topics=_topics(client)), ASKED, attempt, Asked)


def _due(client: Client, asked: Asked) -> dict[int, Fact]:
    """Returns the facts that the next turn tells first: those of this turn or an earlier one, those that were asked
    about, and the next of those that any question brings out.
    """
    due, any_question = {}, asked.anything or bool(asked.asked)
    for number, fact in enumerate(client.profile.facts, 1):
        if number in client.known or fact.session > client.session:
            continue
        if fact.turn is not None:
            tells = fact.session < client.session or client.turn + 1 >= fact.turn
        elif fact.topic:
            tells = number in asked.asked
        else:
            tells, any_question = any_question, False
        if tells:
            due[number] = fact
    return due


def _speaking(client: Client, now: dict[int, Fact]) -> Request:
    *earlier, turns = client.transcript.sessions
    text = render_file(
        PROMPTS / f"client.{client.profile.language}.jinja",
        about=client.profile.about,
        known=list(client.known.values()),
        now=list(now.values()),
        stance=client.transcript.stance,
        sentences=client.profile.sentences(client.seed, f"{client.place} {client.sample}"),
        last=client.leaves,
        earlier=[said for session in earlier for said in session],
        turns=turns,
    )
    return client.request("speaks", text, SPEAKS)
