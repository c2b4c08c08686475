"""Public sets, as released and as anybody's own table: every row is out or rejected, and no text is left behind."""

import json
import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.records import Question
from data_pipeline.sources import cpsyexam as released
from data_pipeline.sources import pceb as benchmark
from data_pipeline.sources import table
from tests.conftest import real_data

# Fields of the rows that name or sort a row, and are in the record's kind, subject, id and meta.
NAMES = {"id", "identifier", "kind", "question_type", "subject_name"}


def texts(value: object) -> Counter:
    """Returns the texts at any depth of a JSON value, but for NAMES, without blanks at their ends."""
    if isinstance(value, dict):
        return sum((texts(inner) for key, inner in value.items() if key not in NAMES), Counter())
    if isinstance(value, list):
        return sum(map(texts, value), Counter())
    return Counter([value.strip()]) if isinstance(value, str) and value.strip() else Counter()


def held(question: Question) -> set[str]:
    parts = question.context.split("\n")
    return {question.stem, question.rationale, question.reference, question.context, *question.options, *parts}


@pytest.fixture(scope="module")
def exams(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cpsyexam")
    zipfile.ZipFile(real_data("cpsyexam") / "cpsyexam.zip").extractall(folder)
    return folder


def test_every_text_of_a_cpsyexam_question_stands_in_its_record(exams):
    rows = {}
    for file in (exams / "train").glob("*.json"):
        for number, row in enumerate(json.loads(file.read_bytes()), 1):
            rows[f"cpsyexam/train/{file.stem}/{number}"] = row
    records = list(released.read(exams))
    assert len(records) == len(rows)
    for record in records:
        if isinstance(record, Question):
            lost = set(texts(rows[record.id])) - held(record) - {str(rows[record.id]["answer"]).strip()}
            assert not lost, (record.id, lost)


def test_every_text_of_a_pceb_question_stands_in_its_record(pceb):
    records = list(benchmark.read(pceb))
    questions = [record for record in records if isinstance(record, Question)]
    (rejected,) = [record.where for record in records if not isinstance(record, Question)]
    said = set().union(*map(held, questions))
    whole = "\n".join(said)
    lost = []
    for file in sorted(pceb.rglob("*.json")):
        for number, row in enumerate(json.loads(file.read_bytes()), 1):
            for text in texts(row):
                bare = re.sub(r"^(单选|多选)\s*[：:]\s*", "", text)  # says the kind
                key = re.fullmatch(r"[A-Z]+", text)
                if not key and bare not in said and bare not in whole:
                    lost.append(f"{file} row {number}")
    assert {where for where in lost if not rejected.startswith(where)} == set()


def test_cpsyexam_as_anybodys_table_gives_the_same_questions(exams):
    by_place = {tuple(record.id.split("/")[2:]): record for record in released.read(exams)}
    columns = {
        "stem": "question",
        "kind": "question_type",
        "rationale": "explanation",
        "subject": "subject_name",
        "id": None,
    }
    counts: Counter = Counter()
    differ = []
    for record in table.read(exams / "train", columns=columns, clean=False):
        file, number = record.id.split("/")
        other = by_place[file, number]
        counts[isinstance(record, Question), isinstance(other, Question)] += 1
        if isinstance(record, Question) and isinstance(other, Question):
            same = (record.stem, record.kind, record.answer, record.rationale, record.subject) == (
                other.stem, other.kind, other.answer, other.rationale, other.subject
            )  # fmt: skip
            differ += [record.id] * (not same)
    assert counts.total() == len(by_place) == 9855
    assert not differ
    assert counts[True, True] == 9727  # of 9,737; ten have two options that are the same
    assert counts[True, False] == 0
