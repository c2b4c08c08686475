"""Recorded replies and the recipes of who answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.llm import recorded, server_from
from data_pipeline.records import Request, Response

REPLY = {"step": "filter", "row": "q1", "sample": 0, "text": "好"}


def request(step: str, row: str, sample: int = 0, prompt: str = "?", **params) -> Request:
    return Request(step, row, sample, [{"role": "user", "content": prompt}], params)


def write(folder, name: str, *rows: dict | str):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_replies_are_found_by_step_row_and_sample_whatever_the_prompt(tmp_path):
    write(tmp_path, "filter.jsonl", REPLY, REPLY | {"sample": 1, "text": "不好", "reasoning": "想过"})
    write(tmp_path, "more.jsonl", REPLY | {"step": "rationale", "text": "因为"})
    ask = recorded.asker(tmp_path)
    asked = [request("rationale", "q1"), request("filter", "q1", 1, "一"), request("filter", "q1", prompt="二")]
    assert ask(asked) == [
        Response("因为", "stop", 0),
        Response("不好", "stop", 0, reasoning="想过"),
        Response("好", "stop", 0),
    ]
    assert ask([request("filter", "q1", 0, "改过的提示", temperature=1.0)]) == [Response("好", "stop", 0)]


def test_a_row_without_a_reply_is_named_with_the_line_to_add(tmp_path):
    write(tmp_path, "filter.jsonl", REPLY)
    ask = recorded.asker(tmp_path)
    with pytest.raises(BadInput) as error:
        ask([request("filter", "q1"), request("filter", "q2", 3), request("rationale", "q1")])
    message = str(error.value)
    assert "step filter, row q2, sample 3 (and 1 further requests have none)" in message
    assert str(tmp_path / "filter.jsonl") in message and "llm=openai" in message
    line = re.search(r"\{.*\}", message)
    assert line, message
    write(tmp_path, "added.jsonl", line[0])
    assert recorded.asker(tmp_path)([request("filter", "q2", 3)]) == [Response("...", "stop", 0)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (REPLY, r"b.jsonl line 2: step filter, row q1, sample 0 stands at .*a.jsonl line 1 already"),
        ({"step": "filter", "row": "q1"}, "b.jsonl line 2: sample, text missing"),
        (REPLY | {"row": 1}, "row: 1 is not text"),
        (REPLY | {"sample": "1"}, "sample: '1' is not a whole number"),
        (REPLY | {"sample": True}, "sample: True is not a whole number"),
        (REPLY | {"text": {"keep": True}}, "text: {'keep': True} is not text"),
        (REPLY | {"sample": 9, "text": " "}, "text: it is empty"),
        (REPLY | {"sample": 9, "reasoning": None}, "reasoning: None is not text"),
        (REPLY | {"sample": 9, "resoning": "x"}, "unknown key resoning; a reply has"),
        ('{"step": "filter", "row"', r"b.jsonl line 2: not a JSON object"),
        ("[]", r"b.jsonl line 2: not a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, row, expected):
    write(tmp_path, "a.jsonl", REPLY)
    write(tmp_path, "b.jsonl", REPLY | {"row": "q2"}, row)
    with pytest.raises(BadInput, match=expected):
        recorded.asker(tmp_path)


@pytest.mark.parametrize("name", ["", "absent"])
def test_a_folder_without_replies_is_named(tmp_path, name):
    with pytest.raises(BadInput, match="no recorded replies, .*llm.replies"):
        recorded.asker(tmp_path / name)


@pytest.mark.parametrize("file", sorted(Path("recipes/llm").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_recipe_of_who_answers_is_whole(file):
    assert file.read_text(encoding="utf-8").startswith("# @package _global_\n")
    config = OmegaConf.load(file)
    assert set(config) == {"llm"}
    if file.stem == "recorded":
        assert set(config.llm) == {"replies"}
        return
    if OmegaConf.is_missing(config.llm, "model"):
        config.llm.model = "given"
    settings: Any = OmegaConf.to_container(config.llm)
    server = server_from(settings, str(file))
    assert (server.input_price, server.output_price) == (None, None)  # prices change: they are the user's to fill in


def test_there_is_a_recipe_for_every_way_to_answer():
    assert {file.stem for file in Path("recipes/llm").glob("*.yaml")} >= {"openai", "deepseek", "vllm", "recorded"}
