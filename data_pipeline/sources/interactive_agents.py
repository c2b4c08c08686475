"""Client profiles of interactive-agents (Qiu & Lan; github: qiuhuachuan/interactive-agents): help-seeking posts.

`user_profiles/test.json` (100) and `train.json` (1,000), each a JSON list of Chinese texts that open with their title.
The repository is MIT; the posts look like PsyQA's, so see to their origin before you hand them on.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.encodings import parse_json
from data_pipeline.errors import BadInput
from data_pipeline.records import Post, Reject

LICENCE = "MIT (of the repository; the posts look like PsyQA's)"


def read(path: str | Path) -> Iterator[Post | Reject]:
    """Yields a Post or Reject for each text, in order; `path` is one file, or a folder of them.

    Raises BadInput for a path without such a file, and for a file that is not a JSON list.
    """
    root = Path(path)
    files = sorted(root.glob("*.json")) if root.is_dir() else [root]
    if not files or not all(file.is_file() for file in files):
        raise BadInput(f"{root}: no such file, or a folder without .json; name user_profiles/test.json")
    for file in files:
        profiles = parse_json(file, file.read_bytes())
        if not isinstance(profiles, list):
            raise BadInput(f"{file}: not a JSON list of texts but {type(profiles).__name__}")
        for number, text in enumerate(profiles, 1):
            id, where = f"interactive_agents/{file.stem}/{number}", f"{file} item {number}"
            if not isinstance(text, str):
                yield Reject(id, where, "not a text", type(text).__name__)
            elif not text.strip():
                yield Reject(id, where, "no text")
            else:
                yield Post(id, "interactive_agents", "", text.strip(), [], {"where": where})
