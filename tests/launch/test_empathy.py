"""Empathy as reward: the data stage makes prompts of dialogues, a judge behind HTTP rewards replies, one GRPO step.

The tests of this file build on each other, in order, on one run.
"""

import hashlib
import json
import shutil
import socket
from pathlib import Path

import pyarrow.parquet
import pytest

from reward import judge
from reward.thought import split_thought
from tests.conftest import launch, refused
from tests.model_server import Answer, ModelServer, completion

REWARD = "reward.custom_reward_function"
JUDGE = f"{REWARD}.reward_kwargs.judge"
STEP = ("recipe=demo", "hardware=cpu", "data.train_batch_size=8", "trainer.total_training_steps=1",
        "trainer.save_freq=1", "data.max_prompt_length=800", "data.max_response_length=16",
        "actor_rollout_ref.rollout.n=4", "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4")  # fmt: skip


PROBED = judge.PROBE["answer"]


class Judge:
    """A plan of answers: a score that follows from what is asked, and for one request in four none that can be read."""

    def get(self, text: str, usual: list[Answer]) -> list[Answer]:
        score = self.score(text)
        return [prose() if score is None else Answer(completion(json.dumps({"score": score, "reason": "因为"})))]

    @staticmethod
    def score(text: str) -> int | None:
        number = hashlib.sha256(text.encode()).digest()[0]
        return None if number % 4 == 0 and PROBED not in text else number % 11


class OnlyTheProbe(Judge):
    """Answers before the training, and is out of order while it runs."""

    def get(self, text: str, usual: list[Answer]) -> list[Answer]:
        return super().get(text, usual) if PROBED in text else [Answer(b"busy", status=503)]


class Prose:
    def get(self, text: str, usual: list[Answer]) -> list[Answer]:
        return [prose()]


def prose() -> Answer:
    return Answer(completion("这个回应不错。"))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def grpo(name: str, tiny: Path, url: str | None, *words: str):
    asks = (f"{REWARD}.path=reward/judge.py", f"{JUDGE}.base_url={url}", f"{JUDGE}.model=m",
            f"{REWARD}.reward_kwargs.ledger=runs/{name}/judge.sqlite")  # fmt: skip
    return launch("grpo", *STEP, f"run={name}", f"base_model={tiny}", *(asks if url else ()), *words)


