"""Training on thoughts: tokens and labels as LLaMA-Factory's own code makes them, beside Qwen3's own chat template."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from functools import cache

import pytest
from omegaconf import OmegaConf

from data_pipeline.dialogues import messages
from data_pipeline.export import llama_factory
from data_pipeline.records import Dialogue, Turn
from launch import sft, template_check
from launch.cli.arguments import SFT, parse
from launch.cli.configuration import compose_stage
from launch.models import local, tiny
from tests.conftest import REPOSITORY, TABLE, launch

TURNS = (1, 2, 5)
SYSTEM = "你是一位心理咨询师。"
HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
EMPTY = "<think>\n\n</think>\n\n"


def dialogue(turns: int, thoughts: bool = True) -> Dialogue:
    """Returns a dialogue of `turns` rounds: 问1 想1 答1 问2 ..."""
    rounds = [
        (Turn("client", f"问{n}，我睡不好。"), Turn("counselor", f"答{n}，慢慢来。", f"想{n}：先共情。" * thoughts))
        for n in range(1, turns + 1)
    ]
    return Dialogue(f"d{turns}", "test", [Turn("system", SYSTEM), *(turn for pair in rounds for turn in pair)])


def asked(n: int) -> tuple[str, bool]:
    return f"<|im_start|>user\n问{n}，我睡不好。<|im_end|>\n<|im_start|>assistant\n", False


def answered(n: int, thought: str = "", trained: bool = True) -> tuple[str, bool]:
    return f"{thought}答{n}，慢慢来。<|im_end|>\n", trained


def think(n: int) -> str:
    return f"<think>\n想{n}：先共情。\n</think>\n\n"


def one_row(turns: int, thought) -> list[list[tuple[str, bool]]]:
    rounds = [part for n in range(1, turns + 1) for part in (asked(n), answered(n, thought(n)))]
    return [[(HEAD, False), *rounds]]


def row_per_turn(turns: int) -> list[list[tuple[str, bool]]]:
    rows = []
    for last in range(1, turns + 1):
        history = [part for n in range(1, last) for part in (asked(n), answered(n, trained=False))]
        rows.append([(HEAD, False), *history, asked(last), answered(last, think(last))])
    return rows


# {(template, thoughts): rows of a dialogue of so many turns, each a list of (text, is it trained)}
GOLDEN = {
    ("qwen", "every"): lambda turns: one_row(turns, think),
    ("qwen3", "every"): lambda turns: one_row(turns, think),
    ("qwen", "last"): row_per_turn,
    ("qwen3", "last"): row_per_turn,
    ("qwen", "none"): lambda turns: one_row(turns, lambda n: ""),
    ("qwen3", "none"): lambda turns: one_row(turns, lambda n: EMPTY),  # the template's own, and trained
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with Qwen3's chat template, whose tokenizer knows the dialogues."""
    folder = tmp_path_factory.mktemp("thoughts") / "base"
    tiny.make(folder, [m["content"] for m in messages(dialogue(5).turns)] * 20, 42, template_check.TINY)
    (folder / "chat_template.jinja").write_bytes((tiny.CHAT_TEMPLATES / "qwen3.jinja").read_bytes())
    return folder


@pytest.fixture(scope="module")
def rendered(model, tmp_path_factory):
    """Gives {row id: (token ids, labels)} of the dialogues of 1, 2 and 5 turns through LLaMA-Factory's own loader."""

    @cache
    def render(template: str, thoughts: str, **keys) -> dict[str, tuple[list[int], list[int]]]:
        folder = tmp_path_factory.mktemp("rows")
        count = llama_factory.write(folder, [], map(dialogue, TURNS), thoughts=thoughts)
        rows = [json.loads(line) for line in (folder / "sft.jsonl").read_text(encoding="utf-8").splitlines()]
        keys = {"template": template, "mask_history": thoughts == "last"} | keys
        trained = template_check.trained_rows(rows, str(model), OmegaConf.create(keys), folder)
        assert len(trained) == len(rows) == count
        return {row["id"]: pair for row, pair in zip(rows, trained, strict=True)}

    return render


