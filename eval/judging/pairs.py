"""Blind pairs: two models' replies to one history, judged in both orders; what came of them as games, and as ratings.

A pair counts where both orders are there: the mean of the two is what the first model won (1, 0, 0.5 for a tie), so
that a judge that likes whichever reply stands first gives ties and no winner. A pair's id is made of its content: a
verdict holds for these words and no others."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel

from data_pipeline.llm.places import Where
from data_pipeline.llm.structured import parse
from data_pipeline.prompts import render_file
from data_pipeline.records import Dialogue, Response
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring, Table, no_scores
from eval.figures import interval
from eval.judging import comparison
from eval.judging.judges import Panel, ask_judges
from eval.judging.ranking import Game, Ranked, rank
from eval.judging.ratings import JUDGE, Rating

PROMPTS = Path(__file__).parent
WON = "first reply better"
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Pair:
    history: tuple[tuple[str, str], ...]  # (role, text), without a system prompt
    item: str
    systems: tuple[str, str]
    replies: tuple[str, str]
    whole: bool = False  # the replies are records of whole sessions with one client

    @property
    def id(self) -> str:
        content = repr((self.history, sorted(zip(self.systems, self.replies, strict=True))))
        return f"p{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()[:11]}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rater said of one pair: how much of it the first model won, in each order; None: missing."""

    pair: Pair
    rater: str
    straight: float | None  # the first model's reply shown first
    swapped: float | None  # shown second
    kind: str = ""  # JUDGE, or "" of a person, who sees one order

    @property
    def won(self) -> float | None:
        if self.kind != JUDGE:
            return self.straight if self.straight is not None else self.swapped
        return None if self.straight is None or self.swapped is None else (self.straight + self.swapped) / 2


def pairs_of(
    histories: Mapping[str, tuple[tuple[str, str], ...]],
    replies: Mapping[str, Mapping[str, str]],
    whole: bool = False,
) -> list[Pair]:
    """Returns the pairs of all systems; `replies` are {system: {item: text}}, and a text that is empty is left out."""
    return [
        Pair(history, item, (a, b), (replies[a][item], replies[b][item]), whole)
        for item, history in histories.items()
        for a, b in combinations(replies, 2)
        if replies[a].get(item) and replies[b].get(item)
    ]


# --- judges -----------------------------------------------------------------------------------------------------------


class Verdict(BaseModel, extra="forbid"):
    evidence_a: str
    evidence_b: str
    better: Literal["A", "B", "tie"]


def _messages(item: Item, second: str) -> list[dict]:
    history = item.facts["history"]
    language = "zh" if _CHINESE.search(history[-1][1]) else "en"
    shown = {"history": history, "a": item.facts["reply"], "b": second, "whole": item.facts["whole"]}
    text = render_file(PROMPTS / f"pair.{language}.jinja", **shown)
    return [{"role": "user", "content": text}]


def _read(reply: str) -> dict[str, float | None]:
    try:
        return {WON: {"A": 1.0, "B": 0.0, "tie": 0.5}[parse(reply, Verdict).better]}
    except ValueError:
        return {WON: None}


def _quotes(reply: str) -> list[str]:
    verdict = parse(reply, Verdict)
    return [quote.strip() for quote in (verdict.evidence_a, verdict.evidence_b) if quote.strip()]


CALL = Judge((WON,), _messages, _read, quotes=_quotes, shape=Verdict)
PAIRS = Benchmark(
    load=lambda path: Loaded([], [], []),
    requests=lambda item: [],
    score=no_scores,
    tables=lambda results: [],
    judge=lambda item: [CALL],
    name="pairs",
)


