"""The bar for faulty servers, through the real command: nothing is lost, nothing that was answered is asked again.

500 posts and 30 passages; 60 % of requests fail during the first command, 20 % during the second, then none.
"""

import json
import random
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.records import Post
from tests.conftest import launch
from tests.data_pipeline import counsellor, examiner
from tests.data_pipeline.synthesis.test_run import lines, write_posts
from tests.model_server import Answer, ModelServer, completion

CORPUS = Path("data_pipeline/samples/corpus/passages")
# Faults that the server makes; none that a slow machine makes too, as a timeout
FAULTS = (
    Answer(b"slow down", status=429, headers={"Retry-After": "0.02"}),
    Answer(b"boom", status=500),
    Answer(b"busy", status=503),
    Answer(json.dumps(completion("x")).encode()[:-30]),
    Answer(b""),
    Answer(b"", drop=True),
)


class Faulty:
    """The examiner with faults; drawn anew by every call of the same request."""

    def __init__(self) -> None:
        self.share = 0.0
        self.asked, self.answered = Counter[int](), Counter[int]()  # by request
        self.last: dict[int, bool] = {}  # whether its last call was answered
        self.server: ModelServer | None = None

    def __call__(self, messages: list[dict]) -> Answer:
        key = counsellor.digest([self.model(), messages])
        self.asked[key] += 1
        chance = random.Random(f"{key} {self.asked[key]}")
        self.last[key] = chance.random() >= self.share
        if not self.last[key]:
            return chance.choice(FAULTS)
        self.answered[key] += 1
        return Answer(completion(examiner.answer(messages)))

    def model(self) -> str:
        assert self.server is not None
        return self.server.calls[-1].body["model"]


def posts(count: int) -> list[Post]:
    """Posts that are no near-duplicates of one another."""
    reply = "面对这样的事感到难受是很自然的，可以试试规律作息和放松练习，慢慢会好起来的。"
    return [
        Post(f"p{n}", "test", examiner.words(f"t{n}", 8), examiner.words(f"p{n}", 60), [reply]) for n in range(count)
    ]


@pytest.mark.slow
def test_nothing_is_lost_and_no_finished_call_is_repeated(tmp_path, run_name):
    faulty, folder = Faulty(), Path("runs", run_name, "data")
    given = write_posts(tmp_path / "posts.jsonl", posts(500))
    words = ["recipe=psyche_r1", f"run={run_name}", f"passages={CORPUS}", f"posts={given}", "split.heldout=20",
             "llm=openai", "llm.model=m", "llm.api_key_env=null", "llm.attempts=3", "llm.concurrency=32",
             "llm.timeout_s=300", "selectors={one: {model: one}, two: {model: two}}"]  # fmt: skip
    with counsellor.server(faulty) as server:
        faulty.server = server
        words.append(f"llm.base_url={server.url}")
        told = []
        for share in (0.6, 0.2, 0, 0):
            faulty.share = share
            before, failed = faulty.asked.copy(), {key for key, whole in faulty.last.items() if not whole}
            done = launch("data", *words, timeout=3000)
            asked = faulty.asked - before
            told.append((share, done.returncode, asked.total(), len(failed)))
            assert "Traceback" not in done.stderr, done.stderr
            again = {key for key in asked if before[key]}
            assert again == failed, "asked again is what failed, all of it and nothing else"
        print(told)
        codes, calls = [code for _, code, _, _ in told], [number for _, _, number, _ in told]
        assert codes[0] == 1 and codes[1] in (0, 1) and codes[2:] == [0, 0], told
        assert calls[3] == 0 and told[3][3] == 0
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:  # by key: two samples of a request may say the same
        ended = ledger.execute("SELECT COUNT(*), COUNT(DISTINCT key) FROM calls WHERE finish != 'failed'").fetchone()
    assert ended == (faulty.answered.total(),) * 2, "0 finished calls repeated, none lost"
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    for name, step in counts["steps"].items():
        assert name.endswith("generate_questions") or step["in"] == step["out"] + step["rejected"] + step.get(
            "merged", 0
        )
    left = lines(folder / "steps/posts/3_rewrite_empathy/rows.jsonl")
    assert sorted(row["id"] for row in left) == sorted(f"p{n}" for n in range(500)), "0 posts lost"
    questions = lines(folder / "steps/questions/2_generate_questions/rows.jsonl")
    assert len({row["meta"]["passage"] for row in questions}) == 30, "0 passages lost"
    assert not [r for file in folder.glob("steps/*/*/rejects.jsonl") for r in lines(file) if "no reply" in r["detail"]]
    shutil.rmtree(folder.parent)