@pytest.fixture(scope="module")
def tokenizer(model):
    return local.load_tokenizer(str(model))


def test_the_chat_template_is_the_released_one():
    """Its hash, as people who hold the six dense checkpoints (0.6B to 32B) state it."""
    digest = hashlib.sha256((tiny.CHAT_TEMPLATES / "qwen3.jinja").read_bytes()).hexdigest()
    assert digest == "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8"


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize(("template", "thoughts"), GOLDEN)
def test_tokens_and_labels(template, thoughts, turns, rendered, tokenizer):
    golden = GOLDEN[template, thoughts](turns)
    pairs = [pair for id, pair in rendered(template, thoughts).items() if id.split("/")[0] == f"d{turns}"]
    assert len(pairs) == len(golden) == (turns if thoughts == "last" else 1)
    for (ids, labels), parts in zip(pairs, golden, strict=True):
        assert tokenizer.decode(ids) == "".join(text for text, _ in parts)
        expected_ids, expected_labels = [], []
        for text, trained in parts:
            tokens = tokenizer.encode(text, add_special_tokens=False)
            expected_ids += tokens
            expected_labels += tokens if trained else [-100] * len(tokens)
        assert ids == expected_ids
        assert labels == expected_labels


@pytest.mark.parametrize("turns", TURNS)
def test_the_last_turn_mode_is_qwen3s_own_chat_template_token_for_token(turns, rendered, tokenizer):
    said = messages(dialogue(turns).turns)  # with all thoughts: taking earlier ones out is the template's work
    for last in range(1, turns + 1):
        ids, labels = rendered("qwen3", "last")[f"d{turns}/{last}"]
        own = tokenizer.apply_chat_template(said[: 2 * last + 1], return_dict=False)
        assert ids == own
        prompt = tokenizer.apply_chat_template(said[: 2 * last], add_generation_prompt=True, return_dict=False)
        assert labels == [-100] * len(prompt) + own[len(prompt) :]
        assert tokenizer.decode(ids).count("<think>") == 1


def test_a_thought_handed_over_apart_renders_alike(rendered, tokenizer):
    turns = dialogue(2).turns
    said = messages([Turn(turn.role, turn.content) for turn in turns])
    for message, turn in zip(said, turns, strict=True):
        message |= {"reasoning_content": turn.thought} if turn.thought else {}
    assert rendered("qwen3", "last")["d2/2"][0] == tokenizer.apply_chat_template(said, return_dict=False)


def test_mask_history_alone_takes_earlier_thoughts_out_and_learns_the_last_answer_only(rendered):
    assert rendered("qwen3", "every", mask_history=True)["d5"] == rendered("qwen3", "last")["d5/5"]


def test_without_mask_history_the_last_turn_mode_would_train_empty_thoughts(rendered, tokenizer):
    """Why the exporter's docstring and recipes/psyllm_qwen3 ask for mask_history."""
    _, labels = rendered("qwen3", "last", mask_history=False)["d2/2"]
    assert tokenizer.decode([t for t in labels if t != -100]).startswith(f"{EMPTY}答1")


def test_without_thinking_the_empty_thought_is_in_the_prompt_and_not_trained(rendered, tokenizer):
    ids, labels = rendered("qwen3", "none", enable_thinking=False)["d1"]
    said = messages(dialogue(1, thoughts=False).turns)
    options = {"enable_thinking": False, "return_dict": False}
    assert ids == tokenizer.apply_chat_template(said, **options)
    prompt = tokenizer.apply_chat_template(said[:-1], add_generation_prompt=True, **options)
    assert tokenizer.decode(prompt).endswith(EMPTY) and labels[: len(prompt)] == [-100] * len(prompt)


