"""People look at a sample of the records: the "Human Reviewer" of Psyche-R1's figure 2, and of dialogues and posts too.

How many questions people saw there, and by which rule, is unpublished: sample, rule and defaults are ours.

`sample` draws a stratified sample, `write_sample` writes it as sample.csv, for Excel and WPS, and as sample.jsonl. One
object of the latter, the file of the review page:

    {"id", "content", "subject", "kind", "context", "stem", "options": [texts by position], "answer", "rationale",
     "verdict": "", "corrected_answer": "", "comment": "", "reviewer": ""}

Reviewers fill the last four in a copy of their own (`verdict`: accepted, corrected or rejected; 接受, 修改, 拒绝) and
the recipe names these files, `verdicts: [li.csv, wang.jsonl]`. A verdict (for "corrected" with its answer) stands when
more than half of those who judged the question gave it; the adjudicator's, where there is one, stands in any case. A
question without either is undecided: left out as "reviewers disagree", or kept with `undecided: keep`.

On the pages (`python -m launch.web run=NAME`) they judge one record at a time; `verdicts` names those files as well,
runs/NAME/reviews/REVIEWER.jsonl (data_pipeline/reviews.py), whatever records they are of. A verdict on a rationale
alone leaves the question as it is: a rejected or undecided rationale goes, a corrected one takes its place.

`content` is a hash of what the reviewer sees of the question. A verdict holds for that content and no other: where the
question has changed since, or is gone, the verdict is told with its file and row, and not applied.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Post, Question, Reject, note
from data_pipeline.reviews import with_edits
from data_pipeline.steps import SetOutcome, Step, StepSettings, tidy
from data_pipeline.verdicts import Judged, Record, Verdict, kind_of, read_verdicts, sample_rows, stem_of, write_sheets

NAME = "review"


class Settings(StepSettings):
    size: int = Field(default=200, ge=1)  # questions in the sample; ours
    seed: int = 42  # of the sample; ours
    verdicts: list[str] = []  # the sheets that reviewers filled in; none: the sample waits for people
    adjudicator: str = ""  # reviewer whose verdict stands where given, and who does not count for agreement
    # what becomes of a question that reviewers disagree on; ours, the safe side
    undecided: Literal["reject", "keep"] = "reject"


def run(rows: Sequence[Record], settings: Settings) -> SetOutcome:
    """Returns nothing changed while there are no verdict files, else what `apply` returns; `files["sample"]` is the
    sample as JSONL rows, for `write_sample`. The report says how many were reviewed by people.

    Raises BadInput as `read_verdicts` does.
    """
    drawn = [rows[place] for place in sample(rows, settings.size, settings.seed)]
    table = sample_rows(drawn)
    strata = {" / ".join(s): n for s, n in sorted(Counter(map(_stratum, drawn)).items())}
    if settings.verdicts:
        judged = read_verdicts(settings.verdicts, rows)
        reviewers = sorted({verdict.reviewer for verdict in judged.verdicts})
        if settings.adjudicator and settings.adjudicator not in reviewers and not judged.outdated:
            of = f"the files are of {', '.join(reviewers)}"
            raise BadInput(f"{NAME}: adjudicator={settings.adjudicator!r} has judged nothing; {of}")
        outcome = apply(rows, judged, settings)
        ids = {verdict.id for verdict in judged.verdicts}
        outcome.report["unjudged"] = sum(row["id"] not in ids for row in table)
    else:
        outcome = SetOutcome(report={"in": len(rows), "out": len(rows), "reviewed": 0})
    if not outcome.report["reviewed"]:
        outcome.report["told"] = (
            "not reviewed by people: judge on the pages (python -m launch.web), or fill sample.csv or "
            "sample.jsonl, and name the files as verdicts"
        )
    outcome.report |= {"sample": len(table), "strata": strata}
    outcome.files = {**outcome.files, "sample": table}
    return outcome


def _stratum(record: Record) -> tuple[str, str, str]:
    trail = record.meta.get("trail")
    if not isinstance(record, Question):
        return "crisis" if record.meta.get("crisis") else "", kind_of(record), record.source
    return record.subject, record.kind, trail[0]["step"] if trail else record.source


def sample(questions: Iterable[Record], size: int, seed: int) -> list[int]:
    """Returns the places of at most `size` questions in their order: of each stratum (subject, kind, step that made the
    question) one, as far as `size` goes, and of the rest the same share of every stratum. The seed decides which.
    """
    strata = defaultdict(list)
    for place, question in enumerate(questions):
        strata[_stratum(question)].append(place)
    ranked = []
    for stratum, places in sorted(strata.items()):
        rng = random.Random(f"{seed} {stratum}")
        rng.shuffle(places)
        start = rng.random()
        ranked += [(k > 0, (k + start) / len(places), place) for k, place in enumerate(places)]
    return sorted(place for _, _, place in sorted(ranked)[:size])


def agreement(verdicts: Iterable[Verdict], adjudicator: str = "") -> dict:
    """Returns {"reviewers", "measure", "kappa", "agreed", "questions"}: Cohen's kappa (1960) of two reviewers, Fleiss'
    (1971) of more, on the questions that two or more of them judged; `agreed` is the share of pairs of verdicts that
    are equal. Where questions have different numbers of verdicts, each question counts the same. `kappa` is None
    without such questions, and where all verdicts are one (chance alone explains that).
    """
    by_question: dict[tuple[str, bool], dict[str, str]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.reviewer != adjudicator:
            by_question[verdict.id, verdict.of_rationale][verdict.reviewer] = verdict.verdict
    reviewers = sorted({reviewer for judged in by_question.values() for reviewer in judged})
    common = [judged for judged in by_question.values() if len(judged) > 1]
    measured = {"reviewers": reviewers, "measure": "Cohen" if len(reviewers) == 2 else "Fleiss", "kappa": None,
                "agreed": None, "questions": len(common)}  # fmt: skip
    if not common:
        return measured
    agreed, kappa = kappa_of(common, reviewers)
    measured["agreed"], measured["kappa"] = round(agreed, 4), None if kappa is None else round(kappa, 4)
    return measured


def kappa_of(common: Sequence[Mapping[str, str]], reviewers: Sequence[str]) -> tuple[float, float | None]:
    """Returns (share of pairs of verdicts that are equal, kappa) of [{reviewer: verdict}], as `agreement` says."""
    counts = [Counter(judged.values()) for judged in common]
    equal = [sum(n * (n - 1) for n in c.values()) / (c.total() * (c.total() - 1)) for c in counts]
    agreed = sum(equal) / len(common)
    if len(reviewers) == 2:  # each reviewer's own shares; Fleiss takes those of all together
        shares = [Counter(judged[reviewer] for judged in common) for reviewer in reviewers]
        chance = sum(shares[0][word] * shares[1][word] for word in shares[0]) / len(common) ** 2
    else:
        every = sum(counts, Counter())
        chance = sum((n / every.total()) ** 2 for n in every.values())
    return agreed, None if chance == 1 else (agreed - chance) / (1 - chance)


def agreement_told(measured: dict) -> str:
    """Returns what `agreement` measured, in words."""
    reviewers, questions = len(measured["reviewers"]), measured["questions"]
    if not questions:
        return f"no question was judged by two reviewers ({reviewers} in all): no agreement to measure"
    kappa = "undefined, since all verdicts are one" if measured["kappa"] is None else f"{measured['kappa']:.2f}"
    return (
        f"{measured['measure']}'s kappa {kappa}, {measured['agreed']:.0%} of pairs of verdicts equal, on {questions} "
        f"questions that two or more of {reviewers} reviewers judged"
    )


def apply(questions: Sequence[Record], judged: Judged, settings: Settings) -> SetOutcome:
    """Returns what people decided (rule in the module docstring), the reviewers and old values in the questions' trail;
    rejected ones are rejects. A corrected question loses its rationale, which explains the old answer.

    The report has counts and `agreement`; `files`: "verdicts", all of them, "disagreements" and "outdated".
    """
    by_question: dict[tuple[str, bool], list[Verdict]] = defaultdict(list)
    for verdict in judged.verdicts:
        by_question[verdict.id, verdict.of_rationale].append(verdict)
    rejects, changed, counts, disagreements = {}, [], Counter(), []
    for place, question in enumerate(questions):
        given, of_rationale = by_question.get((question.id, False)), by_question.get((question.id, True))
        if of_rationale:
            outcome, by = _decide(of_rationale, settings)
            counts[f"rationale {outcome}"] += 1
            disagreements += _disagreement(question, of_rationale, outcome, by)
            question = _with_rationale(question, outcome, by, [v.reviewer for v in of_rationale])
            if not given:
                changed.append((place, question))
        if not given:
            continue
        outcome, by = _decide(given, settings)
        counts[outcome] += 1
        disagreements += _disagreement(question, given, outcome, by)
        if outcome == "rejected" or (outcome == "undecided" and settings.undecided == "reject"):
            code = "rejected by people" if outcome == "rejected" else "reviewers disagree"
            said = "; ".join(f"{v.reviewer}: {v.comment or v.verdict}" for v in given)
            rejects[place] = Reject(question.id, question.meta.get("where", question.id), code, said)
        else:
            changed.append((place, _decided(question, outcome, by, [v.reviewer for v in given])))
    total = len(questions)
    report = {"in": total, "out": total - len(rejects), "rejected": len(rejects),
              "reviewed": len({id for id, _ in by_question}),
              "outcomes": dict(sorted(counts.items())),
              "agreement": agreement(judged.verdicts, settings.adjudicator)}  # fmt: skip
    report["told"], told = agreement_told(report["agreement"]), ""
    if judged.outdated:
        rows = "".join(f"\n  {one.where}: {one.id}: {one.why}" for one in judged.outdated)
        told = f"{NAME}: {len(judged.outdated)} verdicts do not hold any more and are not applied:{rows}"
    files = {
        "verdicts": [asdict(v) for v in judged.verdicts],
        "disagreements": disagreements,
        "outdated": [asdict(one) for one in judged.outdated],
    }
    return SetOutcome(rejects, changed=changed, report=report, files=files, told=told)


def _disagreement(record: Record, given: list[Verdict], outcome: str, by: Verdict | None) -> list[dict]:
    """Returns a row on a record of which not all reviewers say the same, [] where they do."""
    if len({_said(v) for v in given}) == 1:
        return []
    told = {v.reviewer: f"{v.verdict} {v.corrected_answer}".strip() for v in given}
    comments = {v.reviewer: v.comment for v in given if v.comment}
    answer = getattr(record, "answer", "")
    return [{"id": record.id, "stem": stem_of(record), "answer": answer, "verdicts": told, "comments": comments,
             "outcome": f"{outcome} {by.corrected_answer if by else ''}".strip()}]  # fmt: skip


def _decided(record: Record, outcome: str, by: Verdict | None, reviewers: list[str]) -> Record:
    """Returns the record with a correction, if it is one, and what people said of it in its trail."""
    record = tidy(record)
    facts = {"verdict": outcome, "reviewers": reviewers}
    if outcome == "corrected" and by and isinstance(record, Question) and by.corrected_answer:
        name = "reference" if record.kind == "open" else "answer"
        facts |= {"field": name, "old": getattr(record, name), "new": by.corrected_answer}
        if record.rationale and "rationale" not in by.edits:
            facts["old_rationale"], record.rationale = record.rationale, ""
        setattr(record, name, by.corrected_answer)
    if outcome == "corrected" and by and by.edits:
        facts["edited"] = sorted(by.edits)
        with_edits(record, by.edits)
    note(record, NAME, **facts)
    return record


def _with_rationale(record: Record, outcome: str, by: Verdict | None, reviewers: list[str]) -> Record:
    """Returns the question with the rationale that people left of it."""
    if not isinstance(record, Question):
        return record
    record = tidy(record)
    facts = {"verdict": f"rationale {outcome}", "reviewers": reviewers}
    if outcome == "corrected" and by:
        facts["old_rationale"], record.rationale = record.rationale, by.edits.get("rationale", record.rationale)
    elif outcome != "accepted":
        facts["old_rationale"], record.rationale = record.rationale, ""
    note(record, NAME, **facts)
    return record


def _said(verdict: Verdict) -> tuple:
    return verdict.verdict, verdict.corrected_answer, tuple(sorted(verdict.edits.items()))


def _decide(judged: list[Verdict], settings: Settings) -> tuple[str, Verdict | None]:
    """Returns (verdict or "undecided", one of the verdicts that say so)."""
    for verdict in judged:
        if settings.adjudicator and verdict.reviewer == settings.adjudicator:
            return verdict.verdict, verdict
    decision, number = Counter(map(_said, judged)).most_common(1)[0]
    by = next(verdict for verdict in judged if _said(verdict) == decision)
    return (by.verdict, by) if 2 * number > len(judged) else ("undecided", None)


STEP = Step(takes=(Question, Dialogue, Post), settings=Settings, rows=run, sheets=write_sheets, people="verdicts")
