"""Blind pairs on a page: two models' replies to one history, which model stands where drawn anew for each rater."""

import json
import random
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data_pipeline import reviews
from data_pipeline.errors import BadInput
from data_pipeline.records import write_text
from data_pipeline.reviews import PAIR, Review
from data_pipeline.safety.crisis import crisis_flags
from eval.contract import Table
from eval.judging import pairs
from eval.judging.pairs import Outcome, Pair
from eval.judging.ratings import JUDGE
from eval.settings import settings
from launch.cli.configuration import as_dict, load_config
from launch.pages import answers, tasks
from launch.pages.judging import guideline
from launch.pages.reading import known
from launch.pages.rendering import address, language_of, page
from launch.running import compared
from launch.running.overview import Run

router = APIRouter()
WON = {"left": 1.0, "right": 0.0, "both good": 0.5, "both bad": 0.5}  # of the reply on the left
SEED = 42  # ours


@dataclass(frozen=True)
class PairPlan:
    """Which models are compared on which set; reviews/plan.pair.json."""

    set: str
    sides: tuple[str, ...]  # RUN/CHECKPOINT
    size: int  # pairs at most


class NewPairs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    set: str
    first: str
    second: str
    size: int = Field(ge=1, le=5000)


class GivenPair(BaseModel):
    """A verdict as the page sends it; whose reply stood where it does not know."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=8, max_length=64)
    item: str
    verdict: str
    reason: str = Field(default="", max_length=reviews.LONGEST)
    seconds: float = Field(default=0, ge=0, le=86400)
    before: str = ""


def plan_of(run: Run) -> PairPlan | None:
    file = tasks.folder_of(run) / f"plan.{PAIR}.json"
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        return PairPlan(row["set"], tuple(row["sides"]), row["size"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: not a plan of a comparison ({error}); move it away and choose anew") from None


def planned(name: str) -> tuple[Run, PairPlan, list[Pair]]:
    run = known(name)
    plan = plan_of(run)
    if plan is None:
        raise HTTPException(404, f"run {name} has no comparison; choose two models first")
    return run, plan, pairs_of(run, plan)


def pairs_of(run: Run, plan: PairPlan) -> list[Pair]:
    """Returns the pairs that are judged: of all that there are, as many as the plan says, drawn by their content."""
    sides = dict(map(compared.answered, plan.sides))
    files = tuple(of[plan.set][0] for of in sides.values())
    return _pairs(run.path, plan, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=8)
def _pairs(path: Path, plan: PairPlan, modified: tuple[int, ...]) -> list[Pair]:
    sides = dict(map(compared.answered, plan.sides))
    asked = settings(as_dict(load_config(path / "eval" / "config.yaml")))
    made = compared.pairs_on(sides, plan.set, asked, path / "data")
    return sorted(made, key=lambda pair: random.Random(f"{SEED} {pair.id}").random())[: plan.size]


def mine(made: list[Pair], reviewer: str) -> list[tuple[Pair, bool]]:
    """Returns the pairs in an order of the reviewer's own, each with whether its second reply stands left."""
    order = sorted(made, key=lambda pair: random.Random(f"{SEED} {reviewer} {pair.id}").random())
    return [(pair, random.Random(f"{SEED} {reviewer} {pair.id} left").random() < 0.5) for pair in order]


def given_by(run: Run, reviewer: str) -> dict[str, Review]:
    """Returns {pair's id: the reviewer's last verdict}."""
    given = reviews.read(reviews.file_of(tasks.folder_of(run), reviewer))
    return {item: one for (kind, item), one in reviews.latest(given).items() if kind == PAIR}


@router.get("/runs/{name}/compare")
def index(request: Request, name: str) -> Response:
    run = known(name)
    there = answers.stored(name)
    sets = {name: [one for one in there if one.set == name] for name in dict.fromkeys(one.set for one in there)}
    beside = {of: [*own, *(one for one in answers.of_set(of) if one.run != name)] for of, own in sets.items()}
    last = {of: max(1, len(own) - 1) for of, own in sets.items()}  # of the run's own: its last checkpoint
    plan = plan_of(run)
    made = pairs_of(run, plan) if plan else []
    raters = {who: sum(pair.id in given for pair in made) for who in reviews.reviewers(tasks.folder_of(run))
              if (given := given_by(run, who))} if plan else {}  # fmt: skip
    return page(
        request,
        "compare.html.jinja",
        run=name,
        tab="Compare",
        sets=beside,
        last=last,
        plan=plan,
        made=made,
        raters=raters,
    )


@router.post("/runs/{name}/compare")
def choose(name: str, asked: NewPairs) -> dict:
    run = known(name)
    if asked.first == asked.second:
        raise BadInput(f"{asked.first}: stands twice; compare two models")
    file = tasks.folder_of(run) / f"plan.{PAIR}.json"
    if file.exists():
        raise BadInput(f"{file} is there already; move it away to choose anew: the verdicts stay")
    plan = PairPlan(asked.set, (asked.first, asked.second), asked.size)
    sides = dict(map(compared.answered, plan.sides))
    compared.set_of_all(sides, asked.set)
    pairs_of(run, plan)  # says what is wrong with them
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(plan), ensure_ascii=False) + "\n", 0o600)
    return {"to": address(f"/runs/{name}/compare")}


