"""The batch arithmetic of both frameworks, as a truth table."""

import copy

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import GRPO, parse
from launch.cli.configuration import compose_stage
from launch.preflight.batch_plan import GrpoPlan, SftPlan, check_grpo, check_sft, plan_grpo, scale_grpo


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


@pytest.fixture(scope="module")
def small():
    """Returns (line, plan) of Psyche-R1's recipe on so many cards with a set of so many prompts."""
    config = compose_stage(GRPO, parse(GRPO, ["recipe=psyche_r1", "hardware=gpu8", "run=x"]))

    def scaled(cards: int, prompts) -> tuple[str, GrpoPlan]:
        own = copy.deepcopy(config)
        own.grpo_prompts, own.trainer.n_gpus_per_node = prompts, cards
        (told,) = scale_grpo(own)
        return told, plan_grpo(own, prompts)

    return scaled


@pytest.mark.parametrize("cards", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("prompts", [16, 40, 200, 700, 2000, 5000])
def test_a_small_set_has_a_batch_that_divides_on_any_number_of_cards(small, cards, prompts):
    _, plan = small(cards, prompts)  # which raises for what does not
    assert plan.train_batch <= min(prompts, 128) and plan.updates_per_step <= 4
    assert plan.steps is not None and plan.steps >= 2


def test_an_epoch_of_a_small_set_keeps_its_steps_as_near_as_divides(small):
    told, plan = small(8, 200)  # the recipe: 2,000 prompts in batches of 128
    assert told == "grpo_prompts=200: batch 128 -> 16, mini batch 32 -> 8, micro batch 20 -> 5"
    assert plan.steps == 24 and plan.log_prob_micro_batches == {"rollout": 10, "ref": 10}
    told, _ = small(8, 2000)
    assert told == "grpo_prompts=2000: batch 128 -> 128, mini batch 32 -> 32, micro batch 20 -> 20"


@pytest.mark.parametrize(("prompts", "says"), [(3, "8 prompts are the least"), (0, "positive"), ("many", "positive")])
def test_a_set_that_no_batch_fits_is_refused(small, prompts, says):
    with pytest.raises(BadInput, match=says):
        small(8, prompts)
