"""GRPO with verl's own vLLM rollout on a CPU, weight updates included. Slow.

Skipped where vLLM is not installed: bash launch/install.sh cpu vllm
"""

import shutil
from pathlib import Path

import pytest

from launch.frameworks import vllm
from tests.conftest import REPOSITORY, launch
from tests.launch import tiny_model
from tests.launch.test_training import GRPO, metrics, prepare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not vllm.is_installed(), reason="no vLLM here: bash launch/install.sh cpu vllm"),
]
# The learning rate is large, so that the weights of the second step are others than those of the first.
WORDS = (*(word for word in GRPO if not word.startswith(("hardware=", "trainer.total", "trainer.save"))),
         "hardware=cpu_vllm", "trainer.total_training_steps=2", "trainer.save_freq=-1",
         "actor_rollout_ref.actor.optim.lr=0.01")  # fmt: skip
EXTENSION = "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls"


@pytest.fixture(scope="module")
def prepared(run_name) -> str:
    prepare(run_name)
    return run_name


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.make_as_large(tmp_path_factory.mktemp("model"), hidden_size=128)


@pytest.fixture
def steps(prepared, model, request):
    """Gives the metrics of two steps, trained with these further words."""
    name = f"{prepared}-{request.node.name.split('_')[-1]}"
    shutil.copytree(Path("runs", prepared), Path("runs", name))

    def trained(*words: str) -> list[dict]:
        done = launch("grpo", *WORDS, f"run={name}", f"base_model={model}", *words, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        return metrics(name)

    yield trained
    shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def difference(step: dict) -> float:
    """Returns how far the probabilities of vLLM, which drew the tokens, are from those of the actor as it now is."""
    return step["training/rollout_probs_diff_max"]


def test_two_steps_draw_from_the_weights_that_are_trained(steps):
    found = steps()
    assert [step["step"] for step in found] == [1, 2]
    assert max(map(difference, found)) < 1e-5
    assert found[0]["actor/grad_norm"] > 0


def test_the_same_measure_notices_weights_that_stayed_old(steps):
    first, second = steps(f"{EXTENSION}=tests.launch.stale_worker.WorkerExtension")
    assert difference(first) < 1e-5 and difference(second) > 1e-4  # ten times the bar; seen: 9e-4
