"""The audit passes for every paper recipe, and sees each of many drifts, the frameworks' own defaults included."""

import pytest

from data_pipeline.errors import BadInput
from launch import audit
from tests.conftest import launch

WORDS = {"recipe": "psyche_r1", "hardware": "gpu8"}

SFT_DRIFTS = {
    "learning_rate=2e-5": "learning_rate",
    "seed=43": "seed",
    "psyforge.total_train_batch_size=128": "total_train_batch_size",
    "per_device_train_batch_size=4": "gradient_accumulation_steps",
    "per_device_eval_batch_size=2": "total_eval_batch_size",
    "~optim": "optim",  # transformers 5 then trains with adamw_torch_fused
    "adam_beta2=0.95": "adam_beta2",
    "adam_epsilon=1e-6": "adam_epsilon",
    "~lr_scheduler_type": "lr_scheduler_type",  # linear is transformers' default
    "~warmup_ratio": "warmup_ratio",
    "~num_train_epochs": "num_train_epochs",  # 3 is transformers' default
    "packing=true": "packing",
    "finetuning_type=lora": "finetuning_type",
    "model_name_or_path=Qwen/Qwen2.5-7B": "model_name_or_path",
    "max_steps=10": "max_steps",
}
ACTOR = "actor_rollout_ref.actor"
GRPO_DRIFTS = {
    f"{ACTOR}.optim.lr=2e-6": "learning_rate",
    "seed=1": "seed",
    "data.train_batch_size=256": "total_train_batch_size",
    "data.val_batch_size=null": "total_eval_batch_size",
    f"{ACTOR}.ppo_mini_batch_size=64": "ppo_mini_batch_size",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=10": "ppo_micro_batch_size_per_gpu",
    f"{ACTOR}.kl_loss_coef=0.01": "kl_loss_coef",
    f"{ACTOR}.use_kl_loss=false": "use_kl_loss",
    f"{ACTOR}.optim.lr_warmup_steps=-1": "lr_warmup_steps",
    "trainer.total_epochs=30": "num_epochs",
    "algorithm.adv_estimator=rloo": "adv_estimator",
    "actor_rollout_ref.rollout.n=10": "rollout_n",
    f"{ACTOR}.ppo_epochs=2": "ppo_epochs",
    "reward.custom_reward_function.path=null": "reward_function",
    "actor_rollout_ref.rollout.max_model_len=long": "RolloutConfig.max_model_len='long': expected int",
}


@pytest.fixture(scope="module")
def resolved():
    """Every variation in one process per framework: {override: values}."""

    def resolve(stage: str, overrides: list[str]) -> dict:
        settings = [audit.compose(stage, WORDS, [o] if o else []) for o in overrides]
        return dict(zip(overrides, audit.resolve(stage, settings), strict=True))

    return {"sft": resolve("sft", ["", *SFT_DRIFTS]), "grpo": resolve("grpo", ["", *GRPO_DRIFTS])}


def differing(stage: str, values: dict) -> list[str]:
    if "error" in values:
        return [audit.refusal(values)]
    return [str(row) for row in audit.compare(audit.load_card("psyche_r1"), stage, values) if row.differs]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_recipe_as_it_stands_is_as_published(resolved, stage):
    assert differing(stage, resolved[stage][""]) == []


@pytest.mark.parametrize(("stage", "override"), [("sft", o) for o in SFT_DRIFTS] + [("grpo", o) for o in GRPO_DRIFTS])
def test_one_value_that_drifts_is_seen(resolved, stage, override):
    name = {"sft": SFT_DRIFTS, "grpo": GRPO_DRIFTS}[stage][override]
    assert any(name in line for line in differing(stage, resolved[stage][override]))


def test_fewer_gpus_keep_the_published_batch():
    settings = audit.compose("sft", {"recipe": "psyche_r1", "hardware": "gpu1"}, [])
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * settings["_world"] == 256