@pytest.fixture(scope="module")
def port() -> int:
    """A free port, where the judge listens each time: its address is a part of the configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def made(run_name) -> Path:
    """The data folder of a run with four questions and four dialogues as GRPO prompts."""
    done = launch("data", "recipe=demo", f"run={run_name}", "split.grpo=4", "split.grpo_dialogues=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of these dialogues, for a judge" in done.stdout
    return Path("runs", run_name, "data")


def test_dialogues_become_prompts_and_are_in_no_sft_row(made):
    table = pyarrow.parquet.read_table(made / "grpo_train.parquet").to_pylist()
    prompts = {row["extra_info"]["id"]: row for row in table if row["extra_info"]["kind"] == "dialogue"}
    assert len(table) == 8 and len(prompts) == 4 and [row["extra_info"]["index"] for row in table] == list(range(8))
    assert not prompts.keys() & {row["id"].split("/")[0] for row in rows(made / "sft.jsonl")}
    for dialogue in rows(made / "grpo_dialogues.jsonl"):
        row = prompts[dialogue["id"]]
        assert [m["role"] for m in row["prompt"]] == ["system", "user"]
        assert row["prompt"][-1]["content"] == dialogue["turns"][-2]["content"]
        assert row["reward_model"] == {"style": "model", "ground_truth": dialogue["turns"][-1]["content"]}
    counts = json.loads((made / "manifest.json").read_text())["counts"]
    assert (counts["grpo"], counts["grpo_dialogues"]) == (8, 4)
    assert counts["in"] == counts["out"] + counts["rejected"]
    assert "4 dialogues are GRPO prompts (ours" in (made / "datacard.md").read_text()
    assert {d["id"] for d in rows(made / "dialogues.jsonl")} >= prompts.keys()


def test_more_dialogues_than_there_are_and_the_cure_that_is_named(run_name):
    name = f"{run_name}-more"
    try:
        message = refused(launch("data", "recipe=demo", f"run={name}", "split.grpo_dialogues=30"),
                          "only 26 dialogues can be prompts", "say split.grpo_dialogues=26")  # fmt: skip
        done = launch("data", "recipe=demo", f"run={name}", *message.strip().rpartition("say ")[2].split())
        assert done.returncode == 0, done.stderr
        assert json.loads(Path("runs", name, "data/manifest.json").read_text())["counts"]["grpo_dialogues"] == 26
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)
    for words in (("source=table", "source_path=x.csv"), ("posts=null",)):
        done = launch("data", "recipe=demo", f"run={name}", *words, "split.grpo_dialogues=4")
        refused(done, "there is no dialogue without source=synthesis and posts=PATH", "split.grpo_dialogues=0")
    refused(launch("data", "recipe=demo", f"run={name}", "split.grpo_dialogues=-1", "dry_run=true"),
            "split.grpo_dialogues=-1: Input should be greater than or equal to 0")  # fmt: skip
    assert not Path("runs", name).exists()


def test_dialogues_alone_and_one_without_a_client_turn(run_name, tmp_path):
    name, path = f"{run_name}-alone", tmp_path / "d.jsonl"
    said = ("晚上总是睡不着，白天也没有精神，心里越来越着急。", "睡不好的日子很熬人。这样的情况有多久了？",
            "差不多有一个月了，换了工作以后就一直这样。", "换工作以后要适应的事很多，你一直一个人撑着吗？")  # fmt: skip
    talks = [[("user", f"第{n}份工作。{said[0]}"), *zip(("assistant", "user", "assistant"), said[1:], strict=True)]
             for n in range(4)]  # fmt: skip
    lines = [[{"role": role, "content": text} for role, text in turns] for turns in [[("assistant", "你好。")], *talks]]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in lines))
    try:
        done = launch("data", "recipe=demo", f"run={name}", "passages=null", "posts=null", "split.grpo=0",
                      "split.heldout=0", f"dialogues={{source: messages, path: {path}}}", "dialogues_per_question=null",
                      "pipelines.dialogues=[clean]", "split.grpo_dialogues=2")  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        folder = Path("runs", name, "data")
        (reject,) = rows(folder / "steps/dialogues/0_read/rejects.jsonl")
        assert (reject["where"], reject["code"]) == (f"{path} row 1", "starts with the counselor")
        assert len(rows(folder / "sft.jsonl")) == len(rows(folder / "grpo_dialogues.jsonl")) == 2
        for file in ("grpo_train.parquet", "grpo_validation.parquet"):  # verl refuses an empty one
            assert len(pyarrow.parquet.read_table(folder / file)) == 2
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)


def test_what_cannot_judge_is_refused_before_there_is_a_folder(made, run_name, tiny, monkeypatch):
    message = refused(
        grpo(run_name, tiny, None), "of 8 prompts 4 are of kind dialogue", "reward/psyche.py cannot reward"
    )
    for word in (f"{REWARD}.path=reward/judge.py", f"{JUDGE}.base_url=", f"{JUDGE}.model=", "split.grpo_dialogues=0"):
        assert word in message
    refused(grpo(run_name, tiny, None, f"{REWARD}.path=reward/judge.py"), "has no base_url and no model", JUDGE)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    key = (f"{JUDGE}.api_key_env=NO_SUCH_KEY", f"{JUDGE}.attempts=1")
    refused(grpo(run_name, tiny, "https://judge.example.org/v1", *key), "NO_SUCH_KEY is not set")
    with ModelServer() as gone:
        pass
    refused(grpo(run_name, tiny, gone.url, f"{JUDGE}.attempts=1"), "gives no judgement", "vllm serve m", "base_url")
    with ModelServer(plan=Prose()) as server:
        refused(grpo(run_name, tiny, server.url), "gives no judgement", "no JSON object with a score")
        refused(grpo(run_name, tiny, server.url, "algorithm.filter_groups.enable=true"), "verl leaves it out beside")
        weight = f"{REWARD}.reward_kwargs.judge_weight=2"
        refused(grpo(run_name, tiny, server.url, weight), "judge_weight=2: must be a number from 0 to 1")
    assert not Path("runs", run_name, "grpo").exists()


def test_a_dry_run_says_what_a_judge_is_asked(made, run_name, tiny):
    done = grpo(run_name, tiny, "http://127.0.0.1:9/v1", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "4 of 8 prompts are for a judge (4 dialogue): at most 16 judgements a step, 16 an epoch" in done.stdout


@pytest.mark.slow
def test_a_step_without_a_single_judgement_ends_the_training(made, run_name, tiny, port):
    with ModelServer(plan=OnlyTheProbe(), port=port) as server:
        done = grpo(run_name, tiny, server.url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "step 1: none of" in done.stderr and "give the same command again" in done.stderr


def test_a_real_step_asks_the_judge_and_learns_from_its_scores(made, run_name, tiny, port):
    """With the slow tests, the same command as the one before, which now goes on."""
    with ModelServer(plan=Judge(), port=port) as server:
        done = grpo(run_name, tiny, server.url)
        assert done.returncode == 0, done.stdout + done.stderr
        asked = [call.text for call in server.calls if PROBED not in call.text]
        assert {call.body["model"] for call in server.calls} == {"m"}
    table = pyarrow.parquet.read_table(made / "grpo_train.parquet").to_pylist()
    talks = {row["reward_model"]["ground_truth"]: row for row in table if row["extra_info"]["kind"] == "dialogue"}
    responses = rows(Path("runs", run_name, "grpo/rollouts/1.jsonl"))
    assert len(responses) == 32
    seen, scores, missing = set(), [], 0
    for response in responses:
        if response["gts"] not in talks:
            assert response["score"] in (0, pytest.approx(0.1), pytest.approx(1.0))
            continue
        answer = (split_thought(response["output"])[1] or "").strip()
        if not answer:
            assert response["score"] == 0
            continue
        quoted = [json.dumps(text, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
                  .replace("&", "\\u0026").replace("'", "\\u0027")
                  for text in (talks[response["gts"]]["extra_info"]["question"], response["gts"], answer)]  # fmt: skip
        (text,) = {text for text in asked if all(part in text for part in quoted)}
        seen.add(text)
        score = Judge.score(text)
        missing += score is None
        scores += [] if score is None else [score / 10]
        assert response["score"] == pytest.approx(0.9 * (score or 0) / 10)
    assert seen == set(asked) and scores and missing
    (step,) = rows(Path("runs", run_name, "grpo/metrics.jsonl"))
    assert step["reward/judge/mean"] == pytest.approx(sum(scores) / len(scores))
    assert step["reward/judgements/sum"] == len(scores) + missing
    assert step["reward/judge_failed/sum"] == missing
    assert step["critic/score/mean"] == pytest.approx(sum(r["score"] for r in responses) / 32)
    assert step["critic/advantages/max"] > 0 and step["actor/grad_norm"] > 0
    counts = json.loads(Path("runs", run_name, "grpo/manifest.json").read_text())["counts"]
    assert (counts["judgements"], counts["judgements_missing"]) == (len(scores) + missing, missing)
    assert f"{missing} of them missing, each of which earned nothing" in done.stdout


def test_a_stage_that_is_done_needs_no_judge(made, run_name, tiny, port):
    done = grpo(run_name, tiny, f"http://127.0.0.1:{port}/v1")
    assert done.returncode == 0, done.stderr
    assert "done already" in done.stdout
