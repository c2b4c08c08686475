"""Cleaning of posts, replies, book passages and dialogue turns (Psyche-R1, figure 2: clean).

What is taken out of a text, masked and written alike is said in `safety/cleaning.py`. Crisis content is flagged in
`meta["crisis"]` for people; a row that bears a flag is never rejected. Every removed span is a row of
`files["removed"]`, with its place in the text as it came in; of contact data the shape alone is kept there (1••-••••),
since the file is for reading.
"""

from collections import Counter
from dataclasses import replace
from itertools import islice

from pydantic import Field

from data_pipeline.records import Dialogue, Fault, Passage, Post, Reject, note
from data_pipeline.safety.cleaning import Cleaned, Removed, clean_many
from data_pipeline.steps import Outcome, Step, StepSettings, counts_under

SILENCE = "……"  # stands for a turn of a dialogue of which nothing is left: who speaks when must hold
EXCERPT = 80


class Settings(StepSettings):
    """All ours: the paper names no limits. Lengths are in characters (letters, digits), after cleaning."""

    min_post: int = Field(default=10, ge=0)  # characters; ours: a shorter post says too little to be answered
    min_reply: int = Field(default=5, ge=0)  # characters; ours: a shorter reply is taken off its post and reported
    min_passage: int = Field(default=50, ge=0)  # characters; ours: a shorter passage holds no question
    min_dialogue: int = Field(default=20, ge=0)  # characters of all turns together; ours


def row(record: Post | Passage | Dialogue, settings: Settings) -> Outcome:
    """Returns the cleaned record, or a reject when too little of it is left; one with crisis content is never rejected.

    `files["removed"]` has what was taken out, `files["crisis"]` the flagged records for people.
    """
    return many([record], settings)[0]


def many(records: list[Post | Passage | Dialogue], settings: Settings) -> list[Outcome]:
    """Returns as `row` of each."""
    given = [_texts(record) for record in records]
    cleaned = iter(clean_many([text for texts in given for text in texts]))
    return [
        _outcome(one, texts, list(islice(cleaned, len(texts))), settings)
        for one, texts in zip(records, given, strict=True)
    ]


def _outcome(
    record: Post | Passage | Dialogue, given: list[str], cleaned: list[Cleaned], settings: Settings
) -> Outcome:
    outcome = Outcome()
    outcome.counts["in"] = 1
    new, parts, fault = _CLEAN[type(record)](record, cleaned, settings)
    if any([cleaned.removed or cleaned.crisis for _, cleaned in parts]):
        fault = _account(record, new, parts, fault, outcome)
    if fault:
        outcome.rejects.append(Reject(record.id, record.meta.get("where", ""), *fault))
    else:
        outcome.counts["out"], outcome.counts["changed"] = 1, int(_texts(new) != given)
        outcome.rows.append(new)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns the rows in, out, rejected and changed, removed spans by kind and rule, and rows by crisis flag."""
    return {
        "in": counts["in"],
        "out": counts["out"],
        "rejected": counts["in"] - counts["out"],
        "changed": counts["changed"],
        "removed": dict(counts_under(counts, "span").most_common()),
        "crisis": dict(counts_under(counts, "flag").most_common()),
    }


def _account(record, new, parts: list, fault: Fault | None, outcome: Outcome) -> Fault | None:
    """Enters what was removed and flagged into outcome and new record; returns `fault`, None for a flagged record."""
    where = record.meta.get("where", "")
    for part, cleaned in parts:
        for span in cleaned.removed:
            outcome.counts["span", f"{span.kind}: {span.rule}"] += 1
            facts = {"start": span.start, "end": span.end, "text": span.text, "put": span.put}
            facts = {"part": part, "kind": span.kind, "rule": span.rule} | facts
            outcome.files.setdefault("removed", []).append({"id": record.id, "where": where} | facts)
    if rules := Counter(span.rule for _, cleaned in parts for span in cleaned.removed):
        new.meta["trail"] = list(record.meta.get("trail", ()))
        note(new, "clean", removed=dict(rules))
    for key, answers in (("crisis", False), ("crisis_replies", True)):
        flagged = [c for part, c in parts if c.crisis and _answer(part) == answers]
        if flagged:
            new.meta[key] = sorted(set(record.meta.get(key, ())).union(*[c.crisis for c in flagged]))
            if key == "crisis":
                outcome.counts.update(("flag", flag) for flag in new.meta[key])
            facts = {"id": record.id, "where": where, "in": key, "flags": new.meta[key]}
            outcome.files.setdefault("crisis", []).append(facts | {"excerpt": flagged[0].text[:EXCERPT]})
            fault = None
    return fault


def _answer(part: str) -> bool:
    return part.startswith(("reply", "counselor"))


def _texts(row: Post | Passage | Dialogue) -> list[str]:
    if isinstance(row, Post):
        return [row.title, row.text, *row.replies]
    return [row.text] if isinstance(row, Passage) else [turn.content for turn in row.turns]


def _post(row: Post, cleaned: list[Cleaned], settings: Settings) -> tuple[Post, list, Fault | None]:
    title, text, *answers = cleaned
    parts, replies = [("title", title), ("text", text)], []
    for number, (reply, answer) in enumerate(zip(row.replies, answers, strict=True), 1):
        parts.append((f"reply {number}", answer))
        if answer.crisis or _letters(answer.text, settings.min_reply) >= settings.min_reply:
            replies.append(answer.text)
        else:
            answer.removed.append(Removed(0, len(reply), "short", "short_reply", answer.text))
    new = Post(row.id, row.source, title.text, text.text, replies, dict(row.meta))
    return new, parts, _too_little(new.title + new.text, settings, "min_post")


def _passage(row: Passage, cleaned: list[Cleaned], settings: Settings) -> tuple[Passage, list, Fault | None]:
    new = Passage(row.id, row.source, row.subject, cleaned[0].text, dict(row.meta))
    return new, [("text", cleaned[0])], _too_little(new.text, settings, "min_passage")


def _dialogue(row: Dialogue, cleaned: list[Cleaned], settings: Settings) -> tuple[Dialogue, list, Fault | None]:
    parts = [(f"{turn.role} {number}", c) for number, (turn, c) in enumerate(zip(row.turns, cleaned, strict=True), 1)]
    turns = [replace(t, content=c.text or SILENCE) for t, (_, c) in zip(row.turns, parts, strict=True)]
    new = Dialogue(row.id, row.source, turns, dict(row.meta))
    return new, parts, _too_little("".join(c.text for _, c in parts), settings, "min_dialogue")


def _letters(text: str, limit: int) -> int:
    """Returns the number of letters and digits of `text`, or `limit` where it surely has more."""
    return limit if len(text) > 4 * limit + 20 else sum(map(str.isalnum, text))


def _too_little(text: str, settings: Settings, key: str) -> Fault | None:
    limit = getattr(settings, key)
    left = _letters(text, limit)
    return None if left >= limit else Fault("too little left", f"{left} characters, fewer than {key}={limit}")


_CLEAN = {Post: _post, Passage: _passage, Dialogue: _dialogue}
STEP = Step(
    takes=(Post, Passage, Dialogue), settings=Settings, row=row, many=many, report=report, files=("removed", "crisis")
)
