"""The data card's tables and pictures, of rows made here: what a reader of it must be able to see."""

import base64
import struct

import pytest

from data_pipeline.counts import DataCounts, Decontamination, StepCounts
from data_pipeline.export.selection import Benchmark
from data_pipeline.records import Dialogue, Question, Reject, Turn, write_jsonl
from launch.reports import datacard, pictures
from launch.reports.provenance import About, Origin

ABOUT = About("mine", "psydt", 7, "2026-01-01T00:00:00+00:00", "abc", [Origin("smilechat", "/home/li/smile", "f" * 64)],
              benchmarks=[Benchmark(source="pceb", path="/home/li/pceb")], system="Be kind.")  # fmt: skip
COUNTS = DataCounts(
    into=9,
    out=2,
    rejected=7,
    sft=1,
    dialogues=1,
    grpo=1,
    heldout=0,
    reasons={"stands in a benchmark": 7},
    decontaminated=Decontamination(
        benchmark_items=80, n=13, threshold=0.7, into=9, out=2, rejected=7, kinds={"contained": 7}
    ),
    steps={"dialogues/0_read": StepCounts(into=12, out=9, rejected=3)},
)


def card(folder) -> str:
    question = Question("q", "own", "", "single", "题", ["对", "错"], "A",
                        meta={"trail": [{"step": "own", "prompt": "0123456789ab"}]})  # fmt: skip
    write_jsonl(folder / "questions.jsonl", [question])
    write_jsonl(folder / "dialogues.jsonl", [Dialogue("d", "own", [Turn("client", "你好"), Turn("counselor", "你好")])])
    read = folder / "steps/dialogues/0_read"
    read.mkdir(parents=True)
    write_jsonl(read / "rows.jsonl", [])
    rejects = [Reject(f"r{n}", "x", "a detail: with a colon", f"more: {n}") for n in range(3)]
    write_jsonl(read / "rejects.jsonl", rejects)
    calls = [{"step": "reason_reply", "model": "m", "served": "m-0901,m-1001", "calls": 4, "failures": 1,
              "prompt_tokens": 9, "completion_tokens": 8, "cost": 0.25}]  # fmt: skip
    datacard.write(folder, ABOUT, COUNTS, calls)
    return (folder / "datacard.md").read_text(encoding="utf-8")


def test_a_card_says_where_rows_come_from_and_what_became_of_the_others(tmp_path):
    text = card(tmp_path)
    for line in (
        "- recipe: recipes/psydt/data.yaml", "- seed: 7", "- begun: 2026-01-01T00:00:00+00:00",
        "- cost of the model calls: 0.2500 in the currency of the prices",
        "| smile | smilechat | CC0 1.0 | ffffffffffff |",
        "| reason_reply | m | m-0901, m-1001 | 4 | 1 | 9 | 8 | 0.25 |", "| benchmarks | pceb (pceb) |",
        "| questions in them | 80 |",
        "| threshold | 0.7 of a benchmark's text stands in the row |", "| taken out | 7 (7 x contained) |",
        "| dialogues/0_read | a detail: with a colon | 3 |", "| training files | stands in a benchmark | 7 |",
        "| r0 | a detail: with a colon: more: 0 |", "| own | of each row, or changed since", "| training | as given |",
    ):  # fmt: skip
        assert line in text, line
    assert "/home/li" not in text + (tmp_path / "datacard.html").read_text(encoding="utf-8"), "no path of this machine"


def test_an_own_table_says_what_its_reader_took_out(tmp_path):
    trail = {"trail": [{"step": "clean", "removed": {"link": 2, "mobile": 1}}]}
    question = Question("q", "own", "", "single", "题", ["对", "错"], "A", meta=trail)
    write_jsonl(tmp_path / "questions.jsonl", [question, question])
    write_jsonl(tmp_path / "dialogues.jsonl", [])
    datacard.write(tmp_path, ABOUT, COUNTS.model_copy(update={"steps": {}}), [])
    text = (tmp_path / "datacard.md").read_text(encoding="utf-8")
    assert "|  | link | 4 |" in text and "|  | mobile | 2 |" in text
    assert "| reading and training files | stands in a benchmark | 7 |" in text


@pytest.mark.parametrize(
    "picture",
    [
        pictures.histogram([3], "one"),
        pictures.histogram([5] * 9, "alike"),
        pictures.histogram([1, 100_000], "far"),
        pictures.funnel({f"questions/{n}_step": StepCounts(into=n, out=n, rejected=0) for n in range(12)}),
    ],
)
def test_a_picture_is_one_whatever_it_shows(picture):
    png = base64.b64decode(picture.png)
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG") and 0.4 < height / width < 1.2 and picture.alt