def test_a_dialogue_of_200_turns_is_rendered_whole(model, tmp_path, tokenizer):
    rows = llama_factory.dialogue_rows(dialogue(100), SYSTEM)
    ids, _ = template_check.trained_rows(rows, str(model), OmegaConf.create({"template": "qwen"}), tmp_path)[0]
    assert tokenizer.decode(ids).count("<think>") == 100
    assert len(llama_factory.dialogue_rows(dialogue(100), SYSTEM, "last")) == 100


# --- the check --------------------------------------------------------------------------------------------------------


def partings(rendered, tokenizer, turns: int, *mode, keep_thoughts=False, template=None, **keys):
    thoughts = mode[1]
    rows = llama_factory.dialogue_rows(dialogue(turns), SYSTEM, thoughts)
    partings = []
    for row in rows:
        ids, labels = rendered(*mode, **keys)[row["id"]]
        learnt = template_check.trained_answers(labels, row["messages"])
        partings += template_check.compare(ids, learnt, row["messages"], tokenizer, keep_thoughts, **(template or {}))
    return partings


@pytest.mark.parametrize(
    ("mode", "keys", "parted"),
    [
        (("qwen", "every"), {}, [2, 3, 4, 5]),  # as published: from the second answer on
        (("qwen3", "every"), {}, [2, 3, 4, 5]),  # the template alone does not mend it
        (("qwen3", "every"), {"mask_history": True}, []),
        (("qwen", "last"), {}, []),
        (("qwen3", "last"), {}, []),
        (("qwen", "none"), {}, [1, 2, 3, 4, 5]),  # Qwen3 infers with an empty thought
        (("qwen3", "none"), {}, [2, 3, 4, 5]),  # and takes it out of the history
    ],
)
def test_the_check_sees_which_turns_part_from_qwen3s_template(rendered, tokenizer, mode, keys, parted):
    assert [p.turn for p in partings(rendered, tokenizer, 5, *mode, **keys)] == parted


def test_the_check_says_where_they_part(rendered, tokenizer):
    parting = partings(rendered, tokenizer, 2, "qwen", "every")[0]
    before = tokenizer.decode(parting.trained[: parting.position])
    assert before == HEAD + asked(1)[0]
    assert parting.trained[: parting.position] == parting.inferred[: parting.position]
    assert tokenizer.decode(parting.trained[parting.position :]).startswith("<think>")
    assert tokenizer.decode(parting.inferred[parting.position :]).startswith("答1")


def test_a_chat_template_that_keeps_thoughts_parts_unless_they_are_handed_over(rendered, tokenizer):
    plain = local.load_tokenizer(tokenizer.name_or_path)
    plain.chat_template = tiny.CHAT_TEMPLATE
    assert [p.turn for p in partings(rendered, plain, 2, "qwen", "every")] == [2]
    assert partings(rendered, plain, 2, "qwen", "every", keep_thoughts=True) == []


def test_an_empty_thought_that_only_training_puts_into_the_prompt_parts(rendered, tokenizer):
    mode, off = ("qwen3", "none"), {"enable_thinking": False}
    assert partings(rendered, tokenizer, 1, *mode, **off, template=off) == []
    parting = partings(rendered, tokenizer, 1, *mode, **off)[0]
    assert tokenizer.decode(parting.inferred) == HEAD + asked(1)[0]
    assert tokenizer.decode(parting.trained[parting.position :]).startswith(EMPTY)
    assert [p.turn for p in partings(rendered, tokenizer, 1, *mode, template=off)] == []  # learnt as well: no harm


def test_a_chat_template_that_opens_the_thought_itself_is_compared_up_to_there(rendered, tokenizer):
    """As DeepSeek-R1's: the prompt ends in <think>, and what was thought is never rendered again."""
    opening = local.load_tokenizer(tokenizer.name_or_path)
    opening.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1].lstrip('\n') }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    assert partings(rendered, opening, 2, "qwen", "last") == []
    assert [p.turn for p in partings(rendered, opening, 2, "qwen", "every")] == [2]


