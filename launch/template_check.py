"""Compares what SFT trains on with what the model's chat template gives at inference, token by token.

    python -m launch.template_check recipe=psyllm                  # on a dialogue of our own, three turns with thoughts
    python -m launch.template_check recipe=psyllm_qwen3 thoughts=last
    python -m launch.template_check recipe=psyllm run=NAME         # on the run's own rows
    python -m launch.template_check recipe=psyche_r1 base_model=FOLDER rows=50 mask_history=true

LLaMA-Factory's own code renders the rows with the recipe's template. For every answer that it trains, the model's
chat template renders the talk up to there as launch.chat hands it over: with the recipe's keep_thoughts (earlier
thoughts stay in the history) and chat_template_kwargs, which can be given here too. `thoughts` (every, last, none) is
how the exporter writes our own dialogue. Prints where the two part first, and which answer of a row with thoughts is
trained without one; exit code 1 for either.

Nothing is downloaded. Where the tokenizer of a Qwen3 is not at hand, a tiny one with Qwen3's chat template stands in:
launch/chat_templates/qwen3.jinja, the `chat_template` of Qwen/Qwen3-8B's tokenizer_config.json (Apache-2.0), byte for
byte; that of Qwen3-0.6B to 32B is the same.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.export import llama_factory
from data_pipeline.records import Dialogue, Turn, write_jsonl
from launch.cli import arguments, configuration
from launch.cli.arguments import CHAT, SFT
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.conversation.settings import Conversation
from launch.models import local, tiny
from launch.preflight import checks
from reward.thought import leading_thought

RENDERING = ("template", "mask_history", "enable_thinking", "preserve_thinking", "default_system")  # of LLaMA-Factory
OURS = {"thoughts": "every", "rows": "20", "run": ""}  # words that only this command takes, but run=; rows: ours
OF_CHAT = ("keep_thoughts", "chat_template_kwargs")
AROUND = 12  # tokens shown on either side of a difference
UNCUT = 10**6  # cutoff_len here: what is cut, the SFT stage itself counts
TINY = {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096}  # fmt: skip
SAMPLE = Dialogue("sample", "ours", [
    Turn("client", "最近总是睡不好，脑子停不下来。"),
    Turn("counselor", "听起来这些夜晚很难熬。睡前你常想些什么呢？", "入睡困难，思虑多；先共情，再了解内容。"),
    Turn("client", "想工作，怕明天出错。"),
    Turn("counselor", "担心出错让你一直绷着。我们可以先把担心写下来。", "担忧指向工作表现；用认知行为的记录练习。"),
    Turn("client", "好，我今晚试试。"),
    Turn("counselor", "愿意尝试就很好，下次我们一起看看写了什么。", "来访者有动机；强化并约定回顾。"),
])  # fmt: skip


@dataclass
class Answer:
    turn: int  # of the counselor, from 1
    place: int  # among the messages
    start: int  # its tokens, start to end - 1
    end: int


@dataclass
class Parting:
    turn: int  # of the counselor, from 1
    position: int  # first token that differs
    trained: list[int]  # up to and with the turn
    inferred: list[int]


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 alike, 1 they part, 2 wrong input."""
    return run_command(check, __doc__, argv)


def check(argv: list[str]) -> int:
    words, config, talk = parse(argv)
    rows = read_rows(config, words)
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        model, stands_in = find_tokenizer(config, [m["content"] for _, row in rows for m in row["messages"]], scratch)
        tokenizer = local.load_tokenizer(model)
        trained = trained_rows([row for _, row in rows], model, config, Path(scratch))
    turns, parted, silent = 0, [], []
    for (where, row), (ids, labels) in zip(rows, trained, strict=True):
        learnt = trained_answers(labels, row["messages"])
        turns += len(learnt)
        partings = compare(ids, learnt, row["messages"], tokenizer, talk.keep_thoughts, **talk.chat_template_kwargs)
        parted += [(where, parting) for parting in partings]
        silent += [(where, turn) for turn in without_thought(learnt, row["messages"])]
    shown = ", ".join(f"{key}={value}" for key, value in _rendering(config).items())
    console.print(f"LLaMA-Factory: {shown}; chat template: {stands_in or f'of {model}'}")
    console.print(f"rows: {len(rows)}, trained answers: {turns}, parting from the chat template: {len(parted)}")
    if parted:
        where, parting = parted[0]
        show(where, parting, tokenizer)
    if silent:
        console.print(
            f"trained without a thought in a row that has one: {len(silent)}, first: {silent[0][0]}, counselor turn "
            f"{silent[0][1]}; mask_history=true trains the last answer alone"
        )
    return 1 if parted or silent else 0


