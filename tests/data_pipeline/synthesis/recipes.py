"""The configuration of a recipe's synthesis, in process: launch/conf/data.yaml, the recipe over it, and changes."""

from typing import Any

import yaml

from data_pipeline.synthesis.configuration import Configuration, configuration
from tests.conftest import REPOSITORY

PSYLLM = {  # as recipes/psyllm_demo, which Hydra composes of others
    "run": "psyllm",
    "posts": "data_pipeline/samples/corpus/posts.jsonl",
    "dialogues": {"source": "messages", "path": "data_pipeline/samples/corpus/dialogues.jsonl"},
    "pipelines": {
        "posts": ["clean", "deduplicate", "plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue"],
        "dialogues": ["clean", "reason_reply", "validate_dialogue"],
    },
    "llm": {"replies": "data_pipeline/samples/corpus/replies"},
}


def demo(**changes: Any) -> Configuration:
    """Returns recipes/demo's configuration."""
    files = (REPOSITORY / "launch/conf/data.yaml", REPOSITORY / "recipes/demo/data.yaml")
    stage, recipe = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    return configuration({**stage, **recipe, "run": "demo", **changes})
