"""The batch arithmetic of both frameworks, as a truth table."""

import pytest

from data_pipeline.errors import BadInput
from launch.preflight.batch_plan import GrpoPlan, SftPlan, check_grpo, check_sft


def grpo(**changes) -> GrpoPlan:
    card = {  # Psyche-R1's card: 8 GPUs, 128 prompts, mini 32, micro 20 per GPU; n=5
        "rows": 1280, "train_batch": 128, "rollout_n": 5, "mini_batch": 32, "micro_batch": 20,
        "log_prob_micro_batches": {"rollout": 20, "ref": 20}, "world_size": 8, "epochs": 2,
    }  # fmt: skip
    return GrpoPlan(**{**card, **changes})


# changes, responses a step, responses of a mini batch on one GPU, updates a step, steps
FITTING = [
    ({}, 640, 20, 4, 20),
    ({"rollout_n": 10}, 1280, 40, 4, 20),
    ({"world_size": 1}, 640, 160, 4, 20),
    ({"rows": 1279}, 640, 20, 4, 18),
    ({"rows": None}, 640, 20, 4, None),
    ({"micro_batch": None, "log_prob_micro_batches": {}}, 640, 20, 4, 20),
    ({"world_size": 8, "sequence_parallel": 2}, 640, 40, 4, 20),
    ({"total_steps": 7}, 640, 20, 4, 7),
]


@pytest.mark.parametrize(("changes", "responses", "mini_per_gpu", "updates", "steps"), FITTING)
def test_a_fitting_grpo_batch(changes, responses, mini_per_gpu, updates, steps):
    plan = check_grpo(grpo(**changes))
    assert (plan.responses, plan.mini_per_gpu, plan.updates_per_step, plan.steps) == (
        responses, mini_per_gpu, updates, steps)  # fmt: skip
    assert str(responses) in plan.notes()[0]


IMPOSSIBLE = [
    # the card's numbers work only for n a multiple of 5
    ({"rollout_n": 8}, ["ppo_micro_batch_size_per_gpu=20", "nearest: 16 or 32", "rollout.n: 5 or 10"]),
    ({"rollout_n": 16}, ["ppo_micro_batch_size_per_gpu=20", "rollout.n: 15 or 20"]),
    (
        {"train_batch": 100},
        ["data.train_batch_size=100 (nearest: 96 or 128)", "ppo_mini_batch_size=32 (nearest: none)"],
    ),
    ({"mini_batch": 256}, ["ppo_mini_batch_size=256 (nearest: 128"]),
    ({"mini_batch": 2, "micro_batch": 1, "world_size": 8}, ["does not divide by 8 GPUs", "rollout.n: 4 or 8"]),
    ({"log_prob_micro_batches": {"ref": 32}}, ["ref.log_prob_micro_batch_size_per_gpu=32", "nearest: 20 or 40"]),
    ({"rows": 100}, ["more than the 100 prompts"]),
    ({"world_size": 6, "sequence_parallel": 4}, ["ulysses_sequence_parallel_size=4"]),
    ({"micro_batch": 0}, ["ppo_micro_batch_size_per_gpu=0: must be a positive whole number"]),
    ({"train_batch": -1}, ["data.train_batch_size=-1: must be a positive whole number"]),
    ({"rollout_n": 2.5}, ["rollout.n=2.5: must be a positive whole number"]),
    ({"epochs": True}, ["trainer.total_epochs=True"]),
]


@pytest.mark.parametrize(("changes", "messages"), IMPOSSIBLE)
def test_an_impossible_grpo_batch_names_the_nearest_that_fit(changes, messages):
    with pytest.raises(BadInput) as error:
        check_grpo(grpo(**changes))
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("rows", "per_device", "accumulation", "world", "epochs", "effective", "steps"),
    [
        (120, 4, 1, 1, 20.0, 4, 600),  # the demo
        (2560, 2, 16, 8, 2.0, 256, 20),  # Psyche-R1's card
        (2561, 2, 16, 8, 2.0, 256, 22),
        (10, 8, 4, 1, 1.0, 32, 1),
        (None, 2, 16, 8, 2.0, 256, None),
    ],
)
def test_an_sft_batch(rows, per_device, accumulation, world, epochs, effective, steps):
    plan = check_sft(SftPlan(rows, per_device, accumulation, world, epochs))
    assert (plan.effective_batch, plan.steps) == (effective, steps)


@pytest.mark.parametrize("value", [0, -1, True, "4"])
def test_an_sft_batch_must_be_positive(value):
    with pytest.raises(BadInput, match="per_device_train_batch_size"):
        check_sft(SftPlan(10, value, 1, 1, 1.0))
