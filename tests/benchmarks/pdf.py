"""How fast the text of PDFs is read beside bare pypdf (bar: 0.9 of its rate), with heads, feet and paragraphs done.

python -m tests.benchmarks.pdf [FILE.pdf ...]      # without files, a book of 200 pages written here
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pypdf

from data_pipeline.texts import pdf
from tests.data_pipeline.sources.test_passages import pdf as write

ROUNDS = 5


def book(file: Path) -> Path:
    draw = random.Random(0)
    words = "memory recall bond child motive reward speech group habit sleep grief anger trust norm test scale".split()
    pages = []
    for number in range(200):
        lines = [" ".join(draw.choices(words, k=11)) + draw.choice(["", "", "."]) for _ in range(38)]
        pages.append([f"CHAPTER {number // 20 + 1}  MEMORY  {number + 1}", *lines, "Free e-books at www.example.com"])
    return write(file, pages)


def main(files: list[Path]) -> None:
    for file in files:
        bare, ours = [], []
        for _ in range(ROUNDS):
            started = time.process_time()
            pages = [page.extract_text() for page in pypdf.PdfReader(file).pages]
            bare.append(time.process_time() - started)
            started = time.process_time()
            text = pdf.read(file)
            count = sum(1 for _ in text.paragraphs)
            ours.append(time.process_time() - started)
        rate = statistics.median(bare) / statistics.median(ours)
        print(f"{file.name}: {len(pages)} pages, {count} paragraphs, {rate:.2f} of bare pypdf's rate")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main([Path(word) for word in sys.argv[1:]] or [book(Path(folder) / "book.pdf")])