def judge_pairs(
    pairs: Sequence[Pair], panel: Panel, ledger: Where, name: str, scoring: Scoring
) -> tuple[list[Outcome], list[dict], int]:
    """Returns what every judge said of every pair; the single votes as rows; and how many votes the same command would
    ask again. Raises BadInput as `ask_judges`.
    """
    shown = [(pair, swap) for pair in pairs for swap in (False, True)]
    answered = []
    for pair, swap in shown:
        first, second = pair.replies[::-1] if swap else pair.replies
        facts = {"history": pair.history, "reply": first, "whole": pair.whole}
        item = Item(Dialogue(f"{pair.id}/{'swapped' if swap else 'straight'}", "pairs", []), "pairs", facts=facts)
        answered.append(Answered(item, [Response(second, "stop", 0)], [], None))
    judged, again = ask_judges(PAIRS, answered, panel, ledger, f"pairs/{name}", scoring)
    said: dict[tuple[str, str], list[list[float]]] = {}
    rows = []
    for (pair, swap), (judgement,) in zip(shown, judged, strict=True):
        for vote in judgement.votes if judgement else ():
            value = vote.scores[WON]
            won = None if value is None else 1 - value if swap else value
            if won is not None:
                said.setdefault((pair.id, vote.judge), [[], []])[swap].append(won)
            rows.append({"item": pair.item, "pair": pair.id, "first": pair.systems[0], "second": pair.systems[1],
                         "rater": vote.judge, "repeat": vote.repeat, "swapped": swap, "first_won": won,
                         "state": vote.state, "evidence": list(vote.quotes), "tokens": vote.tokens,
                         "cost": vote.cost})  # fmt: skip
    outcomes = []
    for pair in pairs:
        for judge in panel.servers:
            straight, swapped = (fmean(v) if v else None for v in said.get((pair.id, judge), [[], []]))
            outcomes.append(Outcome(pair, judge, straight, swapped, JUDGE))
    return outcomes, rows, again


# --- what came of them ------------------------------------------------------------------------------------------------


def ranking(outcomes: Sequence[Outcome]) -> list[Ranked]:
    games = [Game(o.pair.item, *o.pair.systems, o.won) for o in outcomes if o.won is not None]
    return rank(games) if games else []


def flips(outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """Returns, of a judge's pairs whose both orders are there, (the share whose verdict turns with the order; how much
    more than a half the reply shown first wins).
    """
    both = [(o.straight, o.swapped) for o in outcomes if o.straight is not None and o.swapped is not None]
    if not both:
        return None, None
    turned = sum(abs(a - b) > 1e-9 for a, b in both) / len(both)
    return turned, fmean((a + 1 - b) / 2 for a, b in both) - 0.5


def agreement(outcomes: Sequence[Outcome]) -> list[Table]:
    """Returns how far raters agree on which reply of a pair is better, and each judge's bias for each system."""
    of_pairs = [Rating(o.pair.id, "", "", WON, o.rater, o.won, kind=o.kind) for o in outcomes]
    of_systems = [
        Rating(o.pair.id, system, "", "wins", o.rater, None if o.won is None else abs(place - o.won), kind=o.kind)
        for o in outcomes
        for place, system in zip((0, 1), o.pair.systems, strict=True)
    ]
    shown = [*comparison.agreements(of_pairs), comparison.biases(of_systems)]
    return [table for table in shown if table.rows]


def report(outcomes: Sequence[Outcome], pairs: int) -> list[Table]:
    """Returns the ranking by all judges, by each, by people, side by side; and each judge's steadiness."""
    judges = list(dict.fromkeys(o.rater for o in outcomes if o.kind == JUDGE))
    groups = {"judges": [o for o in outcomes if o.kind == JUDGE], "people": [o for o in outcomes if o.kind != JUDGE]}
    groups |= {
        judge: [o for o in outcomes if o.rater == judge and o.kind == JUDGE]
        for judge in judges[: 0 if len(judges) == 1 else None]
    }
    made = {name: ranking(group) for name, group in groups.items()}
    made = {name: ranked for name, ranked in made.items() if ranked}
    models = list(dict.fromkeys(one.model for ranked in made.values() for one in ranked))
    lines = [[model, *(_told(ranked, model) for ranked in made.values())] for model in models]
    strength = Table("place, strength [95 %], share of wins", ("model", *(f"by {name}" for name in made)), lines)
    lines = []
    for judge in judges:
        of = [o for o in outcomes if o.rater == judge and o.kind == JUDGE]
        turned, first = flips(of)
        told = ["-" if turned is None else f"{turned:.1%}", "-" if first is None else f"{first:+.1%}"]
        lines.append([judge, str(pairs), str(sum(o.won is None for o in of)), *told])
    head = ("judge", "pairs", "missing", "turn with the order", "the one shown first wins, above a half")
    return [table for table in (strength, Table("position", head, lines)) if table.rows]


def _told(ranked: list[Ranked], model: str) -> str:
    for place, one in enumerate(ranked, 1):
        if one.model == model:
            strength = "no finite strength" if one.strength is None else interval(one.strength, one.interval, 1)
            return f"{place}. {strength}, {one.share:.0%} of {one.games}"
    return "-"
