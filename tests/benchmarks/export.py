"""How fast questions are read and exported, beside the plain way (json and pandas) in the same run.

python -m tests.benchmarks.export [CPSYEXAM_FOLDER]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import pandas

from data_pipeline.export import llama_factory, verl
from data_pipeline.records import Question
from data_pipeline.sources import cpsyexam
from tests.conftest import DATA

ROUNDS = 5


def best(function) -> float:
    """Returns the shortest of ROUNDS durations, in seconds."""
    durations = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        function()
        durations.append(time.perf_counter() - started)
    return min(durations)


def main(folder: Path) -> None:
    questions = [q for q in cpsyexam.read(folder) if isinstance(q, Question)]
    rows = [q for q in questions if q.rationale]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)

        def plain_jsonl() -> None:
            with open(out / "plain.jsonl", "w", encoding="utf-8") as file:
                for q in rows:
                    file.write(json.dumps(llama_factory.question_row(q), ensure_ascii=False) + "\n")

        def plain_parquet() -> None:
            pandas.DataFrame([verl.question_row(q, "train", i) for i, q in enumerate(questions)]).to_parquet(out / "p")

        read = best(lambda: list(cpsyexam.read(folder)))

        def verl_rows() -> int:
            return verl.write(out / "q", verl.question_rows(questions, "train"))

        ours = {
            "llama_factory": (best(lambda: llama_factory.write(out, rows)), best(plain_jsonl), len(rows)),
            "verl": (
                best(verl_rows),
                best(plain_parquet),
                len(questions),
            ),
        }
    print(f"read: {read:.2f} s for {len(questions)} questions")
    for name, (seconds, plain, count) in ours.items():
        print(f"{name}: {count / seconds:,.0f} rows/s, {plain / seconds:.2f} times the plain way")
    print(f"read and both exports: {read + sum(s for s, _, _ in ours.values()):.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "cpsyexam")
