"""Composition: every offered pair composes, unknown keys are errors wherever they stand, nothing heavy is imported."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from launch.cli import arguments
from launch.cli.arguments import NOT_RECIPES, RECIPES, Stage, parse
from launch.cli.configuration import compose_stage
from launch.frameworks.llama_factory import keys
from tests.conftest import launch, refused

STAGES = {
    "data": Stage("data", has_hardware=False),
    "sft": Stage("sft", base_model_key="model_name_or_path"),
    "grpo": Stage("grpo", base_model_key="actor_rollout_ref.model.path"),
    "eval": Stage("eval"),
}


def compose(stage: str, *words: str):
    return compose_stage(STAGES[stage], parse(STAGES[stage], list(words)))


def offered():
    recipes = sorted(p for p in RECIPES.glob("*/*.yaml") if p.parent.name not in NOT_RECIPES and p.stem in STAGES)
    for file in recipes:
        hardware = sorted(p.parent.name for p in RECIPES.glob(f"hardware/*/{file.stem}.yaml"))
        for name in hardware if STAGES[file.stem].has_hardware else [None]:
            yield file.stem, file.parent.name, name


@pytest.mark.parametrize(("stage", "recipe", "hardware"), list(offered()))
def test_every_offered_recipe_and_hardware_composes(stage, recipe, hardware):
    more = [f"hardware={hardware}"] if hardware else ["source_path=questions.csv"]
    more += ["cards=4"] if hardware == "gpu" and stage != "eval" else []  # else those of this machine
    config = compose(stage, f"recipe={recipe}", *more)
    assert config.run == recipe


def leaves(node: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in node.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recipe_does_not_repeat_what_it_inherits(file):
    import yaml

    own = yaml.safe_load(file.read_text(encoding="utf-8"))
    parents = [next(iter(d)).split("@")[0] for d in own.pop("defaults", []) if isinstance(d, dict)]
    for parent in parents:
        inherited = leaves(yaml.safe_load((RECIPES / parent.strip("/") / file.name).read_text(encoding="utf-8")))
        repeated = [key for key, value in leaves(own).items() if key in inherited and inherited[key] == value]
        assert not repeated, f"{file} repeats {repeated} of {parent}"


def test_hardware_comes_after_the_recipe_and_the_command_line_last():
    config = compose("grpo", "recipe=demo", "hardware=cpu", "cards=2", "seed=7")
    assert config.trainer.device == "cpu"
    assert config.ray_kwargs.ray_init.num_gpus == 2
    assert config.ray_kwargs.ray_init.num_cpus == 14
    assert config.actor_rollout_ref.rollout.seed == config.data.seed == 7
    assert config.actor_rollout_ref.rollout.prompt_length == config.data.max_prompt_length


@pytest.mark.parametrize(("name", "cards", "nodes"), [("gpu1", 1, 1), ("gpu8", 8, 1), ("gpu8x2", 8, 2)])
def test_named_hardware_is_cards_and_nodes(name, cards, nodes):
    words = {"sft": ["recipe=psyche_r1"], "grpo": ["recipe=psyche_r1"]}
    for stage, recipe in words.items():
        named = compose(stage, *recipe, f"hardware={name}")
        assert named == compose(stage, *recipe, "hardware=gpu", f"cards={cards}", f"nodes={nodes}")
        assert (named.cards, named.nodes) == (cards, nodes)
    assert (named.trainer.n_gpus_per_node, named.trainer.nnodes) == (cards, nodes)
    assert named.actor_rollout_ref.actor.fsdp_config.param_offload is (cards * nodes == 1)
    assert (compose("sft", *words["sft"], f"hardware={name}").deepspeed is None) is (cards * nodes == 1)


def test_all_cards_that_are_seen_are_taken(monkeypatch):
    OmegaConf.register_new_resolver("gpus", lambda: 4, replace=True)
    try:
        assert compose("sft", "recipe=psyche_r1", "hardware=gpu").cards == 4
        assert compose("grpo", "recipe=psyche_r1", "hardware=gpu").trainer.n_gpus_per_node == 4
        assert compose("sft", "recipe=psyche_r1", "hardware=gpu", "cards=2").gradient_accumulation_steps == 64
        with pytest.raises(BadInput, match="not a multiple of 2 per device x 3 devices"):
            compose("sft", "recipe=psyche_r1", "hardware=gpu", "cards=3")
    finally:
        OmegaConf.register_new_resolver("gpus", arguments.count_gpus, replace=True)


REFUSED = [
    ("sft", "recipe=demo hardware=cpu lerning_rate=1", "Did you mean learning_rate?"),
    ("sft", "recipe=demo hardware=cpu psyforge.evn={}", "Did you mean psyforge.env?"),
    ("sft", "recipe=demo hardware=cpu psyforge.processes=2", "psyforge.processes was renamed; it is cards now"),
    ("grpo", "recipe=demo hardware=cpu trainer.total_epoch=3", "Did you mean trainer.total_epochs?"),
    ("grpo", "recipe=demo hardware=cpu actor_rollout_ref.actor.kl_los_coef=0", "actor_rollout_ref.actor.kl_loss_coef?"),
    ("grpo", "recipe=demo hardware=cpu nonsense=3", "unknown key 'nonsense'"),
    ("data", "recipe=demo select.multy=3", "Did you mean select.multi?"),
    ("eval", "recipe=demo hardware=cpu max_new_token=3", "Did you mean max_new_tokens?"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "line", "message"), REFUSED, ids=[line for _, line, _ in REFUSED])
def test_an_unknown_key_on_the_command_line_is_an_error(stage, line, message):
    with pytest.raises(BadInput) as error:
        compose(stage, *line.split())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("stage", "content", "message"),
    [
        ("sft", "learning_rat: 1", "Did you mean learning_rate?"),
        ("sft", "psyforge: {evn: {}}", "Did you mean psyforge.env?"),
        ("grpo", "trainer: {total_epoch: 1}", "Did you mean trainer.total_epochs?"),
        ("grpo", "custom_reward_functio: {path: x}", "Did you mean custom_reward_function?"),
        ("data", "selct: {single: 1}", "selct"),
    ],
)
def test_an_unknown_key_in_a_recipe_file_is_an_error(monkeypatch, tmp_path, stage, content, message):
    from launch.cli import arguments, configuration

    for module in (arguments, configuration):
        monkeypatch.setattr(module, "RECIPES", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{stage}.yaml").write_text(f"# @package _global_\n{content}\n")
    (tmp_path / "hardware" / "cpu").mkdir(parents=True)
    (tmp_path / "hardware" / "cpu" / f"{stage}.yaml").write_text("# @package _global_\n")
    with pytest.raises(BadInput) as error:
        compose(stage, "recipe=mine", *(["hardware=cpu"] if stage != "data" else []))
    assert message in str(error.value)


def test_a_key_that_only_llama_factory_knows_is_accepted():
    assert "weight_decay" not in Path("recipes/demo/sft.yaml").read_text()
    assert compose("sft", "recipe=demo", "hardware=cpu", "weight_decay=0.1").weight_decay == 0.1


def test_a_key_added_in_so_many_words_is_accepted():
    config = compose("grpo", "recipe=demo", "hardware=cpu", "+trainer.my_own={a: 1}")
    assert config.trainer.my_own.a == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["selectors={small: {model: A}, large: {}}"], {"small": {"model": "A"}, "large": {}}),
        (
            ["selectors={second: {model: B}}", "selectors.second.base_url=X"],
            {"second": {"model": "B", "base_url": "X"}},
        ),
        (["~selectors.first", "selectors={second: {}}"], {"second": {}}),
        (["selectors.first.model=A"], {"first": {"model": "A"}}),
        (["selectors.second={model: B}"], {"first": {}, "second": {"model": "B"}}),
        (["selectors=null"], None),
        ([], {"first": {}}),
    ],
    ids=str,
)
def test_selectors_given_as_a_whole_take_the_place_of_the_recipes(words, expected):
    assert compose("data", "recipe=psyche_r1", *words).selectors == expected


def test_another_source_of_dialogues_keeps_nothing_of_the_recipes():
    other = compose("data", "recipe=psyllm_demo", "dialogues={source: smilechat, path: X}").dialogues
    assert other == {"source": "smilechat", "path": "X"}
    assert compose("data", "recipe=psyllm_demo", "dialogues.path=X").dialogues == {"source": "messages", "path": "X"}


def test_the_list_of_llama_factorys_keys_is_current():
    from launch.frameworks.llama_factory import accepted_keys

    assert keys() == accepted_keys()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("template=qwen3_nothinking", "template=qwen3_nothinking: .*launch/conf/.*Did you mean qwen3_nothink[?]"),
        ("learning_rate=abc", "learning_rate=abc: LLaMA-Factory takes a number$"),
        ("enable_thinking=maybe", "enable_thinking=maybe: LLaMA-Factory takes true or false, null"),
        ("bf16=1", "true or false"),
        ("cutoff_len=4.5", "a whole number"),
        ("max_steps=null", "a whole number"),
        ("lr_scheduler_type=cosin", "Did you mean cosine[?]"),
        ("run_name=2024", "as a text it is run_name=\"'2024'\""),
        ("lora_target=[q_proj]", "a text$"),
        ("save_strategy=false", "best, epoch, no, steps"),
    ],
)
def test_a_value_that_llama_factory_would_fall_over_or_train_with_is_refused(word, told):
    with pytest.raises(BadInput, match=told):
        compose("sft", "recipe=demo", "hardware=cpu", word)


@pytest.mark.parametrize(
    ("stage", "word", "told"),
    [
        ("grpo", "actor_rollout_ref.actor.optim.lr=abc", "lr=abc: expected a number, as its default 1e-06"),
        ("grpo", "actor_rollout_ref.actor.use_kl_loss=maybe", "use_kl_loss=maybe: expected true or false"),
        ("sft", "nodes=two", "nodes=two: expected a number"),
    ],
)
def test_a_value_unlike_its_default_is_refused(stage, word, told):
    with pytest.raises(BadInput, match=told):
        compose(stage, "recipe=demo", "hardware=cpu", word)
    assert compose("grpo", "recipe=demo", "hardware=cpu", "actor_rollout_ref.rollout.top_p=0.9")  # verl's default: 1


def test_values_of_every_kind_that_llama_factory_takes_compose():
    words = ("template=null", "learning_rate=1", "enable_thinking=false", "report_to=[tensorboard]", "deepspeed={a: 1}",
             "lr_scheduler_type=cosine", "run_name='2024'", "save_strategy=no", "fsdp=full_shard")  # fmt: skip
    config = compose("sft", "recipe=demo", "hardware=cpu", *words)
    assert (config.template, config.run_name, config.report_to) == (None, "2024", ["tensorboard"])


@pytest.mark.parametrize("path", ["a b/题 (1).csv", "x,y.csv", "it's.csv"])
def test_paths_with_blanks_chinese_and_parentheses_reach_the_configuration(path):
    assert compose("data", "recipe=demo", f"source_path={path}").source_path == path


def test_keys_of_dictionaries_may_be_in_any_script():
    kinds = {"配伍题": "single", "A 型: 判断": "true_false", "𠮷b": "multi"}
    words = ("source_options={kinds: " + json.dumps(kinds, ensure_ascii=False) + "}",)
    config = compose("data", "recipe=demo", *words)
    assert OmegaConf.to_container(config.source_options) == {"kinds": kinds}


def test_a_value_that_is_missing_is_named():
    with pytest.raises(BadInput, match="run has no value"):
        compose_stage(STAGES["data"], parse(Stage("data", has_recipe=False, has_hardware=False), ["source_path=x"]))


@pytest.mark.parametrize("stage", ["data", "sft", "grpo", "eval"])
def test_a_dry_run_prints_and_touches_nothing(stage):
    hardware = [] if stage == "data" else ["hardware=cpu"]
    before = sorted(Path().iterdir())
    done = launch(stage, "recipe=demo", *hardware, "run=never-made", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "# command:" in done.stdout
    assert not Path("runs/never-made").exists()
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_dry_run_imports_no_framework_and_counts_rows_as_unknown(stage):
    code = (
        f"import sys; sys.argv = ['x', 'recipe=demo', 'hardware=cpu', 'run=never-made', 'dry_run=true']\n"
        f"from launch.{stage} import run; from launch.cli import arguments, entry\n"
        f"entry.run_stage(arguments.{stage.upper()}, run)\n"
        "print([m for m in ('torch', 'ray', 'verl', 'llamafactory', 'transformers', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "rows unknown" in done.stdout


@pytest.mark.parametrize(
    ("flag", "expected"), [("--hydra-help", "Print Hydra information"), ("--cfg job", "learning_rate: 0.002")]
)
def test_hydras_own_flags_keep_working(flag, expected):
    done = launch("sft", *flag.split(), "recipe=demo", "hardware=cpu")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert not Path("outputs").exists()


def test_multirun_runs_every_combination():
    done = launch("sft", "--multirun", "recipe=demo", "hardware=cpu", "run=m-a,m-b", "dry_run=true")
    assert done.returncode == 0, done.stderr
    for name in ("m-a", "m-b"):
        assert f"runs/{name}/sft/llama_factory.yaml" in done.stdout
    assert not Path("multirun").exists() and not Path("multirun.yaml").exists()


def test_exit_code_and_message_of_a_wrong_key():
    refused(launch("sft", "recipe=demo", "hardware=cpu", "lerning_rate=1"), "unknown key 'lerning_rate'")
    refused(launch("grpo", "recipe=demo", "hardware=cpu", "trainer.total_epoch=1"), "trainer.total_epochs")
    refused(launch("data", "recipe=nothing"), "recipes with a data stage: demo")
    assert list(itertools.chain(Path("runs").glob("nothing*"))) == []


def test_the_reference_has_every_key_that_verl_composes():
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from launch.cli import configuration

    stage = Stage("grpo", base_model_key="actor_rollout_ref.model.path")
    words = configuration.hydra_overrides(stage, parse(stage, ["hardware=gpu8"]))
    with initialize_config_dir(str(configuration.CONF), version_base="1.3"):
        composed = hydra_compose("grpo", words[:1])
    quick = configuration.reference_of(stage)
    keys = [dict(configuration._leaves(c, containers=True)).keys() for c in (composed, quick)]
    assert keys[0] == keys[1]
    assert configuration._open_places(composed) == configuration._open_places(quick)
