"""People look at a sample of the questions: the "Human Reviewer" of Psyche-R1's figure 2.

How many questions people saw there, and by which rule, is unpublished: sample, rule and defaults are ours.

`sample` draws a stratified sample, `write_sample` writes it as sample.csv, for Excel and WPS, and as sample.jsonl. One
object of the latter, the file of the review page:

    {"id", "subject", "kind", "context", "stem", "options": [texts by position], "answer", "rationale",
     "verdict": "", "corrected_answer": "", "comment": "", "reviewer": ""}

Reviewers fill the last four in a copy of their own (`verdict`: accepted, corrected or rejected; 接受, 修改, 拒绝) and
the recipe names these files, `verdicts: [li.csv, wang.jsonl]`. A verdict (for "corrected" with its answer) stands when
more than half of those who judged the question gave it; the adjudicator's, where there is one, stands in any case. A
question without either is undecided: left out as "reviewers disagree", or kept with `undecided: keep`.
"""

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Fault, Question, Reject, check_question, note, read_jsonl, write_jsonl
from data_pipeline.steps import Result, Step, StepSettings, tidy

NAME = "review"
FIRST = ("id", "subject", "kind", "context", "stem")
FILLED = ("verdict", "corrected_answer", "comment", "reviewer")
WORDS = {"accepted": "accepted", "接受": "accepted", "corrected": "corrected", "修改": "corrected",
         "rejected": "rejected", "拒绝": "rejected"}  # fmt: skip
SAME_STEM = 80  # percent of a row's stem that must be its question's: a sheet sorted by one column mixes up the rows


class Settings(StepSettings):
    size: int = Field(default=200, ge=1)  # questions in the sample; ours
    seed: int = 42  # of the sample; ours
    verdicts: list[str] = []  # the sheets that reviewers filled in; none: the sample waits for people
    adjudicator: str = ""  # reviewer whose verdict stands where given, and who does not count for agreement
    # what becomes of a question that reviewers disagree on; ours, the safe side
    undecided: Literal["reject", "keep"] = "reject"


@dataclass(slots=True)
class Verdict:
    id: str  # of the question
    reviewer: str
    verdict: str  # "accepted" | "corrected" | "rejected"
    corrected_answer: str  # sorted letters; the new model answer of an open question; "" unless corrected
    comment: str
    where: str  # file and row


def run(rows: Sequence[Question], settings: Settings) -> Result:
    """Returns all questions while there are no verdict files, else what `apply` returns; `files["sample"]` is the
    sample as JSONL rows, for `write_sample`. The report says how many were reviewed by people.

    Raises BadInput as `read_verdicts` does.
    """
    drawn = sample(rows, settings.size, settings.seed)
    table = sample_rows(drawn)  # before corrections change the questions
    strata = {" / ".join(s): n for s, n in sorted(Counter(map(_stratum, drawn)).items())}
    if settings.verdicts:
        verdicts = read_verdicts(settings.verdicts, rows)
        reviewers = sorted({verdict.reviewer for verdict in verdicts})
        if settings.adjudicator and settings.adjudicator not in reviewers:
            found = f"the files are of {', '.join(reviewers)}"
            raise BadInput(f"{NAME}: adjudicator={settings.adjudicator!r} has judged nothing; {found}")
        result = apply(rows, verdicts, settings)
        judged = {verdict.id for verdict in verdicts}
        result.report["unjudged"] = sum(row["id"] not in judged for row in table)
    else:
        result = Result(list(rows), report={"in": len(rows), "out": len(rows), "reviewed": 0})
    if not result.report["reviewed"]:
        result.report["told"] = "not reviewed by people: fill sample.csv or sample.jsonl and name the files as verdicts"
    result.report |= {"sample": len(table), "strata": strata}
    result.files["sample"] = table
    return result


def _stratum(question: Question) -> tuple[str, str, str]:
    trail = question.meta.get("trail")
    return question.subject, question.kind, trail[0]["step"] if trail else question.source


