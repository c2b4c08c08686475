"""The real thing at its smallest: LLaMA-Factory SFT and verl GRPO on the CPU, killed and continued, merged, evaluated.

The tests of this file build on each other, in order, on one run.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TABLE, launch, refused

SHAPE = ("vocab_size=600", "hidden_size=32", "intermediate_size=64", "num_hidden_layers=1", "num_attention_heads=2",
         "num_key_value_heads=1")  # fmt: skip
SFT = ("recipe=demo", "hardware=cpu", "max_steps=6", "save_strategy=steps", "save_steps=1", "save_total_limit=3",
       "logging_steps=1", "per_device_train_batch_size=32", *(f"psyforge.random_model.{s}" for s in SHAPE))  # fmt: skip
GRPO = ("recipe=demo", "hardware=cpu", "data.train_batch_size=4", "trainer.total_training_steps=3",
        "trainer.save_freq=1", "data.max_response_length=24", "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4", "trainer.max_actor_ckpt_to_keep=null",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        # a model of six steps is never right; some of its letters are, so that there is an advantage to learn from
        "reward.custom_reward_function.path=tests/launch/dense_reward.py")  # fmt: skip


def prepare(name: str) -> None:
    done = launch("data", "recipe=demo", *TABLE, f"run={name}", "split.grpo=8", "split.heldout=4")
    assert done.returncode == 0, done.stderr


def kill_when(path: Path, stage: str, *words: str) -> None:
    """Starts a stage and kills it with SIGKILL as soon as `path` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"launch.{stage}", *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    for _ in range(12_000):  # ten minutes: the first checkpoint comes late where other work runs beside
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, f"{stage} ended with {process.returncode} before {path} was there"
    process.send_signal(signal.SIGKILL)
    process.wait()


def losses(name: str) -> dict[int, float]:
    history = json.loads(Path("runs", name, "sft/model/trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def metrics(name: str, file: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path("runs", name, "grpo", file).read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(run_name):
    """The name of a second run, of the same words, that nothing interrupts."""
    import shutil

    name = f"{run_name}-whole"
    yield name
    shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def test_sft_killed_and_started_again_trains_as_if_nothing_had_happened(run_name, uninterrupted):
    for name in (run_name, uninterrupted):
        prepare(name)
    kill_when(Path("runs", run_name, "sft/model/checkpoint-3/trainer_state.json"), "sft", *SFT, f"run={run_name}")
    newest = max(Path("runs", run_name, "sft/model").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])  # as if the kill had come while it was written
    for name in (run_name, uninterrupted):
        done = launch("sft", *SFT, f"run={name}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("model.safetensors is cut off" in done.stdout) == (name == run_name)
    assert "Resuming training from" in Path("runs", run_name, "sft/train.log").read_text()
    assert losses(run_name).keys() == losses(uninterrupted).keys() == set(range(1, 7))
    for step, loss in losses(uninterrupted).items():
        assert abs(losses(run_name)[step] - loss) < 1e-5
    manifest = json.loads(Path("runs", run_name, "sft/manifest.json").read_text())
    assert manifest["counts"]["steps"] == 6
    assert "model.safetensors" in manifest["outputs"]


def test_sft_that_is_done_says_so_and_another_configuration_is_refused(run_name):
    done = launch("sft", *SFT, f"run={run_name}")
    assert done.returncode == 0
    assert "done already" in done.stdout
    refused(launch("sft", *SFT, f"run={run_name}", "learning_rate=1e-4"), "learning_rate: 0.002 -> 0.0001", "run=NAME")


def test_grpo_killed_and_started_again_continues_from_its_checkpoint(run_name):
    tracker = Path("runs", run_name, "grpo/checkpoints/latest_checkpointed_iteration.txt")
    kill_when(tracker, "grpo", *GRPO, f"run={run_name}")
    first = int(tracker.read_text())
    done = launch("grpo", *GRPO, f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [s["step"] for s in metrics(run_name, "metrics.2.jsonl")] == list(range(first + 1, 4))
    steps = metrics(run_name)
    assert steps[-1]["step"] == 3
    for step in steps:
        assert step["training/rollout_probs_diff_max"] < 1e-3
        if step["critic/advantages/max"] > 0:
            assert step["actor/grad_norm"] > 0
    assert any(step["critic/advantages/max"] > 0 for step in steps)
    assert Path("runs", run_name, "grpo/rollouts/3.jsonl").is_file()


def test_grpo_that_is_done_says_so(run_name):
    done = launch("grpo", *GRPO, f"run={run_name}")
    assert done.returncode == 0
    assert "done already" in done.stdout


def test_the_merged_model_speaks_as_the_checkpoint(run_name):
    refused(launch("merge", f"run={run_name}", "step=9"), "no checkpoint in", "saved steps: 1, 2, 3")
    done = launch("merge", f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads(Path("runs", run_name, "merge/manifest.json").read_text())
    assert manifest["counts"]["max_logprob_diff"] < 1e-5
    assert 0 < manifest["counts"]["rounding_logprob_diff"] < 0.2
    card = Path("runs", run_name, "merge/model/README.md").read_text()
    assert "not a medical device" in card
    assert Path("runs", run_name, "merge/model/chat_template.jinja").is_file()


def test_a_merge_that_went_wrong_is_seen(run_name, tmp_path):
    """The parity check itself: a tensor changed by little has to be found."""
    import shutil

    from safetensors.torch import load_file, save_file

    from launch.merge import compare
    from launch.preflight.checks import read_grpo_rows

    model = shutil.copytree(Path("runs", run_name, "merge/model"), tmp_path / "model")
    prompts = [row["prompt"] for row in read_grpo_rows(Path("runs", run_name, "data/grpo_train.parquet"))[:2]]
    actor = Path("runs", run_name, "grpo/checkpoints/global_step_3/actor")
    assert compare(model, actor, prompts)["max_logprob_diff"] < 1e-5
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in tensors if n.endswith("o_proj.weight"))
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    assert compare(model, actor, prompts)["max_logprob_diff"] > 1e-3


def test_evaluation_reports_every_checkpoint_with_counts(run_name):
    done = launch("eval", "recipe=demo", "hardware=cpu", f"run={run_name}", "max_new_tokens=24",
                  "sets.grpo_prompts.samples=2")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(Path("runs", run_name, "eval/metrics.json").read_text())
    assert set(found["sets"]["heldout"]) == {"base", "sft", "grpo"}
    for checkpoint in ("base", "sft", "grpo"):
        assert found["sets"]["heldout"][checkpoint]["items"] == 4
        assert found["sets"]["grpo_prompts"][checkpoint]["responses"] == 16
        rows = Path("runs", run_name, f"eval/responses.{checkpoint}.grpo_prompts.jsonl").read_text().splitlines()
        assert len(rows) == 16
        assert {"id", "read", "response", "acc", "finish"} <= set(json.loads(rows[0]))
    assert found["sets"]["heldout"]["base"]["format_rate"] == 0
    assert set(found["gains"]["grpo_prompts"]) == {"base -> sft", "sft -> grpo"}


def test_a_checkpoint_that_is_not_there_says_how_to_make_it(uninterrupted):
    refused(launch("eval", "recipe=demo", "hardware=cpu", f"run={uninterrupted}", "checkpoint=grpo"),
            "no checkpoint=grpo", "python -m launch.grpo")  # fmt: skip
    refused(launch("eval", "recipe=demo", "hardware=cpu", f"run={uninterrupted}", "checkpoint=best"), "known are base")
    refused(launch("merge", f"run={uninterrupted}"), "the grpo stage has not run")
