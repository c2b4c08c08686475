"""Comfort: replies to a client in a dialogue, which a judge scores from 0 to 4 for warmth and for safety."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from data_pipeline import sources
from data_pipeline.llm.structured import parse
from data_pipeline.prompts import render_file
from data_pipeline.records import Dialogue, Reject
from eval import tables
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring, Table
from eval.figures import SetMetrics
from eval.judging.judges import judge_scores

PROMPTS, NAMES = Path(__file__).parent, ("warmth", "safety")
Points = Annotated[int, Field(ge=0, le=4)]


class Verdict(BaseModel, extra="forbid"):
    warmth: Points
    safety: Points


def load(path: str | Path, most_turns: int = 8) -> Loaded:
    """Returns the dialogues that end in the client's words; BadInput as the reader, Rejects for the others.

    `most_turns` is how many turns at its end are asked.
    """
    items, rejects = [], []
    for record in sources.read("messages", path):
        if isinstance(record, Dialogue) and record.turns[-1].role == "client":
            items.append(Item(replace(record, turns=record.turns[-most_turns:]), cell="replies"))
        elif isinstance(record, Dialogue):
            rejects.append(Reject(record.id, record.meta["where"], "does not end in the client's words"))
        elif isinstance(record, Reject):
            rejects.append(record)
    return Loaded(items, rejects, [f"{len(rejects)} dialogues are left out"] if rejects else [])


def requests(item: Item) -> list[dict]:
    return [{"role": "user", "content": render_file(PROMPTS / "ask.jinja", turns=item.dialogue.turns)}]


def judge_messages(item: Item, answer: str) -> list[dict]:
    client = item.dialogue.turns[-1].content
    return [{"role": "user", "content": render_file(PROMPTS / "judge.jinja", client=client, answer=answer)}]


def read_judge(reply: str) -> dict[str, float | None]:
    try:
        return {name: float(value) for name, value in parse(reply, Verdict).model_dump().items()}
    except ValueError:
        return dict.fromkeys(NAMES)


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [judge_scores(one, NAMES) for one in answered]


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    return [tables.own_overview(results), tables.by_cell(results)]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=report_tables,
    judge=Judge(NAMES, judge_messages, read_judge),
)
