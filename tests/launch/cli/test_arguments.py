"""The command line's contract: a table of command lines and outcomes."""

from typing import Any

import pytest

from data_pipeline.errors import BadInput
from launch.cli.arguments import REPOSITORY, Stage, check_run_name, in_earnest, parse, quote

DATA = Stage("data", subcommands={"status": ("run",)}, has_hardware=False)
SFT = Stage("sft", base_model_key="model_name_or_path")
GRPO = Stage("grpo", base_model_key="actor_rollout_ref.model.path")
MERGE = Stage("merge", has_recipe=False, has_hardware=False)

ACCEPTED = [
    (DATA, "recipe=demo", ["+demo=data", "run=demo"]),
    (DATA, "recipe=demo run=mine seed=7", ["+demo=data", "run=mine", "seed=7"]),
    (SFT, "recipe=demo hardware=cpu", ["+demo=sft", "+hardware/cpu=sft", "run=demo"]),
    (SFT, "recipe=demo base_model=Qwen/Qwen2.5-0.5B-Instruct hardware=cpu", [
        "+demo=sft", "+hardware/cpu=sft", "run=demo", "model_name_or_path=Qwen/Qwen2.5-0.5B-Instruct"]),
    (GRPO, "recipe=demo hardware=cpu base_model=a/b", [
        "+demo=grpo", "+hardware/cpu=grpo", "run=demo", "actor_rollout_ref.model.path=a/b"]),
    (GRPO, "recipe=demo hardware=cpu +trainer.new=1 ~data.seed", [
        "+demo=grpo", "+hardware/cpu=grpo", "~data.seed", "+trainer.new=1", "run=demo"]),
    (MERGE, "run=x step=3", ["run=x", "step=3"]),
    (MERGE, "run=2024 step=3", ["run='2024'", "step=3"]),  # a name, no number
]  # fmt: skip

REFUSED = [
    (DATA, "foo", "no subcommand 'foo'"),
    (DATA, "recipe=demo foo", "'foo' is not KEY=VALUE"),
    (DATA, "recipe=demo recipe=demo", "stands twice"),
    (DATA, "recipe=demmo", "Did you mean demo?"),
    (DATA, "recipe=../demo", "recipes with a data stage"),
    (DATA, "recipe=hardware/cpu", "recipes with a data stage"),
    (SFT, "recipe=demo hardware=gpu99", "there is: cpu"),
    (SFT, "recipe=demo hardware=cppu", "Did you mean cpu?"),
    (DATA, "recipe=demo hardware=cpu", "takes no hardware="),
    (MERGE, "recipe=demo run=x", "takes no recipe="),
    (DATA, "recipe=demo run=a/b", "plain name"),
    (DATA, "recipe=demo run=../x", "plain name"),
    (DATA, "recipe=demo run=.hidden", "plain name"),
    (DATA, "recipe=demo run=", "plain name"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "line", "overrides"), ACCEPTED, ids=[line for _, line, _ in ACCEPTED])
def test_a_command_line_becomes_these_overrides(stage, line, overrides):
    assert parse(stage, line.split()).overrides == overrides


@pytest.mark.parametrize(("stage", "line", "message"), REFUSED, ids=[line for _, line, _ in REFUSED])
def test_a_wrong_command_line_is_refused_with_the_cure(stage, line, message):
    with pytest.raises(BadInput) as error:
        parse(stage, line.split())
    assert message in str(error.value)


def test_a_dry_run_names_the_command_as_it_was_typed():
    typed = ["run=题库", "source_path=a b.csv", "dry_run=true", "source_options={columns: {stem: 题}}", "--cfg", "job"]
    command = in_earnest(DATA, parse(DATA, ["recipe=demo", *typed]))
    assert command == ["python", "-m", "launch.data", "recipe=demo", *typed[:2], *typed[3:]]
    named = in_earnest(SFT, parse(SFT, ["hardware=cpu", "dry_run=true"]))
    assert named == ["python", "-m", "launch.sft", "recipe=psyche_r1", "hardware=cpu"], "what was found is named"


def test_a_subcommand_is_taken_off_and_keeps_its_words():
    command = parse(DATA, ["status", "run=demo"])
    assert (command.subcommand, command.words, command.overrides) == ("status", {"run": "demo"}, [])


def test_a_subcommand_takes_its_own_words_only():
    evaluation = Stage("eval", subcommands={"rescore": ("run",), "compare": ()}, positional={"compare": 2})
    assert parse(evaluation, ["compare", "a/sft", "b"]).positional == ["a/sft", "b"]
    for words, message in (
        (["rescore", "rnu=a"], "Did you mean run?"),
        (["rescore", "run=a/b"], "plain name"),
        (["compare", "a", "b", "c"], "'c': eval compare takes 2 words"),
        (["compere", "a", "b"], "Did you mean compare?"),
    ):
        with pytest.raises(BadInput) as error:
            parse(evaluation, words)
        assert message in str(error.value)


def test_hydra_flags_pass_through_with_their_values():
    command = parse(DATA, ["--cfg", "job", "recipe=demo"])
    assert command.flags == ["--cfg", "job"]
    assert command.overrides == ["+demo=data", "run=demo"]


VALUES = [
    "题库", "a b/(c) 题.csv", "it's", 'say "x"', "a,b", "~/x", "x=y", "back\\slash", "end\\", "'quoted'", "{half", "[a",
    "$home", "#1", "a:b", "100%", "(x)",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_awkward_values_reach_the_configuration_unchanged(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quote('key', value)}").value()
    parsed = parsed if isinstance(parsed, str) else getattr(parsed, "text", parsed)
    assert parsed == value.strip("'") or parsed == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "{columns: {stem: 题目, options: [选项A, 选项B]}}",
            {"columns": {"stem": "题目", "options": ["选项A", "选项B"]}},
        ),
        ("[甲 (1), 2, true]", ["甲 (1)", 2, True]),
    ],
)
def test_chinese_inside_dictionaries_and_lists_is_quoted(value, expected):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(REPOSITORY / "launch" / "conf"), version_base="1.3"):
        config = compose("data", [f"+key={quote('key', value)}"])
    composed: Any = OmegaConf.to_container(config)
    assert composed["key"] == expected


@pytest.mark.parametrize("value", ["1e-5", "3", "true", "null", "[a,b]", "{a: 1}", "${seed}", "Qwen/Qwen2.5-7B"])
def test_values_that_hydra_understands_stay_as_they_are(value):
    assert quote("key", value) == value


@pytest.mark.parametrize("name", ["demo", "psyche_r1", "第一次", "a-b.c", "7B"])
def test_plain_run_names_are_accepted(name):
    check_run_name(name)
