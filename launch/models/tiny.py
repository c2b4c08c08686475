"""A small Qwen2 with random weights, and a tokenizer trained on the spot: the demo's base model.

It goes through the same code as a 7B model; `launch/sft.py` makes it when model_name_or_path is "random".
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput

RANDOM = "random"  # as a base_model: the tiny model of this module
CHAT_TEMPLATES = Path(__file__).parent.parent / "chat_templates"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_template(name: str | None) -> str:
    """Returns the text of launch/chat_templates/NAME, ChatML without a name; raises BadInput when there is none."""
    if name is None:
        return CHAT_TEMPLATE
    path = CHAT_TEMPLATES / name
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in CHAT_TEMPLATES.iterdir()))
        raise BadInput(f"psyforge.random_model.chat_template={name}: launch/chat_templates has {there}")
    return path.read_text(encoding="utf-8")


def make(folder: Path, texts: Iterable[str], seed: int, shape: dict) -> None:
    """Writes a Hugging Face folder: model, tokenizer (byte-level BPE over `texts`), chat template.

    `shape`: vocab_size, chat_template (a file in launch/chat_templates; without it, ChatML), and keys of Qwen2Config
    (hidden_size, num_hidden_layers, ...). The folder appears whole.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    shape = dict(shape)
    template = chat_template(shape.pop("chat_template", None))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=shape.pop("vocab_size"),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.add_tokens(["<think>", "</think>"])  # whole tokens, but not special ones: as in Qwen3, decoding keeps them
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=shape["max_position_embeddings"],
        chat_template=template,
    )
    torch.manual_seed(seed)
    settings: dict[str, Any] = dict(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"tie_word_embeddings": True, **shape},
    )
    model = Qwen2ForCausalLM(Qwen2Config(**settings))
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    os.replace(partial, folder)