def sample(questions: Iterable[Question], size: int, seed: int) -> list[Question]:
    """Returns at most `size` questions in their order: of each stratum (subject, kind, step that made the question)
    one, as far as `size` goes, and of the rest the same share of every stratum. The seed decides which.
    """
    strata = defaultdict(list)
    for place, question in enumerate(questions := list(questions)):
        strata[_stratum(question)].append(place)
    ranked = []
    for stratum, places in sorted(strata.items()):
        rng = random.Random(f"{seed} {stratum}")
        rng.shuffle(places)
        start = rng.random()
        ranked += [(k > 0, (k + start) / len(places), place) for k, place in enumerate(places)]
    return [questions[place] for place in sorted(place for _, _, place in sorted(ranked)[:size])]


def sample_rows(questions: Iterable[Question]) -> list[dict]:
    """Returns the questions as rows of the JSONL file (module docstring), nothing filled in."""
    rows = []
    for q in questions:
        row = {name: getattr(q, name) for name in (*FIRST, "options", "answer", "rationale")}
        row["options"], row["answer"] = list(q.options), q.answer or q.reference
        rows.append(row | dict.fromkeys(FILLED, ""))
    return rows


def write_sample(folder: Path, rows: list[dict]) -> dict[str, Path]:
    """Writes sample.csv and sample.jsonl into `folder`; returns {file name: path}."""
    letters = LETTERS[: max((len(row["options"]) for row in rows), default=0)]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*FIRST, *letters, "answer", "rationale", *FILLED])
    for row in rows:
        options = row["options"] + [""] * (len(letters) - len(row["options"]))
        cells = [*(row[name] for name in FIRST[1:]), *options, row["answer"], row["rationale"]]
        writer.writerow([_shield(row["id"], name=True), *map(_shield, cells), *(row[name] for name in FILLED)])
    paths = {name: Path(folder, name) for name in ("sample.csv", "sample.jsonl")}
    paths["sample.csv"].write_bytes(table.getvalue().encode("utf-8-sig"))  # with its mark, or Excel reads it as GBK
    write_jsonl(paths["sample.jsonl"], rows)
    return paths


def _shield(text: str, name: bool = False) -> str:
    """Returns the text with an apostrophe before what a spreadsheet would compute; before a name also where it would
    make a number or a date of it ("001", "3-12").
    """
    changed = text.startswith(("=", "+", "-", "@")) or (name and not any(c.isalpha() for c in text.replace("e", "")))
    return f"'{text}" if changed else text


def read_verdicts(paths: Iterable[str | Path], questions: Iterable[Question]) -> list[Verdict]:
    """Returns the verdicts of reviewers' files (.csv in UTF-8, UTF-16 or GBK, or .jsonl); rows without one are passed
    over. A file with one reviewer's name in it is all theirs.

    Raises BadInput, naming file, row, column and cure, for a missing or unreadable file, a changed header, an unknown
    id, a row whose stem is another question's, an unknown verdict, a corrected answer that is missing, out of place or
    beyond the options, no reviewer, and two verdicts of one reviewer on one question.
    """
    known = {question.id: question for question in questions}
    verdicts, seen = [], {}
    for path in map(Path, paths):
        rows = list(_rows(path))
        names = {name for _, row in rows if (name := row["reviewer"])}
        for where, row in rows:
            if not any(row[name] for name in FILLED[:2]):
                continue
            if not row["reviewer"] and len(names) != 1:
                found = f"the file has {', '.join(sorted(names))}" if names else "nor is there one in the file"
                raise BadInput(f"{where}, reviewer: no name, {found}; write who judged")
            verdict = _verdict(row, where, known, row["reviewer"] or min(names))
            if other := seen.get((verdict.reviewer, verdict.id)):
                raise BadInput(
                    f"{where}, reviewer: {verdict.reviewer!r} has judged {verdict.id!r} before ({other}); "
                    "leave out one of the two, or give each reviewer a name of their own"
                )
            seen[verdict.reviewer, verdict.id] = where
            verdicts.append(verdict)
    return verdicts


