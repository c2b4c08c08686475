"""The corpus of responses that `corpus.jsonl` holds: each with its options, the expected reading, and the reason."""

import json
from pathlib import Path

ROWS = [json.loads(line) for line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
