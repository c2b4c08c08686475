"""A random tiny model in a folder, made once for all tests of a session that ask for it."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data_pipeline.records import read_jsonl
from tests.conftest import REPOSITORY

# generation_config.json of Qwen2.5-7B-Instruct, without its token ids
QWEN_GENERATION = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20}


def make(folder: Path) -> Path:
    """Returns a folder with the demo's model, its weights random."""
    return _make(folder / "tiny", {})


def make_as_large(folder: Path, **different: Any) -> Path:
    """Returns a folder with a tiny model that has what the paper's model has and the demo's has not: a head of its own
    (untied), two key heads for four, another chat template, and a generation_config.json that samples.
    """
    shape = {"tie_word_embeddings": False, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1,
             "hidden_size": 64, "intermediate_size": 128, "chat_template": "qwen3.jinja"}  # fmt: skip
    model = _make(folder / "untied", shape | different)
    file = model / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **QWEN_GENERATION}), encoding="utf-8")
    return model


def _make(folder: Path, different: dict) -> Path:
    from launch.models import tiny

    shape: Any = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "recipes/demo/sft.yaml").psyforge.random_model)
    stems = [row["stem"] for _, row in read_jsonl(REPOSITORY / "data_pipeline/samples/questions.jsonl")]
    tiny.make(folder, stems, seed=1, shape={**shape, **different})
    return folder
