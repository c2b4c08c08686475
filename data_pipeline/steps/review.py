"""People look at a sample of the questions: the "Human Reviewer" of Psyche-R1's figure 2.

How many questions people saw there, and by which rule, is unpublished: sample, rule and defaults are ours.

`sample` draws a stratified sample, `write_sample` writes it as sample.csv, for Excel and WPS, and as sample.jsonl. One
object of the latter, the file of the review page:

    {"id", "content", "subject", "kind", "context", "stem", "options": [texts by position], "answer", "rationale",
     "verdict": "", "corrected_answer": "", "comment": "", "reviewer": ""}

Reviewers fill the last four in a copy of their own (`verdict`: accepted, corrected or rejected; 接受, 修改, 拒绝) and
the recipe names these files, `verdicts: [li.csv, wang.jsonl]`. A verdict (for "corrected" with its answer) stands when
more than half of those who judged the question gave it; the adjudicator's, where there is one, stands in any case. A
question without either is undecided: left out as "reviewers disagree", or kept with `undecided: keep`.

`content` is a hash of what the reviewer sees of the question. A verdict holds for that content and no other: where the
question has changed since, or is gone, the verdict is told with its file and row, and not applied.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Reject, note
from data_pipeline.steps import SetOutcome, Step, StepSettings, tidy
from data_pipeline.verdicts import Judged, Verdict, read_verdicts, sample_rows, write_sheets

NAME = "review"


class Settings(StepSettings):
    size: int = Field(default=200, ge=1)  # questions in the sample; ours
    seed: int = 42  # of the sample; ours
    verdicts: list[str] = []  # the sheets that reviewers filled in; none: the sample waits for people
    adjudicator: str = ""  # reviewer whose verdict stands where given, and who does not count for agreement
    # what becomes of a question that reviewers disagree on; ours, the safe side
    undecided: Literal["reject", "keep"] = "reject"


def run(rows: Sequence[Question], settings: Settings) -> SetOutcome:
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
            "not reviewed by people: fill sample.csv or sample.jsonl and name the files as verdicts"
        )
    outcome.report |= {"sample": len(table), "strata": strata}
    outcome.files = {**outcome.files, "sample": table}
    return outcome


def _stratum(question: Question) -> tuple[str, str, str]:
    trail = question.meta.get("trail")
    return question.subject, question.kind, trail[0]["step"] if trail else question.source


def sample(questions: Iterable[Question], size: int, seed: int) -> list[int]:
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
    by_question: dict[str, dict[str, str]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.reviewer != adjudicator:
            by_question[verdict.id][verdict.reviewer] = verdict.verdict
    reviewers = sorted({reviewer for judged in by_question.values() for reviewer in judged})
    common = [judged for judged in by_question.values() if len(judged) > 1]
    measured = {"reviewers": reviewers, "measure": "Cohen" if len(reviewers) == 2 else "Fleiss", "kappa": None,
                "agreed": None, "questions": len(common)}  # fmt: skip
    if not common:
        return measured
    counts = [Counter(judged.values()) for judged in common]
    equal = [sum(n * (n - 1) for n in c.values()) / (c.total() * (c.total() - 1)) for c in counts]
    agreed = sum(equal) / len(common)
    if len(reviewers) == 2:  # each reviewer's own shares; Fleiss takes those of all together
        shares = [Counter(judged[reviewer] for judged in common) for reviewer in reviewers]
        chance = sum(shares[0][word] * shares[1][word] for word in shares[0]) / len(common) ** 2
    else:
        every = sum(counts, Counter())
        chance = sum((n / every.total()) ** 2 for n in every.values())
    measured["agreed"] = round(agreed, 4)
    measured["kappa"] = None if chance == 1 else round((agreed - chance) / (1 - chance), 4)
    return measured


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


def apply(questions: Sequence[Question], judged: Judged, settings: Settings) -> SetOutcome:
    """Returns what people decided (rule in the module docstring), the reviewers and old values in the questions' trail;
    rejected ones are rejects. A corrected question loses its rationale, which explains the old answer.

    The report has counts and `agreement`; `files`: "verdicts", all of them, "disagreements" and "outdated".
    """
    by_question: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in judged.verdicts:
        by_question[verdict.id].append(verdict)
    rejects, changed, counts, disagreements = {}, [], Counter(), []
    for place, question in enumerate(questions):
        given = by_question.get(question.id)
        if not given:
            continue
        outcome, answer = _decide(given, settings)
        counts[outcome] += 1
        if len({(v.verdict, v.corrected_answer) for v in given}) > 1:
            told = {v.reviewer: f"{v.verdict} {v.corrected_answer}".strip() for v in given}
            comments = {v.reviewer: v.comment for v in given if v.comment}
            disagreements.append({"id": question.id, "stem": question.stem, "answer": question.answer, "verdicts": told,
                                  "comments": comments, "outcome": f"{outcome} {answer}".strip()})  # fmt: skip
        if outcome == "rejected" or (outcome == "undecided" and settings.undecided == "reject"):
            code = "rejected by people" if outcome == "rejected" else "reviewers disagree"
            said = "; ".join(f"{v.reviewer}: {v.comment or v.verdict}" for v in given)
            rejects[place] = Reject(question.id, question.meta.get("where", question.id), code, said)
        else:
            changed.append((place, _decided(question, outcome, answer, [v.reviewer for v in given])))
    total = len(questions)
    report = {"in": total, "out": total - len(rejects), "rejected": len(rejects), "reviewed": len(by_question),
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


def _decided(question: Question, outcome: str, answer: str, reviewers: list[str]) -> Question:
    """Returns the question with a correction, if it is one, and what people said of it in its trail."""
    question = tidy(question)
    facts = {"verdict": outcome, "reviewers": reviewers}
    if outcome == "corrected":
        name = "reference" if question.kind == "open" else "answer"
        facts |= {"field": name, "old": getattr(question, name), "new": answer}
        setattr(question, name, answer)
        if question.rationale:
            facts["old_rationale"], question.rationale = question.rationale, ""
    note(question, NAME, **facts)
    return question


def _decide(judged: list[Verdict], settings: Settings) -> tuple[str, str]:
    """Returns (verdict or "undecided", corrected answer)."""
    for verdict in judged:
        if settings.adjudicator and verdict.reviewer == settings.adjudicator:
            return verdict.verdict, verdict.corrected_answer
    decision, number = Counter((v.verdict, v.corrected_answer) for v in judged).most_common(1)[0]
    return decision if 2 * number > len(judged) else ("undecided", "")


STEP = Step(takes=(Question,), settings=Settings, rows=run, sheets=write_sheets, people="verdicts")
