"""What a run costs is said before data, model and GPU are there, in numbers that follow from what is named."""

import json
import re

import pytest

from data_pipeline.errors import BadInput
from launch.preflight import costs, gpu, memory
from tests.conftest import launch

MODEL = "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A working folder of one's own, and cards that nvidia-smi would list."""
    monkeypatch.chdir(tmp_path)
    return lambda name: monkeypatch.setattr(gpu, "ask_nvidia_smi", lambda what: [name] * 8)


@pytest.mark.parametrize(
    ("listed", "name"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H200", "H200"),
     ("NVIDIA H20", "H20"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA L40S", "L40S")],
)  # fmt: skip
def test_the_card_that_is_here_is_counted_with(here, listed, name):
    here(listed)
    assert costs.machine(8).told() == f"8 x {name}"


def test_an_unknown_card_and_none_are_said(here):
    here("NVIDIA RTX A4000")
    assert costs.machine(1).told() == "1 x H100 (assumed: of NVIDIA RTX A4000 we know no figures)"
    assert "no card is here" in costs.Machine(1, "H100", 1, 1, " (assumed: no card is here)", None).told()


def test_what_check_gpu_measured_takes_the_place_of_our_share_on_such_cards_only(here):
    here("NVIDIA H100 80GB HBM3")
    assert costs.machine(8).share(packed=False) == (costs.MFU, "ours")
    costs.MEASURED.parent.mkdir(parents=True)
    costs.MEASURED.write_text(json.dumps({"cards": 1, "card": "NVIDIA H100 80GB HBM3", "sft": {"mfu": 0.31}}))
    assert costs.machine(8).share(packed=False) == (0.31, "measured, runs/check_gpu/summary.json")
    here("NVIDIA A100-SXM4-80GB")
    assert costs.machine(8).share(packed=False)[1] == "ours"


def test_hours_follow_from_parameters_tokens_and_cards(here):
    shape = memory.shape(MODEL)
    assert shape is not None
    here("NVIDIA H100 80GB HBM3")
    one, eight = costs.machine(1), costs.machine(8)
    seconds = costs.seconds_of(6, shape, 1e9, one, 0.2)
    assert seconds == pytest.approx(6 * 7.6e9 * 1e9 / (989e12 * 0.2), rel=0.01)
    assert costs.seconds_of(6, shape, 1e9, eight, 0.2) == pytest.approx(seconds / 8)
    weights = costs.decode_seconds(shape, 100, 0, 0, one.bandwidth)
    assert weights == pytest.approx(100 * 2 * 7.6e9 / (0.6 * 3.35e12), rel=0.01)
    cached = costs.decode_seconds(shape, 100, 80, 1000, one.bandwidth) - weights
    assert cached == pytest.approx(
        100 * 80 * 1000 * 57_344 / (0.6 * 3.35e12), rel=0.01
    )  # 28 layers x 4 heads x 128 x 4


def test_dry_runs_say_hours_disk_and_memory_before_anything_is_there(run_name):
    sets = ("sets.pceb.path=/nowhere", "sets.cpsyexam.path=/nowhere")
    for stage, more in (("sft", ()), ("grpo", ()), ("eval", sets)):
        words = ("recipe=psyche_r1", "hardware=gpu8", f"run={run_name}", "dry_run=true", *more)
        done = launch(stage, *words)
        assert done.returncode == 0, done.stderr
        assert re.search(r"# time on 8 x \S+ .*estimated: [\d.]+ (h|min)", done.stdout), done.stdout
        assert re.search(r"disk: .*[GM]iB", done.stdout) and re.search(r"# memory.* estimated: \d+ GiB", done.stdout)
    assert "pceb 3,963, cpsyexam 3,902" in done.stdout


def test_a_dry_run_loads_no_framework(run_name):
    import subprocess
    import sys

    for stage in ("sft", "grpo", "eval"):
        code = (
            "import sys, runpy\n"
            f"sys.argv = ['x', 'recipe=psyche_r1', 'hardware=gpu8', 'run={run_name}', 'dry_run=true']\n"
            f"runpy.run_module('launch.{stage}', run_name='__main__')\n"
            "print([m for m in ('torch', 'ray', 'verl', 'llamafactory', 'transformers', 'vllm') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.rstrip().endswith("[]"), done.stdout + done.stderr


def test_the_tokens_of_a_server_are_stated_measured_or_ours(here):
    assert costs.tokens_per_second(None)[0] == costs.TOKENS_PER_S
    costs.MEASURED.parent.mkdir(parents=True)
    costs.MEASURED.write_text(json.dumps({"eval": {"tokens_per_s": 812.5, "items": 10}}))
    rate, whence = costs.tokens_per_second(None)
    assert rate == 812.5 and whence.startswith("runs/check_gpu/summary.json: ten at once")
    assert costs.tokens_per_second(2000) == (2000, "tokens_per_s=")
    costs.MEASURED.write_text("{")
    with pytest.raises(BadInput, match="not what check_gpu writes"):
        costs.tokens_per_second(None)
