"""Judge models' scores of responses: asked, kept in the ledger, read, and missing where they are missing.

A request that failed is asked again by the next run. So is one whose reply cannot be read or was refused, as a request
of its own, until it has been asked ATTEMPTS times; then it is missing for good. None of these is a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm.places import Where
from data_pipeline.records import REFUSED, Response
from eval.contract import Answered, Benchmark, Item, Judge, Judgement, Scoring, Vote, judge_calls
from eval.judging.asking import Whom, asker, known
from eval.judging.votes import combined
from eval.metrics import answer_part

ATTEMPTS = 2  # at a reply that can be read, one a run; ours


@dataclass(frozen=True)
class Panel:
    """Whom to ask, and how often each about the same."""

    servers: Mapping[str, Whom] = field(default_factory=dict)
    repeats: int = 1

    @property
    def name(self) -> str | None:
        """For people and for `compare`: the models, and how often; None without a judge."""
        models = ", ".join(server.model for server in self.servers.values())
        return f"{models}, {self.repeats} times each" if self.repeats > 1 else models or None


@dataclass(frozen=True)
class _Place:
    """One thing that is asked of one judge about one response."""

    item: Item
    sample: int  # of the response
    call: Judge
    repeat: int
    answer: str

    def request(self, step: str, seed: int, attempt: int) -> llm.Request:
        params = {**self.call.params, "seed": seed + self.repeat + 1000 * attempt}
        number = self.sample + 10_000 * (self.repeat + 1000 * attempt)  # no two requests of one are equal
        messages = self.call.messages(self.item, self.answer)
        return llm.Request(f"{step}/{self.call.scores[0]}", self.item.id, number, messages, params, self.call.shape)


def ask_judges(
    benchmark: Benchmark, answered: Sequence[Answered], panel: Panel, ledger: Where, name: str, scoring: Scoring
) -> tuple[list[list[Judgement | None]], int]:
    """Returns a judgement for every response that judges are asked about, None for the others; and how many votes the
    same command would ask again.

    Not asked about are responses without an answer part. Raises BadInput as `llm.run_all`, and for a reader that gives
    other scores than its call has.
    """
    places = [
        (n, _Place(one.item, k, call, repeat, answer))
        for n, one in enumerate(answered)
        for call in judge_calls(benchmark, one.item)
        for k, response in enumerate(one.responses)
        if (answer := answer_part(response, scoring.think_prefilled))
        for repeat in range(panel.repeats)
    ]
    votes: dict[tuple[int, int], list[Vote]] = {}
    again = 0
    for judge, server in panel.servers.items():
        replies = _replies(benchmark, [place for _, place in places], server, ledger, (name, judge, scoring.seed))
        for (n, place), asked in zip(places, replies, strict=True):
            vote = _vote(benchmark, place, judge, asked.reply)
            spent = {
                "tokens": asked.prompt_tokens + asked.tokens,
                "cost": server.cost(asked.prompt_tokens, asked.tokens),
            }
            votes.setdefault((n, place.sample), []).append(replace(vote, **spent))
            again += asked.again
    judged: list[list[Judgement | None]] = [
        [combined(of) if (of := votes.get((n, k))) else None for k in range(len(one.responses))]
        for n, one in enumerate(answered)
    ]
    return judged, again


@dataclass
class _Asked:
    """What came of one place."""

    reply: Response = field(default_factory=lambda: Response("", "failed", 0))  # the last one
    again: bool = True  # the next run asks once more
    prompt_tokens: int = 0
    tokens: int = 0

    def take(self, reply: Response, again: bool) -> None:
        self.reply, self.again = reply, again
        self.prompt_tokens += reply.prompt_tokens
        self.tokens += reply.tokens


def _replies(
    benchmark: Benchmark, places: Sequence[_Place], server: Whom, ledger: Where, title: tuple[str, str, int]
) -> list[_Asked]:
    """Returns what came of each. What the ledger holds is read first: what could not be read there is asked as a new
    request, one in every run.
    """
    name, judge, seed = title
    replies = [_Asked() for _ in places]
    left, asked = list(range(len(places))), []
    for attempt in range(ATTEMPTS):
        requests = [places[n].request(f"judge/{name}", seed, attempt) for n in left]
        unread = []
        for n, request, reply in zip(left, requests, known(server, requests, ledger), strict=True):
            if reply is None:
                asked.append((n, attempt, request))
            else:
                replies[n].take(reply, again=False)
                unread += [n] if _vote(benchmark, places[n], judge, reply).state != "read" else []
        left = unread
    ask = asker(server, ledger, f"judging {name}: {judge}")
    fresh = ask([request for *_, request in asked]) if asked else []
    last = ATTEMPTS if isinstance(server, llm.Server) else 1  # a recorded reply stays what it is
    for (n, attempt, _), reply in zip(asked, fresh, strict=True):
        state = _vote(benchmark, places[n], judge, reply).state
        replies[n].take(reply, state == "failed" or state != "read" and attempt + 1 < last)
    return replies


def _vote(benchmark: Benchmark, place: _Place, judge: str, reply: Response) -> Vote:
    call = place.call
    scores: dict[str, float | None] = dict.fromkeys(call.scores)
    if reply.finish == "failed":
        return Vote(judge, place.repeat, scores, "failed")
    if reply.finish in ("content_filter", REFUSED):
        return Vote(judge, place.repeat, scores, "refused")
    scores = read_reply(benchmark, call, reply.text)
    if any(value is None and not scores.get(f"{name}_unsure") for name, value in scores.items()):
        return Vote(judge, place.repeat, scores, "unreadable")
    return Vote(judge, place.repeat, scores, "read", tuple(call.quotes(reply.text)) if call.quotes else ())


def read_reply(benchmark: Benchmark, call: Judge, text: str) -> dict[str, float | None]:
    """Returns what the call's reader makes of a reply; raises BadInput for other scores than the call has."""
    scores = dict(call.read(text))
    if set(scores) != set(call.scores):
        raise BadInput(
            f"benchmark {benchmark.name}: the judge's reader gives {', '.join(scores) or 'nothing'}, its scores are "
            f"{', '.join(call.scores)}; it gives all of them, None for one that cannot be read"
        )
    return scores


def judge_scores(
    one: Answered, names: Sequence[str], unanswered: float | Mapping[str, float] = 0.0
) -> list[dict[str, float | None]]:
    """Returns the judges' scores of each response to an item, None where missing, all None without a judge.

    A response without an answer part, a failed one among them, is worth `unanswered`, of all scores or by name: there
    was nothing to judge.
    """
    if one.judgements is None:
        return [dict.fromkeys(names) for _ in one.responses]
    worth = dict(unanswered) if isinstance(unanswered, Mapping) else dict.fromkeys(names, unanswered)
    return [dict(judgement.scores) if judgement else dict(worth) for judgement in one.judgements]
