"""Letters to a column: a folder of .letter files, the title in the first line and an answer below a line of dashes."""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.records import Post, Reject


def read(path: str | Path) -> Iterator[Post | Reject]:
    """Yields a Post or Reject for every file, in the order of their names."""
    for file in sorted(Path(path).glob("*.letter")):
        title, _, rest = file.read_text(encoding="utf-8").partition("\n")
        text, _, reply = rest.partition("\n---\n")
        if text.strip():
            yield Post(file.stem, "letters", title, text.strip(), [reply.strip()], {"where": str(file)})
        else:
            yield Reject(file.stem, str(file), "an empty letter")
