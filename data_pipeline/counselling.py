"""What the steps of counselling dialogues share: languages, crisis and its guidance, histories, asking once more.

A post or dialogue in crisis is never lost and never goes unanswered: meta["crisis"] holds its flags, every reply to a
client turn that was flagged ends in guidance to help (the first reply, where only the post was flagged), and
files["crisis"] of each step lists it for people.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

from data_pipeline.crisis import crisis_flags
from data_pipeline.helplines import HELPLINES, Helpline, check_helplines
from data_pipeline.llm import Request
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import BadInput, Post, Turn
from data_pipeline.steps import Ask, note
from data_pipeline.structured import Failure, Shape, ask_json

LANGUAGES = ("zh", "en")
GUIDANCE = {"zh": "crisis_guidance", "en": "crisis_guidance.en"}  # prompts


def check_language(step: str, language: object) -> None:
    """Raises BadInput for a language without prompts."""
    if language not in LANGUAGES:
        raise BadInput(f"{step}: language={language!r}; there is {' and '.join(LANGUAGES)}")


def helplines(step: str, given: list | tuple | None, language: str) -> tuple[Helpline, ...]:
    """Returns the checked help lines; None: those of mainland China for Chinese, none for English (the country is
    unknown). Raises BadInput for one without its source and date.
    """
    if given is None:
        return HELPLINES if language == "zh" else ()
    return check_helplines(step, given)


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


def ask_again(
    ask: Ask, requests: list[Request], shape: type[Shape], fault: Callable[[int, Shape], str] = lambda place, reply: ""
) -> tuple[list[Shape | Failure], list[int], dict]:
    """Returns as `ask_json`, and the sample of each result between: what is unreadable, or of which `fault(place,
    object)` gives a reason, is asked once more as sample 1 (ours). Failed calls are not: the client has tried them.
    """
    results, samples = [], [0] * len(requests)
    found, counts = ask_json(ask, requests, shape)
    for place, result in enumerate(found):
        results.append(_faulty(result, place, fault))
    again = [place for place, result in enumerate(results) if isinstance(result, Failure) and result.text]
    if again:
        found, more = ask_json(ask, [once_more(requests[place]) for place in again], shape)
        for place, result in zip(again, found, strict=True):
            results[place], samples[place] = _faulty(result, place, fault), 1
        counts = {name: counts[name] + more[name] for name in counts} | {"again": len(again)}
    return results, samples, counts | {"failed": sum(isinstance(result, Failure) for result in results)}


def _faulty(result: Shape | Failure, place: int, fault: Callable) -> Shape | Failure:
    if isinstance(result, Failure) or not (why := fault(place, result)):
        return result
    return Failure(why, result.model_dump_json())


def once_more(request: Request) -> Request:
    """Returns the request as sample 1; one at temperature 0, whose answer would be the same, at 1."""
    params = request.params
    return replace(request, sample=1, params=params | ({"temperature": 1.0} if params.get("temperature") == 0 else {}))