@pytest.mark.parametrize("recipe", ["psyllm", "psydt"])
def test_the_other_papers_recipes_are_as_published(recipe):
    done = launch("audit", f"recipe={recipe}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as published" in done.stdout


def test_a_variation_on_the_command_line_exits_with_1():
    done = launch("audit", "recipe=psyllm", "sft.learning_rate=2e-5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DIFFERS" in done.stdout and "1 difference" in done.stdout
    assert "recipe psyllm on hardware gpu8, held against recipes/published/psyllm.yaml" in done.stdout
    assert "sft of psyllm with learning_rate=2e-5 on gpu8, against psyllm" in done.stdout
    assert "sft: learning_rate 2e-05, published" in done.stdout
    card = audit.load_card("psyllm")
    lines = done.stdout.splitlines()
    assert all(any(f" {name} " in line for line in lines) for name in card["stages"]["sft"]), "names are whole"


def test_a_variant_and_a_recipe_of_ones_own_are_held_against_a_card(monkeypatch, capsys, tmp_path):
    """The own recipe has SFT alone. What the frameworks make of it is asked of them."""
    for recipe in ("psyche_r1", "published", "hardware"):
        (tmp_path / recipe).symlink_to(audit.RECIPES / recipe)
    own = tmp_path / "mine"
    own.mkdir()
    (own / "sft.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /psyche_r1@_global_: sft\nlearning_rate: 3.0e-5\n", encoding="utf-8"
    )
    done = launch("audit", "recipe=psyche_r1_lora", "against=psyche_r1")
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ") and ", published " in line]
    assert told == [
        "sft: learning_rate 0.0001, published 1e-05",
        "sft: finetuning_type lora, published full",
        "grpo: learning_rate 1e-05, published 1e-06",
    ]
    assert "3 differences" in done.stdout
    for module in (audit, audit.arguments, audit.configuration):
        monkeypatch.setattr(module, "RECIPES", tmp_path)
    assert audit.main(["recipe=mine", "against=psyche_r1"]) == 1
    printed = capsys.readouterr().out
    assert "grpo: not held, since there is no recipes/mine/grpo.yaml" in printed
    assert "sft: learning_rate 3e-05, published 1e-05" in printed and "1 difference" in printed
    assert audit.main(["recipe=mine", "against=psyche_r1", "grpo.seed=1"]) == 2
    assert "recipes/mine has no grpo.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=demo"], "against=NAME holds it against psyche_r1, psydt, psyllm"),
        (["recipe=psyche"], "Did you mean psyche_r1?"),
        (["recipe=demo", "against=psyche"], "against=psyche: there is no such card"),
        (["recipe=nobody", "against=psyche_r1"], "there is no recipes/nobody/sft.yaml"),
        (["recipe=psyllm", "grpo.seed=1"], "grpo.seed=1: card psyllm has no number of grpo"),
        (["learning_rate=1"], "STAGE.KEY=VALUE"),
        (["recipe=psyche_r1", "sft.lerning_rate=1"], "Did you mean learning_rate?"),
        (["recipe=psyche_r1", "grpo.actor_rollout_ref.rollout.n=8"], "rollout.n: 5 or 10"),
        (["recipe=psyche_r1", "hardware=gpu3"], "there is"),
    ],
)
def test_what_cannot_be_audited_is_refused(words, message, capsys):
    assert audit.main(words) == 2
    assert message in capsys.readouterr().err


def test_numbers_and_truth_values_are_not_confused():
    assert audit.same(2, 2.0) and audit.same(1e-5, 0.00001) and audit.same(None, None)
    assert not audit.same(True, 1) and not audit.same(False, 0) and not audit.same("2", 2)


def test_cards_exist_only_with_sources():
    for recipe in ("psyche_r1", "psyllm", "psydt"):
        card = audit.load_card(recipe)
        assert card["source"]
        assert all(entry["why"] for stage in card["derived"].values() for entry in stage.values())
    with pytest.raises(BadInput):
        audit.load_card("pceb")
