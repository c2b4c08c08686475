"""What cannot hold is told before the first call, also in a dry run, and the cure that a message names is accepted."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import TABLE, launch, refused
from tests.data_pipeline import counsellor, examiner
from tests.data_pipeline.synthesis.test_run import write_posts
from tests.model_server import Answer, completion

ASKS = ("llm=openai", "llm.model=m", "llm.api_key_env=null", "llm.concurrency=8")


def rewriting(messages: list[dict]) -> Answer:
    return Answer(completion(examiner.answer(messages)))


@pytest.fixture
def run(run_name):
    yield run_name
    shutil.rmtree(Path("runs", run_name), ignore_errors=True)


@pytest.fixture
def posts(tmp_path) -> Path:
    given = counsellor.posts(3)
    for post in given:
        post.replies = ["面对这样的事感到难受是很自然的，可以试试规律作息和放松练习，慢慢会好起来的。"]
    return write_posts(tmp_path / "posts.jsonl", given)


def test_posts_alone_give_no_question_to_hold_out(run, posts):
    words = ("recipe=psyche_r1", f"run={run}", f"posts={posts}", *ASKS)
    with counsellor.server(rewriting) as server:
        words += (f"llm.base_url={server.url}",)
        told = "split.heldout=200: without passages= there is no question; say split.heldout=0"
        dry = refused(launch("data", *words, "dry_run=true"), told)
        message = refused(launch("data", *words), told)
        assert not server.calls and message == dry
        cure = message.partition("say ")[2].partition(", or")[0]
        dry = launch("data", *words, cure, "dry_run=true")
        assert dry.returncode == 0, dry.stderr
        command = shlex.split(dry.stdout.splitlines()[-1])
        assert command == ["python", "-m", "launch.data", *words, cure]
        done = launch("data", *command[3:])
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == 6
        refused(launch("data", *words, "split.heldout=0", "seed=7"), "seed: 42 -> 7")  # what is finished is protected


def test_no_post_is_left_and_the_step_that_rejected_them_says_why(run, posts):
    def cold(messages: list[dict]) -> Answer:
        if examiner.prompt_of(messages) == "check_empathy":
            value = {"opens_with_feeling": False, "faithful": True, "reasons": "没有共情"}
            return Answer(completion(json.dumps(value, ensure_ascii=False)))
        return rewriting(messages)

    words = ("recipe=psyche_r1", f"run={run}", f"posts={posts}", "split.heldout=0", *ASKS)
    with counsellor.server(cold) as server:
        done = launch("data", *words, f"llm.base_url={server.url}")
        refused(done, f"posts={posts}: no dialogue is left of 3 posts", "posts/3_rewrite_empathy, 3 (3 x check)",
                "steps/posts/3_rewrite_empathy/rejects.jsonl")  # fmt: skip
        before = len(server.calls)
        more = f"llm.base_url={server.url}", "synthesis.rewrite_empathy.max_chars=599"
        refused(launch("data", *words, *more), "synthesis.rewrite_empathy")
        assert len(server.calls) == before, "paid calls are protected"


def test_every_source_is_read_before_the_first_call(run, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"题": "睡不着", "文": "怎么办"}\n', encoding="utf-8")
    wrong = {
        f"posts={other}": str(other),
        "pipelines.posts=[filter_quality]": "pipelines.posts: filter_quality takes questions, not posts",
        "split.heldout=5000": "split.heldout=5000: of 30 passages come at most 360 questions; say split.heldout=348",
        "split.grpo_dialogues=99": "at most 30 dialogues come of posts= and dialogues=; say split.grpo_dialogues=30",
        "decontaminate.against=[{source: pceb, path: /nowhere}]": "/nowhere: no such",
        "synthesis.review.verdicts=[nobody.csv]": "synthesis.review=nobody.csv: no such file",
    }
    words = ("recipe=demo", f"run={run}", *ASKS, "selectors={a: {}}")
    with counsellor.server(rewriting) as server:
        for word, told in wrong.items():
            refused(launch("data", *words, f"llm.base_url={server.url}", word), told)
        assert not server.calls


def test_a_table_that_is_too_small_keeps_its_rejects_and_takes_the_cure(run):
    words = ("recipe=psyche_r1", f"run={run}", *TABLE)
    told = "200 held-out questions and 2000 GRPO prompts are wanted, but only 192 questions are left"
    refused(launch("data", *words, "dry_run=true"), told)
    assert not Path("runs", run).exists()
    message = refused(launch("data", *words), told)
    assert Path("runs", run, "data/questions.rejects.jsonl").is_file()
    cure = message.partition("; say for example ")[2].split()[:2]
    dry = launch("data", *words, *cure, "dry_run=true")
    assert dry.returncode == 0 and "192 rows: 135 SFT, 38 GRPO, 19 held out" in dry.stdout, dry.stdout
    assert launch("data", *words, *cure).returncode == 0
