"""A random tiny model in a folder, made once for all tests of a session that ask for it."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data_pipeline.records import read_jsonl
from tests.conftest import REPOSITORY


def make(folder: Path) -> Path:
    """Returns a folder with the demo's model, its weights random."""
    from launch.models import tiny

    shape: Any = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "recipes/demo/sft.yaml").psyforge.random_model)
    stems = [row["stem"] for _, row in read_jsonl(REPOSITORY / "data_pipeline/samples/questions.jsonl")]
    tiny.make(folder / "tiny", stems, seed=1, shape=shape)
    return folder / "tiny"
