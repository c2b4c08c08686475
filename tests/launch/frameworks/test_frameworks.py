"""Our files as the frameworks' own code reads them: nothing dropped, tokens and labels as pinned."""

import json
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_pipeline.export import llama_factory, verl
from data_pipeline.records import Question
from data_pipeline.sources import cpsyexam as released
from data_pipeline.sources import table
from launch.frameworks.llama_factory import without_torchaudio
from launch.models import local, tiny
from tests.conftest import REPOSITORY

SHAPE = {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048}  # fmt: skip


def sample() -> list[Question]:
    questions = [q for q in table.read(REPOSITORY / "data_pipeline/samples/questions.jsonl") if isinstance(q, Question)]
    assert len(questions) == 192
    return questions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model whose tokenizer knows the sample."""
    folder = tmp_path_factory.mktemp("model") / "base"
    texts = [m["content"] for q in sample() for m in llama_factory.question_row(q)["messages"]]
    tiny.make(folder, texts, 42, SHAPE)
    return folder


def converted(folder, model, template="qwen"):
    """Returns (rows after LLaMA-Factory's converter and tokenizer, tokenizer), through its own loader."""
    without_torchaudio()
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(
        {
            "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "full",
            "dataset": "sft", "dataset_dir": str(folder), "template": template, "cutoff_len": 4096,
            "output_dir": str(folder / "out"), "overwrite_cache": True, "use_cpu": True, "report_to": "none",
        }
    )  # fmt: skip
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    sets: Any = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    return sets["train_dataset"], module["tokenizer"]


def test_llama_factorys_own_converter_keeps_every_row(model, tmp_path):
    assert llama_factory.write(tmp_path, sample()) == 192
    rows, _ = converted(tmp_path, model)
    assert len(rows) == 192


def test_llama_factorys_own_converter_keeps_every_cpsyexam_row(cpsyexam, model, tmp_path):
    questions = [q for q in released.read(cpsyexam) if isinstance(q, Question) and q.rationale]
    written = llama_factory.write(tmp_path, questions)
    rows, _ = converted(tmp_path, model)
    assert len(rows) == written == 3871


def test_tokens_and_labels_of_one_exported_row(model, tmp_path):
    question = sample()[0]
    llama_factory.write(tmp_path, [question])
    rows, tokenizer = converted(tmp_path, model)
    row = json.loads((tmp_path / "sft.jsonl").read_text())
    system, user, assistant = (m["content"] for m in row["messages"])
    prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    # LLaMA-Factory ends a turn with "<|im_end|>\n", both of them trained
    answer_ids = tokenizer.encode(f"{assistant}<|im_end|>\n", add_special_tokens=False)
    assert rows[0]["input_ids"] == prompt_ids + answer_ids
    assert rows[0]["labels"] == [-100] * len(prompt_ids) + answer_ids
    # the think tags are whole tokens, and trained
    think = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert [t for t in rows[0]["labels"] if t in think] == think


def test_training_and_inference_render_alike_up_to_the_answer(model, tmp_path):
    question = sample()[0]
    llama_factory.write(tmp_path, [question])
    rows, tokenizer = converted(tmp_path, model)
    messages = json.loads((tmp_path / "sft.jsonl").read_text())["messages"]
    prompt = local.load_tokenizer(str(model)).apply_chat_template(messages[:2], add_generation_prompt=True)["input_ids"]
    assert rows[0]["input_ids"][: len(prompt)] == prompt
    assert rows[0]["labels"][: len(prompt)] == [-100] * len(prompt)


def test_verls_own_dataset_reads_the_parquet(model, tmp_path):
    from verl.utils.dataset.rl_dataset import RLHFDataset

    questions = sample()[:20]
    verl.write(tmp_path / "题 (1).parquet", verl.question_rows(questions, "train"))
    tokenizer = local.load_tokenizer(str(model))
    config = OmegaConf.create(
        {"max_prompt_length": 1024, "filter_overlong_prompts": True, "filter_overlong_prompts_workers": 1}
    )
    dataset = RLHFDataset(str(tmp_path / "题 (1).parquet"), tokenizer, config)
    assert len(dataset) == 20
    item = dataset[3]
    assert item["reward_model"]["ground_truth"] == questions[3].answer
    assert list(item["extra_info"]["options"]) == questions[3].options
    assert [m["role"] for m in item["raw_prompt"]] == ["system", "user"]


def test_verl_calls_our_reward_with_its_options(tmp_path):
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = OmegaConf.create(
        {"reward": {"custom_reward_function": {
            "path": "reward/psyche.py", "name": "compute_score", "reward_kwargs": {"format_weight": 0.2}}}}
    )  # fmt: skip
    score = get_custom_reward_fn(config)
    assert score is not None
    found = score(
        data_source="x", solution_str="<think>a</think>答案：B", ground_truth="A", extra_info={"options": ["a", "b"]}
    )
    assert found["score"] == 0.2


def test_random_models_are_equal_for_equal_seeds(tmp_path):
    from launch.running.folder import sha256

    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tiny.make(tmp_path / name, ["心理学" * 50], seed, {**SHAPE, "vocab_size": 300})
    hashes = [sha256(tmp_path / name / "model.safetensors") for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_parts_of_a_reward_are_means_over_the_samples_that_have_them():
    from launch.frameworks.replay_buffer import reward_parts

    rule = {"score": 1.0, "acc": 1.0, "judge": None, "judge_failed": None}
    judged, missing = rule | {"judge": 0.6, "judge_failed": 0.0}, rule | {"acc": 0.0, "judge_failed": 1.0}
    assert reward_parts([rule, judged, missing, judged | {"judge": 0.2}]) == {
        "reward/acc/mean": 0.75, "reward/judge/mean": 0.4, "reward/judge_failed/mean": 1 / 3,
        "reward/judge_failed/sum": 1.0, "reward/judgements/sum": 3.0,
    }  # fmt: skip
    assert reward_parts([rule]) == {"reward/acc/mean": 1.0}
    assert reward_parts([{}]) == {}