def parse(argv: list[str]) -> tuple[dict[str, str], DictConfig, Conversation]:
    """Returns ({thoughts, rows, run}, what the SFT stage and launch.chat would be set to); raises BadInput."""
    ours = [word for word in argv if word.partition("=")[0] in (*OURS, *OF_CHAT) or not re.match("~|.*=", word)]
    given = parse_words(ours, "the template check, beside the SFT stage's keys,", (*OURS, *OF_CHAT)).values
    words = OURS | {key: value for key, value in given.items() if key in OURS}
    if not words["rows"].isdigit() or not int(words["rows"]):
        raise BadInput(f"rows={words['rows']}: a number from 1")
    run = [f"run={words['run']}"] if words["run"] else []
    command = arguments.parse(SFT, [*run, *(word for word in argv if word not in ours)])
    talk = [f"{key}={value}" for key, value in given.items() if key in OF_CHAT]
    talk = arguments.parse(CHAT, [f"recipe={command.words['recipe']}", *talk])
    config = configuration.compose_stage(SFT, command)
    return words, config, configuration.checked(configuration.compose_stage(CHAT, talk), Conversation)


def read_rows(config: DictConfig, words: dict[str, str]) -> list[tuple[str, dict]]:
    """Returns (where, row) of the run's first rows, or of our dialogue where no run is named."""
    if not words["run"]:
        system = "你是一位心理咨询师。"
        return [(row["id"], row) for row in llama_factory.dialogue_rows(SAMPLE, system, words["thoughts"])]
    rows = checks.read_sft_rows(Path(config.dataset_dir), config.dataset)[: int(words["rows"])]
    if not rows:
        raise BadInput(f"{config.dataset_dir}/{config.dataset}.jsonl: no row to compare")
    return rows


def find_tokenizer(config: DictConfig, texts: list[str], scratch: str) -> tuple[str, str]:
    """Returns (folder or ID of the tokenizer, note on what stands in for it, or "").

    Raises BadInput for a model whose tokenizer is not at hand, unless it is a Qwen3.
    """
    model = config.model_name_or_path
    if model == tiny.RANDOM:
        made = f"runs/{config.run}/base"
        if Path(made).is_dir():
            return made, ""
        return _tiny(texts, scratch, config.psyforge.random_model.get("chat_template")), "that of the random model"
    try:
        local.load_tokenizer(model)
        return model, ""
    except BadInput:
        if Path(model).exists():
            raise
    if not re.fullmatch(r"Qwen/Qwen3-(0\.6|1\.7|4|8|14|32)B", model):
        raise BadInput(f"model_name_or_path={model}: its tokenizer is not on this machine; say base_model=FOLDER")
    note = f"Qwen3's, in a tiny tokenizer that stands in for {model}'s, which is not at hand"
    return _tiny(texts, scratch, "qwen3.jinja"), note


def _tiny(texts: list[str], scratch: str, template: str | None) -> str:
    folder = Path(scratch) / "model"
    tiny.make(folder, texts, 42, {**TINY, "chat_template": template})
    return str(folder)


