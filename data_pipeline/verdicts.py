"""The sheets of a review: a sample goes out to people as sample.csv and sample.jsonl, their verdicts come back; and so
do the verdicts that they gave on the pages (data_pipeline/reviews.py), of which a sheet is an export.

The columns are in the docstring of `data_pipeline/steps/review.py`; `content` is a hash of what a reviewer sees.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline import reviews
from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Dialogue, Fault, Post, Question, check_question, read_jsonl, write_jsonl
from data_pipeline.tables.options import text_of
from data_pipeline.tables.rows import Layout, Row, table_rows

FIRST = ("id", "content", "subject", "kind", "context", "stem")
CHECKED = ("id", "content", "stem")  # of a row that comes back
FILLED = ("verdict", "corrected_answer", "comment", "reviewer")
WORDS = {"accepted": "accepted", "接受": "accepted", "corrected": "corrected", "修改": "corrected",
         "rejected": "rejected", "拒绝": "rejected"}  # fmt: skip
SAME_STEM = 80  # percent of a row's stem that must be its question's: a sheet sorted by one column mixes up the rows


@dataclass(slots=True)
class Verdict:
    id: str  # of the question
    reviewer: str
    verdict: str  # "accepted" | "corrected" | "rejected"
    corrected_answer: str  # sorted letters; the new model answer of an open question; "" unless corrected
    comment: str
    where: str  # file and row
    kind: str = ""  # of data_pipeline/reviews.py; "" of a sheet: the record as a whole
    edits: dict[str, str] = field(default_factory=dict)  # {field: new text} beside the corrected answer

    @property
    def of_rationale(self) -> bool:
        return self.kind == "rationale"


@dataclass(frozen=True)
class Outdated:
    """A verdict that is not applied: its question is another one now, or there is none of its id any more."""

    id: str
    where: str  # file and row
    why: str


@dataclass(frozen=True)
class Judged:
    """What people wrote: verdicts on questions as they are, and those that are outdated, in the order of the files."""

    verdicts: list[Verdict]
    outdated: list[Outdated]


Record = Question | Dialogue | Post


def kind_of(record: Record) -> str:
    """Returns "question", "dialogue" or "post"."""
    return type(record).__name__.lower()


def content_hash(record: Record) -> str:
    """Returns the first 12 hexadecimal digits of the SHA-256 of what a reviewer sees of a record."""
    if isinstance(record, Question):
        seen = [record.subject, record.kind, record.context, record.stem, record.options,
                record.answer or record.reference, record.rationale]  # fmt: skip
    elif isinstance(record, Dialogue):
        seen = [[turn.role, turn.thought, turn.content] for turn in record.turns]
    else:
        seen = [record.title, record.text, record.replies]
    return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()[:12]


def stem_of(record: Record) -> str:
    """Returns the text by which people know a record again: a question's stem, all that is said in another one."""
    if isinstance(record, Question):
        return record.stem
    if isinstance(record, Post):
        return "\n".join(filter(None, [record.title, record.text, *record.replies]))
    said = [f"{turn.role}: " + (f"({turn.thought}) " if turn.thought else "") + turn.content for turn in record.turns]
    return "\n".join(said)


def sample_rows(records: Iterable[Record]) -> list[dict]:
    """Returns the records as rows of the JSONL file (module docstring), nothing filled in; what is no question stands
    under `stem` as a whole.
    """
    rows = []
    for one in records:
        row = {"id": one.id, "content": content_hash(one)}
        if isinstance(one, Question):
            row |= {name: getattr(one, name) for name in FIRST[2:]}
            row |= {"options": list(one.options), "answer": one.answer or one.reference, "rationale": one.rationale}
        else:
            row |= {"subject": "", "kind": kind_of(one), "context": "", "stem": stem_of(one)}
            row |= {"options": [], "answer": "", "rationale": ""}
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
        cells = [*(row[name] for name in FIRST[2:]), *options, row["answer"], row["rationale"]]
        ids = [_shield(row[name], name=True) for name in FIRST[:2]]
        writer.writerow([*ids, *map(_shield, cells), *(_shield(row[name]) for name in FILLED)])
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


def read_verdicts(paths: Iterable[str | Path], questions: Iterable[Record]) -> Judged:
    """Returns the verdicts of reviewers' files: tables of any kind (`data_pipeline/tables/rows.py`), and what they said
    on the pages; rows without one are passed over. A file with one reviewer's name in it is all theirs.

    Raises BadInput, naming file, row, column and cure, for a missing or unreadable file, a changed header, a file that
    knows no question of this run, a row whose stem is another question's, an unknown verdict, a corrected answer that
    is missing, out of place or beyond the options, no reviewer, and two verdicts of one reviewer on one question.
    """
    files = {path: list(_rows(path)) for path in map(Path, paths)}
    named = {row["id"].removeprefix("'") for rows in files.values() for _, row in rows}
    known, contents = {}, {}
    for question in questions:
        contents[content_hash(question)] = question.id
        if question.id.removeprefix("'") in named:  # of many, those that people saw
            known[question.id] = question
    verdicts, outdated, seen = [], [], {}
    for rows in files.values():
        names = {name for _, row in rows if (name := row["reviewer"])}
        filled = [(where, row) for where, row in rows if any(row[name] for name in FILLED[:2])]
        if filled and not any(_question(row, known) for _, row in filled):
            where, row = filled[0]
            cure = "keep the ids of sample.csv, and judge a sample of this run"
            raise BadInput(f"{where}, id: {row['id']!r} is no question of this run, nor is any in the file; {cure}")
        for where, row in filled:
            if not row["reviewer"] and len(names) != 1:
                there = f"the file has {', '.join(sorted(names))}" if names else "nor is there one in the file"
                raise BadInput(f"{where}, reviewer: no name, {there}; write who judged")
            question = _question(row, known)
            if why := _outdated(row, where, question, contents):
                outdated.append(Outdated(row["id"], where, why))
                continue
            assert question is not None  # else it is outdated
            verdict = _verdict(row, where, question, row["reviewer"] or min(names))
            if other := seen.get((verdict.reviewer, verdict.id, verdict.of_rationale)):
                raise BadInput(
                    f"{where}, reviewer: {verdict.reviewer!r} has judged {verdict.id!r} before ({other}); "
                    "leave out one of the two, or give each reviewer a name of their own"
                )
            seen[verdict.reviewer, verdict.id, verdict.of_rationale] = where
            verdicts.append(verdict)
    return Judged(verdicts, outdated)