def _rows(path: Path) -> Iterable[tuple[str, dict]]:
    """Yields (file and row, row) with all of FILLED, "id" and "stem" as stripped texts."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; verdicts are the files that reviewers have filled in (review: verdicts)")
    if path.suffix.lower() == ".jsonl":
        found = [(f"{path} line {number}", row) for number, row in read_jsonl(path)]
    elif path.suffix.lower() == ".csv":
        found = _csv(path)
    else:
        raise BadInput(f"{path}: not .csv or .jsonl; save the sheet as CSV UTF-8")
    for where, row in found:
        if missing := [name for name in ("id", "stem", *FILLED) if name not in row]:
            raise BadInput(
                f"{where}: the header was changed, no column {', '.join(missing)} among {', '.join(map(str, row))}; "
                "name the columns as in sample.csv"
            )
        yield where, {name: str(row[name] or "").strip() for name in ("id", "stem", *FILLED)}


def _csv(path: Path) -> list[tuple[str, dict]]:
    content = path.read_bytes()
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError as error:
            place = error.start
    else:
        raise BadInput(f"{path}: neither UTF-8 nor GBK (byte {place}); save the sheet as CSV UTF-8")
    head = text.partition("\n")[0]
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)) or [
            []
        ]
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV table ({error}); save the sheet as CSV UTF-8 again") from None
    header = [cell.strip() for cell in table[0]]
    if twice := [name for name, number in Counter(header).items() if name and number > 1]:
        raise BadInput(f"{path} row 1: column {twice[0]!r} stands there twice; name the columns as in sample.csv")
    if len(table) == 1:
        table.append([])  # so that the header is looked at
    return [(f"{path} row {n}", dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False)))
            for n, cells in enumerate(table[1:], 2)]  # fmt: skip


def _verdict(row: dict, where: str, known: dict[str, Question], reviewer: str) -> Verdict:
    from rapidfuzz import fuzz

    question = known.get(row["id"]) or known.get(row["id"].removeprefix("'"))
    if question is None:
        cure = "keep the ids of sample.csv, and judge a sample of this run"
        raise BadInput(f"{where}, id: {row['id']!r} is no question of this run; {cure}")
    stems = ["".join(stem.removeprefix("'").split()) for stem in (row["stem"], question.stem)]
    if fuzz.ratio(*stems) < SAME_STEM:
        cure = "sort a sheet by all its columns at once, and change no stem"
        raise BadInput(f"{where}, stem: {row['stem'][:40]!r} is not the stem of {question.id!r}; {cure}")
    verdict = WORDS.get(row["verdict"].lower())
    if verdict is None:
        raise BadInput(f"{where}, verdict: {row['verdict']!r}; say one of {', '.join(WORDS)}")
    answer = row["corrected_answer"]
    if verdict == "corrected":
        answer = _corrected(question, answer, where)
    elif answer:
        cure = "say corrected, or empty the cell"
        raise BadInput(f"{where}, corrected_answer: {answer!r} on a question that is {verdict}; {cure}")
    return Verdict(question.id, reviewer, verdict, answer, row["comment"], where)


def _corrected(question: Question, answer: str, where: str) -> str:
    where = f"{where}, corrected_answer"
    if not answer:
        raise BadInput(f"{where}: empty on a corrected question; write the right letters, or say accepted or rejected")
    if question.kind != "open":
        checked = check_question(
            question.kind, question.stem, dict(zip(LETTERS, question.options, strict=False)), answer
        )
        if isinstance(checked, Fault):
            told, last = checked.reason, LETTERS[len(question.options) - 1]
            raise BadInput(f"{where}: {told}; write letters of A to {last}")
        answer = checked[1]
    if answer == (question.reference if question.kind == "open" else question.answer):
        raise BadInput(f"{where}: {answer!r} is the answer that stands there; say accepted, or write another")
    return answer


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
    found = {"reviewers": reviewers, "measure": "Cohen" if len(reviewers) == 2 else "Fleiss", "kappa": None,
             "agreed": None, "questions": len(common)}  # fmt: skip
    if not common:
        return found
    counts = [Counter(judged.values()) for judged in common]
    equal = [sum(n * (n - 1) for n in c.values()) / (c.total() * (c.total() - 1)) for c in counts]
    agreed = sum(equal) / len(common)
    if len(reviewers) == 2:  # each reviewer's own shares; Fleiss takes those of all together
        shares = [Counter(judged[reviewer] for judged in common) for reviewer in reviewers]
        chance = sum(shares[0][word] * shares[1][word] for word in shares[0]) / len(common) ** 2
    else:
        every = sum(counts, Counter())
        chance = sum((n / every.total()) ** 2 for n in every.values())
    found["agreed"] = round(agreed, 4)
    found["kappa"] = None if chance == 1 else round((agreed - chance) / (1 - chance), 4)
    return found


def apply(questions: Iterable[Question], verdicts: list[Verdict], settings: Settings) -> Result:
    """Returns the questions with what people decided (rule in the module docstring), the reviewers and old values in
    their trail; rejected ones are rejects. A corrected question loses its rationale, which explains the old answer.

    The report has counts and `agreement`; `files`: "verdicts", all of them, and "disagreements".
    """
    by_question: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_question[verdict.id].append(verdict)
    result, counts, disagreements = Result([]), Counter(), []
    for question in questions:
        judged = by_question.get(question.id)
        if not judged:
            result.rows.append(question)
            continue
        outcome, answer = _decide(judged, settings)
        counts[outcome] += 1
        if len({(v.verdict, v.corrected_answer) for v in judged}) > 1:
            told = {v.reviewer: f"{v.verdict} {v.corrected_answer}".strip() for v in judged}
            comments = {v.reviewer: v.comment for v in judged if v.comment}
            disagreements.append({"id": question.id, "stem": question.stem, "answer": question.answer, "verdicts": told,
                                  "comments": comments, "outcome": f"{outcome} {answer}".strip()})  # fmt: skip
        said = "; ".join(f"{v.reviewer}: {v.comment or v.verdict}" for v in judged)
        if outcome == "rejected" or (outcome == "undecided" and settings.undecided == "reject"):
            code = "rejected by people" if outcome == "rejected" else "reviewers disagree"
            result.rejects.append(Reject(question.id, question.meta.get("where", question.id), code, said))
            continue
        question = tidy(question)
        facts = {"verdict": outcome, "reviewers": [v.reviewer for v in judged]}
        if outcome == "corrected":
            name = "reference" if question.kind == "open" else "answer"
            facts |= {"field": name, "old": getattr(question, name), "new": answer}
            setattr(question, name, answer)
            if question.rationale:
                facts["old_rationale"], question.rationale = question.rationale, ""
        note(question, NAME, **facts)
        result.rows.append(question)
    total = len(result.rows) + len(result.rejects)
    result.report = {"in": total, "out": len(result.rows), "rejected": len(result.rejects),
                     "reviewed": len(by_question), "outcomes": dict(sorted(counts.items())),
                     "agreement": agreement(verdicts, settings.adjudicator)}  # fmt: skip
    result.files = {"verdicts": [asdict(v) for v in verdicts], "disagreements": disagreements}
    return result


def _decide(judged: list[Verdict], settings: Settings) -> tuple[str, str]:
    """Returns (verdict or "undecided", corrected answer)."""
    for verdict in judged:
        if settings.adjudicator and verdict.reviewer == settings.adjudicator:
            return verdict.verdict, verdict.corrected_answer
    decision, number = Counter((v.verdict, v.corrected_answer) for v in judged).most_common(1)[0]
    return decision if 2 * number > len(judged) else ("undecided", "")


def write_sheets(folder: Path) -> None:
    """Writes the sample in the folder's sample.jsonl for people to fill in."""
    write_sample(folder, [row for _, row in read_jsonl(folder / "sample.jsonl")])


STEP = Step(
    takes=(Question,), settings=Settings, rows=run, sheets=write_sheets, inputs=lambda settings: settings.verdicts
)
