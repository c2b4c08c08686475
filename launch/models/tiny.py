"""A small Qwen2 with random weights, and a tokenizer trained on the spot: the demo's base model.

It goes through the same code as a 7B model; `launch/sft.py` makes it when model_name_or_path is "random".
"""

import json
import os
import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from data_pipeline.errors import BadInput

RANDOM = "random"  # as a base_model: the tiny model of this module
# What launch.check_gpu tries: Qwen2.5-0.5B's shape with a head of its own, and as many tokens (151,665) and rows of the
# embeddings (152,064) as the 7B model has
LARGE = {"vocab_size": 600, "unused_tokens": 151_063, "spare_rows": 399, "hidden_size": 896, "intermediate_size": 4864,
         "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "max_position_embeddings": 32768, "tie_word_embeddings": False}  # fmt: skip
# heads of 32, the smallest that vLLM takes on a CPU
SMALL = {"vocab_size": 600, "unused_tokens": 1000, "spare_rows": 62, "hidden_size": 128, "intermediate_size": 256,
         "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 4096, "tie_word_embeddings": False}  # fmt: skip
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

    `shape`: vocab_size (of the BPE), chat_template (a file in launch/chat_templates; without it, ChatML), unused_tokens
    (so many tokens more that no text has), spare_rows (of the embeddings, beyond the tokenizer, as Qwen2.5 has), and
    keys of Qwen2Config (hidden_size, num_hidden_layers, ...). The folder appears whole.
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
    bpe = _with_unused(bpe, shape.pop("unused_tokens", 0))
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
        vocab_size=len(tokenizer) + shape.pop("spare_rows", 0),
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


def _with_unused(bpe, number: int):
    """Returns the tokenizer with `number` words in its vocabulary to which nothing is ever merged."""
    from tokenizers import Tokenizer

    if not number:
        return bpe
    state = json.loads(bpe.to_str())
    vocabulary = state["model"]["vocab"]
    first, added = max(vocabulary.values()) + 1, 0
    for letters in product(ascii_lowercase, repeat=5):
        if added == number:
            break
        if (word := "Ġ" + "".join(letters)) not in vocabulary:
            vocabulary[word] = first + added
            added += 1
    return Tokenizer.from_str(json.dumps(state))
