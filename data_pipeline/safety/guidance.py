"""What the steps of counselling dialogues share: languages, crisis and its guidance.

A post or dialogue in crisis is never lost and never goes unanswered: meta["crisis"] holds its flags, every reply to a
client turn that was flagged ends in guidance to help (the first reply, where only the post was flagged), and
files["crisis"] of each step lists it for people.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Post, Turn, note
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.helplines import HELPLINES, Helpline, check_helplines

GUIDANCE = {"zh": "crisis_guidance", "en": "crisis_guidance.en"}  # prompts


def _checked(given: object, info: ValidationInfo) -> tuple[Helpline, ...]:
    if given is None:
        return HELPLINES if info.data.get("language") == "zh" else ()
    try:
        return check_helplines("guidance", given)
    except BadInput as error:
        raise ValueError(str(error)) from None


# Help lines in a step's settings, behind its `language`. None: those of mainland China for Chinese, none for English,
# whose country is unknown. One without its source and date is refused.
Helplines = Annotated[tuple[Helpline, ...], BeforeValidator(_checked)]


def guidance(language: str, lines: tuple, alone: bool = False) -> str:
    """Returns the guidance to help that ends a reply, or with `alone` stands in its place."""
    return render(GUIDANCE[language], helplines=lines, alone=alone)


def note_guidance(record, step: str, language: str, lines: tuple) -> None:
    """Notes on the record's trail which guidance it was given, with the sources of its numbers."""
    note(record, step, guidance=prompt_hash(GUIDANCE[language]), helplines=[asdict(line) for line in lines])


def post_text(post: Post) -> str:
    """Returns title and text of the post, the title once."""
    title, text = post.title.strip(), post.text.strip()
    return text if title in text else f"{title}\n{text}".strip()


def add_flags(meta: dict, texts: Iterable[str]) -> dict:
    """Returns `meta` with the crisis flags of the texts joined to those it has."""
    flags = set(meta.get("crisis", ())).union(*map(crisis_flags, texts))
    return meta | ({"crisis": sorted(flags)} if flags else {})


def guided_turns(turns: list[Turn], crisis: bool) -> set[int]:
    """Returns which counselor turns, counted from 1, end in guidance."""
    clients = [turn.content for turn in turns if turn.role == "client"]
    return {n for n, text in enumerate(clients, 1) if crisis_flags(text)} or ({1} if crisis else set())


def crisis_entry(row, why: str = "") -> dict:
    """Returns the line of files["crisis"]; `why` says what went wrong and was answered by guidance alone, or not."""
    return {"id": row.id, "where": row.meta.get("where", row.id), "flags": row.meta["crisis"], "why": why}