def trained_rows(rows: list[dict], model: str, config: DictConfig, scratch: Path) -> list[tuple[list[int], list[int]]]:
    """Returns (token ids, labels) of every row from LLaMA-Factory's own loader; label -100 where nothing is learnt."""
    from launch.frameworks.llama_factory import without_torchaudio

    write_jsonl(scratch / "rows.jsonl", rows)
    info = {"rows": {"file_name": "rows.jsonl", **llama_factory.DATASET}}
    (scratch / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    settings = _rendering(config) | {
        "model_name_or_path": model, "stage": "sft", "do_train": True, "finetuning_type": "full", "dataset": "rows",
        "dataset_dir": str(scratch), "cutoff_len": UNCUT, "output_dir": str(scratch / "out"), "overwrite_cache": True,
        "use_cpu": True, "report_to": "none",
    }  # fmt: skip
    without_torchaudio()
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    try:
        model_args, data_args, training_args, _, _ = get_train_args(settings)
        module = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
        sets: Any = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    except ValueError as error:
        raise BadInput(f"LLaMA-Factory refuses the recipe's rendering: {error}") from None
    return [(row["input_ids"], row["labels"]) for row in sets["train_dataset"]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the frameworks' notices off the terminal, and off the network; an exception passes."""
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "LLAMAFACTORY_VERBOSITY": "ERROR", "HF_HUB_OFFLINE": "1"}
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def _rendering(config: DictConfig) -> dict:
    return {key: config[key] for key in RENDERING if config.get(key) is not None}


def trained_answers(labels: list[int], messages: list[dict]) -> list[Answer]:
    """Returns the answers of a row that are trained."""
    changes = [n for n, pair in enumerate(pairwise([-100, *labels, -100])) if (pair[0] == -100) != (pair[1] == -100)]
    replies = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    spans = list(zip(changes[::2], changes[1::2], strict=True))
    first = len(replies) - len(spans)  # with mask_history only the last one is trained
    return [Answer(first + n + 1, replies[first + n], *span) for n, span in enumerate(spans)]


def without_thought(learnt: list[Answer], messages: list[dict]) -> list[int]:
    """Returns the turns that are trained without a thought in a row where another answer has one."""
    thinks = {place: leading_thought(m["content"])[0] is not None for place, m in enumerate(messages)}
    return [answer.turn for answer in learnt if any(thinks.values()) and not thinks[answer.place]]


def compare(
    ids: list[int], learnt: list[Answer], messages: list[dict], tokenizer, keep_thoughts: bool, **template_options
) -> list[Parting]:
    """Returns the Parting of each trained answer that the model's chat template would render otherwise."""
    partings = []
    for answer in learnt:
        said = messages[: answer.place]
        said = said if keep_thoughts else [*map(_bare, said)]
        options = {**template_options, "tokenize": True, "return_dict": False}
        prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True, **options)
        inferred = tokenizer.apply_chat_template([*said, messages[answer.place]], **options)
        trained = ids[: answer.end]
        if inferred[: len(prompt)] != prompt:  # such a template never renders the answer as the model wrote it
            trained, inferred = trained[: len(prompt)], prompt
        if answer.start > len(prompt) and trained == inferred:  # begins with what the model neither learns nor is given
            inferred = prompt
        if trained != inferred:
            differing = (n for n, (a, b) in enumerate(zip(trained, inferred, strict=False)) if a != b)
            position = next(differing, min(len(trained), len(inferred)))
            partings.append(Parting(answer.turn, position, trained, inferred))
    return partings


def _bare(message: dict) -> dict:
    _, reply = leading_thought(message["content"])
    return {**message, "content": str(reply).lstrip("\n")}


def show(where: str, parting: Parting, tokenizer) -> None:
    """Prints the tokens around the first difference, as text with its line breaks written out."""
    at = parting.position

    def text(ids: list[int]) -> str:
        return f"{tokenizer.decode(ids)!r}..." if ids else "(the answer begins)"

    console.print(f"first: {where}, counselor turn {parting.turn}, token {at}")
    console.print(f"  both:      ...{tokenizer.decode(parting.trained[max(0, at - AROUND) : at])!r}")
    console.print(f"  training:  {text(parting.trained[at : at + AROUND])}")
    console.print(f"  inference: {text(parting.inferred[at : at + AROUND])}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
