"""What protocols of whole sessions share: their items, what opens them, who rates them, what is told of a crisis."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.prompts import render_file
from data_pipeline.records import Dialogue, Turn
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Figures, Item, Judge, Scoring
from eval.figures import Cell
from eval.judging import transcripts
from eval.judging.judges import judge_scores
from eval.judging.profiles import AnyProfile, Profile, Sitting
from eval.judging.transcripts import CLIENT_FIGURES, Transcript
from eval.metrics import answer_part

CLIENT = Path(__file__).parent
shown = transcripts.shown


def taken(profiles: Sequence[AnyProfile], most: int | None) -> Sequence[AnyProfile]:
    """Returns the first `most` of them; raises BadInput for a number that cannot be."""
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise BadInput(f"options.most={most!r}: a whole number, 1 or more, or null for all")
    return profiles[:most]


def items(profiles: Sequence[Profile], cell: str, turns: int, sessions: int) -> list[Item]:
    """Returns the items of these clients; raises BadInput for a number of turns or sessions that cannot be.

    The record holds all of it, since an item's fingerprint is its record's.
    """
    for name, value in (("turns", turns), ("sessions", sessions)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(f"options.{name}={value!r}: a whole number, 1 or more")
    made = []
    for profile in profiles:
        content = {"turns": turns, "sessions": sessions, "profile": profile.model_dump()}
        said = [Turn("system", orjson.dumps(content).decode()), Turn("client", profile.opening)]
        facts = {"sitting": Sitting(profile, turns, sessions), "profile": profile.model_dump(),
                 "crisis": any(map(crisis_flags, profile.texts))}  # fmt: skip
        made.append(Item(Dialogue(profile.id, "clients", said), cell, facts=facts))
    return made


def notes(loaded: Sequence[Item], there: int) -> list[str]:
    """Returns what a reader has to know: how many clients are taken, and of a crisis the guidance to help."""
    told = [f"the first {len(loaded)} of {there} clients (options.most)"] if len(loaded) < there else []
    told.append(
        "clients are models that play a profile: what they say is nobody's words, and no figure is a clinical one"
    )
    risky = [item for item in loaded if item.facts["crisis"]]
    if risky:
        ids = ", ".join(item.id for item in risky[:5]) + (", ..." if len(risky) > 5 else "")
        told.append(f"{len(risky)} of {len(loaded)} profiles speak of a crisis ({ids}): read these sessions with care")
        told += [f"for whoever reads this: {guide(code)}" for code in dict.fromkeys(language(item) for item in risky)]
    return told


def guide(code: str) -> str:
    """Returns the guidance to help, on one line."""
    return " ".join(guidance(code, HELPLINES if code == "zh" else (), alone=False).split())


def language(item: Item) -> str:
    return sitting(item).profile.language


def sitting(item: Item) -> Sitting:
    return item.facts["sitting"]


def opening(item: Item, folder: Path) -> list[dict]:
    """Returns what opens a session: the system prompt that stands in `folder`, and the client's first words."""
    system = render_file(folder / f"ask.{language(item)}.jinja")
    return [{"role": "system", "content": system}, {"role": "user", "content": sitting(item).profile.opening}]


def judge(item: Item, of_counselor: rubric.Rubric) -> list[Judge]:
    of_client = rubric.read_rubric(CLIENT / f"client.{language(item)}.yaml")
    return [*rubric.session_calls(of_counselor, "counselor"), *rubric.session_calls(of_client, "client")]


def scores(one: Answered, of_counselor: rubric.Rubric) -> list[dict[str, float | None]]:
    """Returns the judges' scores of the sessions, and what is counted of the client. Where the model said nothing the
    counsellor's are the bad end, and the client is not judged.
    """
    of_client = rubric.read_rubric(CLIENT / f"client.{language(one.item)}.yaml")
    made = rubric.scores(of_counselor, one)
    for row, judged, response in zip(made, judge_scores(one, of_client.names), one.responses, strict=True):
        text = answer_part(response)
        row |= judged if text else dict.fromkeys(of_client.names)
        row |= transcripts.figures(Transcript.loads(text)) if text else dict.fromkeys(CLIENT_FIGURES)
    return made


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns how the sessions ended, and in how many the client spoke of a crisis."""
    ended, crisis, unreadable = Counter(), 0, 0
    for one in answered:
        for response in one.responses:
            if text := answer_part(response):
                transcript = Transcript.loads(text)
                ended.update(transcript.ended)
                unreadable += transcript.unreadable
                crisis += any(map(crisis_flags, transcript.said_by("client")))
    told = [f"sessions ended by: {', '.join(f'{how} {n}' for how, n in ended.items())}"] if ended else []
    if unreadable:
        told.append(
            f"{unreadable} replies of the client's model on what it was asked cannot be read; it told nothing then"
        )
    if crisis:
        told.append(f"in {crisis} responses the client speaks of a crisis")
    return Figures({"ended": dict(ended), "crisis_responses": crisis}, {}, told)
