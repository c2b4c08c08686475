"""What launch.check_gpu says, of planted figures and, slow, of a whole check on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_pipeline.errors import BadInput
from launch import check_gpu
from launch.cli.arguments import GRPO, SFT, parse
from launch.cli.configuration import compose_stage
from launch.models import tiny
from launch.preflight import machine, memory, throughput
from launch.preflight.batch_plan import plan_grpo, plan_sft
from launch.preflight.machine import FAILED, NOT_TRIED, OK
from launch.reports import check_gpu as figures
from launch.running import child
from tests.conftest import launch, refused
from tests.launch.preflight.test_gpu import program


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder in which runs/ is a check's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / check_gpu.FOLDER).mkdir(parents=True)
    return tmp_path


def checked(cards: int = 1) -> check_gpu.Check:
    part = SimpleNamespace(
        actor=SimpleNamespace(ppo_micro_batch_size_per_gpu=20), rollout=SimpleNamespace(n=5, name="hf")
    )
    config: Any = SimpleNamespace(trainer=SimpleNamespace(device="cpu"), cards=cards, actor_rollout_ref=part)
    return check_gpu.Check(config, ["hardware=cpu"])


def test_the_model_has_what_the_papers_model_has_and_the_demos_has_not(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    tiny.make(tmp_path / "m", ["心理学的问题，情绪与记忆。 abcde fghij" * 20], 1, tiny.SMALL)
    config, tokenizer = AutoConfig.from_pretrained(tmp_path / "m"), AutoTokenizer.from_pretrained(tmp_path / "m")
    assert not config.tie_word_embeddings
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.vocab_size == len(tokenizer) + tiny.SMALL["spare_rows"]
    first_unused = len(tokenizer) - 2 - tiny.SMALL["unused_tokens"]
    for text in ("心理学的记忆", "aaaaa abcde zzzzz", "<think>情绪</think>"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not [id for id in ids if first_unused <= id < len(tokenizer) - 2]
    assert tokenizer.decode([first_unused, first_unused + 1]) == " aaaaa aaaab"


def test_the_large_one_has_the_vocabulary_of_the_7b_model():
    large, published = tiny.LARGE, memory.shape("Qwen/Qwen2.5-7B-Instruct")
    tokens = large["vocab_size"] + large["unused_tokens"] + 2
    assert published is not None
    assert (tokens, tokens + large["spare_rows"]) == (151_665, published.vocab_size)


def test_mfu_is_what_the_arithmetic_of_a_transformer_says(here):
    model = memory.Shape(8, 16, 1, 2, 2, 100, False)
    weights = model.parameters - 100 * 8  # looking up an embedding is no product
    assert throughput.flops_per_token(model, 10) == 6 * weights + 6 * 8 * 10
    tied = memory.Shape(8, 16, 1, 2, 2, 100, True)
    assert throughput.flops_per_token(tied, 10) == throughput.flops_per_token(model, 10)
    assert throughput.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert throughput.peak_flops("NVIDIA H200") == throughput.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert throughput.peak_flops("GeForce 1080") is None


def plant_sft(watch: throughput.Watch) -> dict:
    folder = Path("runs/x/sft")
    folder.mkdir(parents=True)
    Path("runs/x/base").mkdir()
    Path("runs/x/base/config.json").write_text(
        json.dumps({"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": False})
    )  # fmt: skip
    manifest = {
        "layout": 2,
        "base_model": "runs/x/base",
        "counts": {"tokens_mean": 100, "loss_first": 3.0, "loss_last": 2.0},
    }
    from launch.running import folder as folders

    manifest["manifest_sha256"] = folders._own_hash(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return throughput.sft("x", watch, 8, ["NVIDIA H200", "NVIDIA H200"])


def test_sft_is_measured_between_its_first_and_last_step(here):
    found = plant_sft(throughput.Watch(steps=[(10.0, 1), (14.0, 5)]))  # the steps before the first one are not counted
    assert found["step_s"] == 1.0
    assert found["tokens_per_s"] == 800.0
    shape = memory.shape("runs/x/base")
    assert shape is not None
    assert found["mfu"] == round(throughput.flops_per_token(shape, 100) * 800 / (2 * 989e12), 4)


def test_one_step_is_no_measurement(here):
    with pytest.raises(BadInput, match="no two steps"):
        plant_sft(throughput.Watch(steps=[(10.0, 1)]))


def step(number: int, difference: float, norm: float = 1.0) -> dict:
    timed = {f"timing_s/{name}": 2.0 for name in ("step", *figures.PARTS)}
    return {"step": number, "actor/grad_norm": norm, "perf/total_num_tokens": 100, **timed,
            "rollout_corr/k3_kl": difference}  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([step(1, 2e-5), step(2, 3e-5)], None),
        ([step(1, 0.0), step(2, 2.8e-4)], "does not have the new weights"),
        ([step(1, 2e-3, norm=0.0), step(2, 2e-3)], "no gradient"),
    ],
)
def test_a_rollout_that_keeps_old_weights_is_seen(here, steps, fault):
    folder = Path("runs/x/grpo")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps))
    if fault:
        with pytest.raises(BadInput, match=fault):
            figures.grpo("x")
    else:
        assert figures.grpo("x")["update_s"] == 2.0


def test_a_part_that_cannot_be_tried_says_why_and_what_follows_it_too(here):
    check = checked()
    check.part("SFT", lambda: "never", ("no_such_package",))
    check.part("merge", lambda: "never", (), ("SFT",))
    check.part("data", lambda: "done")
    check.part("GRPO", lambda: (_ for _ in ()).throw(BadInput("the GPU is full; fewer rows")), (), ("data",))
    told = {line.name: (line.state, line.told) for line in check.lines}
    assert told["SFT"] == (NOT_TRIED, "no no_such_package here")
    assert told["merge"] == (NOT_TRIED, "it begins where SFT ends")
    assert told["data"][0] == OK
    assert told["GRPO"][0] == FAILED and "the GPU is full; fewer rows" in told["GRPO"][1]
    check.summary["wall_s"] = 1.0
    assert check.close() == 1
    assert json.loads((check_gpu.FOLDER / "summary.json").read_text())["lines"][0]["state"] == NOT_TRIED


def test_the_last_words_of_a_stage_are_its_error(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nTraceback\n  line\n\nSFT ended with exit code 1: CUDA out of memory\nthe GPU is full\nlog: x\n")
    assert child.last_words(log) == "SFT ended with exit code 1: CUDA out of memory\nthe GPU is full\nlog: x"
    log.write_text("note\nerror: cards=3: no\n")
    assert child.last_words(log) == "error: cards=3: no"
    log.write_text("")
    assert child.last_words(log) == "its log says nothing"


def test_a_folder_of_somebody_else_is_left_alone(here):
    (check_gpu.FOLDER / "data").mkdir()
    with (check_gpu.FOLDER / ".lock").open("a") as lock:
        with pytest.raises(BadInput, match="move it away"):
            check_gpu.start_anew(lock)
        (check_gpu.FOLDER / "summary.json").write_text("{}")
        check_gpu.start_anew(lock)
        assert [path.name for path in check_gpu.FOLDER.iterdir()] == [".lock"]
        with (check_gpu.FOLDER / ".lock").open("a") as second, pytest.raises(BadInput, match="another check"):
            check_gpu.start_anew(second)


def test_cards_are_told_by_name_and_memory(tmp_path, monkeypatch):
    program(
        tmp_path, "nvidia-smi", 'case $1 in *name) echo "NVIDIA H200\nNVIDIA H200";; *) echo "143771\n143771";; esac'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.cards() == "2 x NVIDIA H200 with 140 GiB"


def test_a_package_that_is_not_as_in_the_lock_is_told_with_its_cure(monkeypatch):
    monkeypatch.setattr(machine, "_version", lambda name: "0.1")
    with pytest.raises(BadInput, match=r"torch 0.1, not .*as requirements-cpu.txt says; first: bash launch/install.sh"):
        machine.packages()


def test_wrong_words_are_refused_before_anything_is_deleted():
    refused(launch("check_gpu", "card=3"), "Did you mean cards?")
    refused(launch("check_gpu", "hardware=gpu", "cards=3"), "cards=3", "this machine shows 0 GPUs")
    refused(launch("check_gpu", "hardware=tpu"), "hardware=tpu")


@pytest.mark.parametrize(("build", "hardware"), [(None, "cpu"), ("0.28.0+cpu", "cpu_vllm"), ("0.24.0", "cpu")])
def test_without_a_gpu_vllm_is_taken_where_it_is_built_for_that(build, hardware, monkeypatch):
    monkeypatch.setattr(check_gpu.arguments, "count_gpus", lambda: 0)
    monkeypatch.setattr(check_gpu.vllm, "is_installed", lambda: build is not None)
    monkeypatch.setattr(check_gpu.vllm, "version", lambda name: build)
    assert check_gpu.this_machine() == hardware
    if build is None:
        with pytest.raises(BadInput, match="hardware=cpu_vllm: vLLM is not installed here; .*install.sh cpu vllm"):
            check_gpu.check(["hardware=cpu_vllm"])


@pytest.mark.parametrize("cards", [1, 3, 8])
def test_what_it_runs_on_gpus_composes_and_its_batches_divide(cards, here, monkeypatch):
    words = ["hardware=gpu", f"cards={cards}"]
    composed = compose_stage(GRPO, parse(GRPO, ["recipe=psyche_r1", "run=check_gpu", *words]))
    check, asked = check_gpu.Check(composed, words), {}

    def stage(name, given, watch=None):
        asked[name] = given
        raise BadInput("nothing is run here")

    monkeypatch.setattr(check, "stage", stage)
    for part in (check.sft, check.grpo):
        with pytest.raises(BadInput, match="nothing is run"):
            part()
    sft = compose_stage(SFT, parse(SFT, [*asked["sft"], "run=check_gpu"]))
    assert plan_sft(sft, 100).effective_batch == 4 * cards
    assert sft.psyforge.random_model.unused_tokens == tiny.LARGE["unused_tokens"]
    assert (sft.bf16, sft.per_device_train_batch_size) == (True, 2)  # the recipe's
    grpo = compose_stage(GRPO, parse(GRPO, [*asked["grpo"], "run=check_gpu"]))
    plan = plan_grpo(grpo, 2 * check.prompts)
    assert (plan.steps, plan.mini_per_gpu, plan.micro_batch) == (2, 20, 20)
    assert grpo.data.max_response_length == 2048 and grpo.actor_rollout_ref.rollout.name == "vllm"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["hardware=cpu"], []], ids=["without vLLM", "as the machine is"])
def test_on_the_cpu_every_line_is_ok_or_not_tried(words):
    hardware = words[0].partition("=")[2] if words else check_gpu.this_machine()
    if words == [] and hardware != "cpu_vllm":
        pytest.skip("no vLLM for a CPU here: bash launch/install.sh cpu vllm")
    done = subprocess.run(
        [sys.executable, "-m", "launch.check_gpu", *words], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((check_gpu.FOLDER / "summary.json").read_text())
    lines = {line["name"]: line["state"] for line in summary["lines"]}
    assert set(lines.values()) <= {OK, NOT_TRIED}
    assert [lines[name] for name in ("SFT", "GRPO", "merge", "server, ten questions")] == [OK] * 4
    assert summary["cards"] == 0 and summary["sft"]["tokens_per_s"] > 0 and "mfu" not in summary["sft"]
    assert summary["grpo"]["step_s"] > 0 and summary["eval"]["items"] == check_gpu.ITEMS
    assert ("vLLM" in lines) == (hardware == "cpu")
    served = next(line["told"] for line in summary["lines"] if line["name"] == "server, ten questions")
    assert served.startswith("vllm: " if hardware == "cpu_vllm" else "transformers: ")
    shutil.rmtree(check_gpu.FOLDER)