def test_the_published_recipe_parts_and_the_corrected_one_does_not():
    done = launch("template_check", "recipe=psyllm")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "template=qwen;" in done.stdout
    assert "rows: 1, trained answers: 3, parting from the chat template: 2" in done.stdout
    assert "first: sample, counselor turn 2, token " in done.stdout
    assert "training:  '<think>" in done.stdout and "inference: '听起来" in done.stdout
    done = launch("template_check", "recipe=psyllm_qwen3", "thoughts=last")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows: 3, trained answers: 3, parting from the chat template: 0" in done.stdout
    assert "first:" not in done.stdout and not done.stderr


def test_a_runs_own_rows_are_checked(run_name, model, capsys, monkeypatch):
    for name in ("TRANSFORMERS_VERBOSITY", "LLAMAFACTORY_VERBOSITY", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # the check sets them; put back afterwards
    folder = REPOSITORY / "runs" / run_name / "data"
    folder.mkdir(parents=True)
    llama_factory.write(folder, [], [dialogue(1), dialogue(2)], thoughts="last")
    words = [f"run={run_name}", "recipe=psyllm_qwen3", f"base_model={model}"]
    assert template_check.main(words) == 0
    assert "rows: 3, trained answers: 3, parting from the chat template: 0" in capsys.readouterr().out
    words += ["template=qwen", "mask_history=false"]
    assert template_check.main([*words, "rows=2"]) == 0  # one answer each
    assert template_check.main(words) == 1
    printed = capsys.readouterr().out
    assert (
        "rows: 3, trained answers: 4, parting from the chat template: 1" in printed
    )  # Qwen3 puts an empty thought there
    assert "trained without a thought in a row that has one: 1, first: runs/" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=psylm"], "Did you mean psyllm"),
        (["recipe=psyllm", "run=nope"], "runs/nope/data/sft.jsonl: no such file"),
        (["recipe=psyllm", "thoughts=all"], "must be one of every, last, none"),
        (["recipe=psyllm", "rows=0"], "rows=0: a number from 1"),
        (["recipe=psyllm", "keep_thoughts=7"], "keep_thoughts=7: Input should be a valid boolean"),
        (["recipe=psyllm", "mask_histry=true"], "Did you mean mask_history?"),
    ],
)
def test_what_cannot_be_checked_is_refused(words, message, capsys):
    assert template_check.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_model_whose_tokenizer_is_not_here_is_refused():
    done = launch("template_check", "recipe=psyche_r1", "base_model=nobody/Nothing-7B")
    assert done.returncode == 2
    assert "nobody/Nothing-7B: its tokenizer is not on this machine; say base_model=FOLDER" in done.stderr


@pytest.mark.slow
def test_a_model_with_another_template_in_the_place_of_the_recipes_is_told_when_sft_starts(tmp_path, run_name):
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    model, other = tmp_path / "m", tmp_path / "other"
    tiny.make(model, ["心理学" * 9], 1, {**template_check.TINY})
    shutil.copytree(model, other)
    template = "{% for m in messages %}## {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}## assistant: "
    (other / "chat_template.jinja").write_text(template)

    def notes(*words: str) -> list[str]:
        command = parse(SFT, ["recipe=demo", "hardware=cpu", f"run={run_name}", *words])
        return sft.template_notes(compose_stage(SFT, command), command)

    assert notes() == notes(f"base_model={model}") == notes(f"base_model={other}", "template=vicuna") == []
    (told,) = notes(f"base_model={other}")
    assert "template=qwen is the recipe's" in told and "training:  '<|im_start|>" in told and "'## system" in told
    shown = told.split("all of it: python ")[1]
    again = subprocess.run([sys.executable, *shlex.split(shown)], capture_output=True, text=True)
    assert again.returncode == 1 and "parting from the chat template: " in again.stdout