@router.get("/runs/{name}/compare/begin")
def begin(request: Request, name: str, reviewer: str = "") -> Response:
    reviews.check_reviewer(reviewer)
    return pair_page(request, name, reviewer, -1)


@router.get("/runs/{name}/compare/results")
def results(request: Request, name: str) -> Response:
    run, plan, made = planned(name)
    by_id = {pair.id: pair for pair in made}
    outcomes, whole, gone = [], False, 0
    for who in reviews.reviewers(tasks.folder_of(run)):
        given = given_by(run, who)
        whole |= all(pair.id in given for pair in made)
        gone += sum(item not in by_id for item in given)
        outcomes += [_outcome(by_id[item], who, one) for item, one in given.items()
                     if item in by_id and one.verdict in WON]  # fmt: skip
    judges = judged(run, plan, by_id) if whole else []
    tables: list[Table] = []
    if whole and (outcomes or judges):
        tables = pairs.report(outcomes + judges, len(made))
        if len({one.rater for one in outcomes + judges}) > 1:
            tables += pairs.agreement(outcomes + judges)
    return page(request, "compare_results.html.jinja", run=name, tab="Compare", plan=plan, tables=tables, whole=whole,
                gone=gone, judged=len(outcomes), made=made, judges=sorted({one.rater for one in judges}))  # fmt: skip


def _outcome(pair: Pair, who: str, given: Review) -> Outcome:
    """Returns the verdict as the first model's win, by whose reply stood left then."""
    won = WON[given.verdict]
    swapped = given.sides[0] == pair.systems[1]
    return Outcome(pair, who, None if swapped else won, 1 - won if swapped else None)


def judged(run: Run, plan: PairPlan, by_id: dict[str, Pair]) -> list[Outcome]:
    """Returns what judge models said of the same pairs (`python -m launch.eval rank`), [] where none was asked."""
    file = run.path / "eval" / f"ranking.{plan.set}" / "verdicts.jsonl"
    said: dict[tuple[str, str], dict[bool, list[float]]] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        row = orjson.loads(line)
        if row["pair"] in by_id and row["first_won"] is not None:
            said.setdefault((row["pair"], row["rater"]), {}).setdefault(row["swapped"], []).append(row["first_won"])
    mean = {key: {swapped: fmean(votes) for swapped, votes in of.items()} for key, of in said.items()}
    return [Outcome(by_id[p], rater, of.get(False), of.get(True), JUDGE) for (p, rater), of in mean.items()]


@router.get("/runs/{name}/compare/{reviewer}")
def pair_page(request: Request, name: str, reviewer: str, at: int = -1) -> Response:
    run, plan, made = planned(name)
    order, given = mine(made, reviews.check_reviewer(reviewer)), given_by(run, reviewer)
    if not 0 <= at < len(order):
        at = next((n for n, (pair, _) in enumerate(order) if pair.id not in given), len(order))
    done = sum(pair.id in given for pair in made)
    more = {"run": name, "tab": "Compare", "reviewer": reviewer, "of": len(order)}
    if at == len(order):
        return page(request, "compare_end.html.jinja", **more)
    pair, turned = order[at]
    replies = pair.replies[::-1] if turned else pair.replies
    crisis = crisis_flags("\n".join([*(text for _, text in pair.history), *replies]))
    return page(request, "compare_item.html.jinja", crisis=crisis, at=at, done=done, pair=pair, replies=replies,
                last=given.get(pair.id), guideline=guideline(run, PAIR, language_of(request)), **more)  # fmt: skip


@router.post("/runs/{name}/compare/{reviewer}")
def judge(name: str, reviewer: str, given: GivenPair) -> Response:
    run, _, made = planned(name)
    at = {pair.id: (pair, turned) for pair, turned in mine(made, reviews.check_reviewer(reviewer))}
    if given.item not in at:
        return JSONResponse({"error": "this pair is gone: its words have changed", "gone": True}, 409)
    pair, turned = at[given.item]
    last = given_by(run, reviewer).get(pair.id)
    if last and last.key == given.key:
        return JSONResponse({"saved": True, "new": False})
    if (last.key if last else "") != given.before:
        return JSONResponse({"error": "judged meanwhile in another tab; look at it first", "reload": True}, 409)
    if given.verdict not in reviews.BETTER:
        raise BadInput(f"verdict {given.verdict!r}: {', '.join(reviews.BETTER)}")
    sides = list(pair.systems[::-1] if turned else pair.systems)
    seconds = round(given.seconds, 1)
    review = Review(given.key, pair.id, PAIR, pair.id, given.verdict, given.reason, {}, seconds, "", sides)
    return JSONResponse({"saved": True, "new": reviews.append(tasks.folder_of(run), reviewer, review)})