def _question(row: dict, known: dict[str, Record]) -> Record | None:
    return known.get(row["id"]) or known.get(row["id"].removeprefix("'"))


def _outdated(row: dict, where: str, question: Record | None, contents: dict[str, str]) -> str:
    """Returns why a verdict does not hold for the question of its id, "" where it does; raises BadInput where id and
    content are of two questions of this run. `contents` is {content: id} of all of them.
    """
    from rapidfuzz import fuzz

    if question is None:
        return "there is no question of this id any more"
    content, cure = row["content"].removeprefix("'"), "sort a sheet by all its columns at once, and change no stem"
    if content == content_hash(question):
        stems = ["".join(stem.removeprefix("'").split()) for stem in (row["stem"], stem_of(question))]
        if "review" not in row and fuzz.ratio(*stems) < SAME_STEM:
            raise BadInput(f"{where}, stem: {row['stem'][:40]!r} is not the stem of {question.id!r}; {cure}")
        return ""
    if other := contents.get(content):
        raise BadInput(f"{where}, content: {content!r} is that of {other!r}, not of {question.id!r}; {cure}")
    return "the question has changed since"


def _rows(path: Path) -> Iterable[tuple[str, dict]]:
    """Yields (file and row, row) with all of FILLED, "id", "content" and "stem" as stripped texts."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; verdicts are the files that reviewers have filled in (review: verdicts)")
    if path.suffix.lower() == ".jsonl" and _of_pages(path):
        yield from _reviewed(path)
        return
    wanted, row = (*CHECKED, *FILLED), None
    for row in table_rows(path, Layout(), lambda names: len({*wanted} & {*names}) / len(wanted)):
        if isinstance(row.values, Fault):
            raise BadInput(f"{row.where}: {row.values.reason}; mend it, or save the sheet as CSV UTF-8 again")
        if missing := [name for name in wanted if name not in row.values]:
            if missing == ["content"]:
                raise BadInput(
                    f"{row.where}: no column content, to which verdicts are bound; the sheet is from before. Run the "
                    "stage without these verdicts and copy its columns verdict to reviewer into the sample.csv written "
                    "then, by id, where the question is still the same"
                )
            raise BadInput(
                f"{row.where}: the header was changed, no column {', '.join(missing)} among "
                f"{', '.join(map(str, row.values))}; name the columns as in sample.csv"
            )
        yield row.where, {name: _cell(row, name) for name in wanted}
    if row is None:
        raise BadInput(f"{path}: no row below the header; fill in sample.csv")


def _cell(row: Row, name: str) -> str:
    assert isinstance(row.values, dict)  # of another kind none comes here
    text = text_of(row.values[name])
    if isinstance(text, Fault):
        raise BadInput(f"{row.where}, {name}: {text.reason}")
    return text.strip()


def _of_pages(path: Path) -> bool:
    """Returns whether a file is one of the pages, not a sheet that was filled in."""
    with path.open("rb") as file:
        return file.read(8) == b'{"key":"'


def _reviewed(path: Path) -> Iterable[tuple[str, dict]]:
    """Yields (file and line, row) of the last decided verdict on each thing, as `_rows`; `review` holds it as it is."""
    given = reviews.read(path)
    last = {(one.kind, one.item): n for n, one in enumerate(given)}
    for n, one in enumerate(given):
        if last[one.kind, one.item] == n and one.verdict in reviews.DECIDED and one.kind in reviews.KINDS:
            answer = one.edits.get("answer", one.edits.get("reference", ""))
            yield f"{path} line {n + 1}", {
                "id": one.item, "content": one.content, "stem": "", "verdict": one.verdict, "corrected_answer": answer,
                "comment": one.reason, "reviewer": path.stem, "review": one,
            }  # fmt: skip


def _verdict(row: dict, where: str, question: Record, reviewer: str) -> Verdict:
    if review := row.get("review"):
        checked = reviews.check(review, question)
        answer = checked.edits.get("answer", checked.edits.get("reference", ""))
        return Verdict(
            question.id, reviewer, review.verdict, answer, review.reason, where, review.kind, dict(checked.edits)
        )
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


def _corrected(question: Record, answer: str, where: str) -> str:
    where = f"{where}, corrected_answer"
    if not isinstance(question, Question):
        raise BadInput(f"{where}: a {kind_of(question)} is corrected on the pages (launch.web), not in a sheet")
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


def write_sheets(folder: Path) -> None:
    """Writes the sample in the folder's sample.jsonl for people to fill in."""
    write_sample(folder, [row for _, row in read_jsonl(folder / "sample.jsonl")])
