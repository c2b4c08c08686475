"""Replies as objects: read strictly, repaired by asking again, counted; by the real client and recorded replies."""

import asyncio
import json
import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, model_validator

from data_pipeline import llm, prompts
from data_pipeline.llm import Server, recorded
from data_pipeline.llm.structured import Failure, ask_json, parse
from data_pipeline.records import Request, Response, write_jsonl
from tests.data_pipeline.scripted import ask_all_json
from tests.model_server import Answer, ModelServer, completion


class Option(BaseModel, extra="forbid"):
    letter: Literal["A", "B", "C", "D"]
    text: str = Field(min_length=1)


class Item(BaseModel, extra="forbid"):
    stem: str
    options: list[Option]
    answer: str
    score: int

    @model_validator(mode="after")
    def answer_is_an_option(self) -> "Item":
        if beyond := sorted(set(self.answer) - {option.letter for option in self.options}):
            raise ValueError(f"the answer names {''.join(beyond)}, which is no option")
        return self


GOOD = {"stem": "条件反射的提出者是？", "options": [{"letter": "A", "text": "巴甫洛夫"}], "answer": "A", "score": 1}
TEXT = json.dumps(GOOD, ensure_ascii=False)
WRONG = json.dumps(GOOD | {"answer": "B"}, ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\n {json.dumps(GOOD, indent=2)}\n",
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```\n",
        f"<think>\n{{先想一想}}\n</think>\n\n{TEXT}",
        f"先想一想\n</think>\n```json\n{TEXT}\n```",  # <think> stood in the prompt
    ],
)
def test_one_object_bare_or_fenced_after_a_thought_is_read(text):
    assert parse(text, Item).model_dump() == GOOD


def test_tags_and_fences_inside_a_text_are_text():
    stem = "<think>a</think>\n```json\n{}\n```"
    for text in (json.dumps(GOOD | {"stem": stem}), f"```json\n{json.dumps(GOOD | {'stem': stem})}\n```"):
        assert parse(text, Item).stem == stem


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: Expecting value at line 1, column 1"),
        ("我无法回答。", "not JSON: Expecting value"),
        (TEXT[:-5], "not JSON: .* at line 1, column"),
        (f"好的：{TEXT}", "not JSON: Expecting value"),
        (f"{TEXT}\n希望有帮助", "not JSON: Extra data at line 2, column 1"),
        (TEXT + TEXT, "not JSON: Extra data"),
        (f"```json\n{TEXT}\n```\n完成", "not JSON"),
        (f"<think>没有想完 {TEXT}", "not JSON"),
        (TEXT.replace('"', "'"), "not JSON: .*double quotes at line 1, column 2"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        (TEXT.replace(": 1", ": NaN"), "not JSON: NaN"),
        (f"[{TEXT}]", "not a JSON object but list"),
        ("null", "not a JSON object but NoneType"),
        ("{}", "wrong shape: stem: Field required; options: Field required; answer: Field required; score"),
        (TEXT.replace(": 1", ': "1"'), "wrong shape: score: Input should be a valid integer"),
        (TEXT.replace(": 1", ": 1.5"), "wrong shape: score: Input should be a valid integer"),
        (TEXT.replace(": 1", ": null"), "wrong shape: score"),
        (TEXT.replace("}]", "}, {}]"), "wrong shape: options.1.letter: Field required; options.1.text"),
        (TEXT.replace('"A", "text"', '"E", "text"'), "wrong shape: options.0.letter: Input should be 'A', 'B', 'C'"),
        (TEXT[:-1] + ', "note": ""}', "wrong shape: note: Extra inputs are not permitted"),
        (TEXT[:-1] + ', "answer": "A"}', "wrong shape: a key stands twice: answer"),
        (WRONG, "wrong shape: Value error, the answer names B, which is no option"),
        (json.dumps(GOOD | {"options": [{}] * 9}), r"wrong shape: (options.*){5}; and 13 more$"),
        (TEXT.replace("A", r"\ud83d"), "not JSON: Invalid JSON: .* hex escape"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse(text, Item)


def replies(folder, *rows: tuple[str, str, str]):
    """Returns the asker of recorded (step, row, text)."""
    write_jsonl(folder / "step.jsonl", [{"step": s, "row": r, "sample": 0, "text": t} for s, r, t in rows])
    return recorded.asker(folder)


def requests(*rows: str, **params) -> list[Request]:
    return [Request("step", row, 0, [{"role": "user", "content": row}], params) for row in rows]


def test_an_invalid_reply_is_repaired_once_and_counted(tmp_path):
    ask = replies(
        tmp_path,
        ("step", "good", TEXT),
        ("step", "mended", TEXT[:-1]),
        ("step", "hopeless", "不会"),
        ("step.repair1", "mended", TEXT),
        ("step.repair1", "hopeless", WRONG),
    )
    results, counts = ask_all_json(ask, requests("good", "mended", "hopeless"), Item)
    assert [type(result) for result in results] == [Item, Item, Failure]
    assert results[2] == Failure("wrong shape: Value error, the answer names B, which is no option", WRONG)
    assert counts == {"asked": 3, "invalid": 2, "repaired": 1, "failed": 1}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            "请出一道题。",
            "你上面的回复无法读取：not a JSON object but list\n\n"
            "请改正后重新回复。内容保持不变，只输出一个符合原要求的 JSON 对象，不要输出任何其他文字。",
        ),
        (
            "Write one question.",
            "Your reply above cannot be read: not a JSON object but list\n\n"
            "Correct it and reply again. Keep the content the same, and write one JSON object that meets the original "
            "request and nothing else.",
        ),
    ],
)
def test_a_repair_is_asked_in_the_language_of_its_request(asked, expected):
    """The Chinese text is part of the keys of ledgers that exist: it stays byte for byte."""
    sent = []

    def ask(requests):
        sent.extend(requests)
        return [Response("[]", "stop", 1) for _ in requests]

    history = [{"role": "system", "content": "心理 psychology"}, {"role": "user", "content": asked}]
    ask_all_json(ask, [Request("step", "a", 0, history)], Item)
    assert sent[1].messages[:2] == history and sent[1].messages[-1] == {"role": "user", "content": expected}


def test_a_prompt_tells_its_language_whatever_it_is_filled_with():
    for file in Path(prompts.__file__).parent.glob("*.jinja"):
        words = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", file.read_text(encoding="utf-8"))
        assert bool(re.search("[\u3400-\u9fff]", words)) != file.name.endswith(".en.jinja"), file.name


def test_repairs_are_a_setting(tmp_path):
    ask = replies(tmp_path, ("step", "a", "{"), ("step.repair1", "a", "[]"), ("step.repair2", "a", TEXT))
    results, counts = ask_all_json(ask, requests("a"), Item, repairs=0)
    assert isinstance(results[0], Failure) and results[0].reason.startswith("not JSON")
    assert counts == {"asked": 1, "invalid": 1, "repaired": 0, "failed": 1}
    assert ask_all_json(ask, requests("a"), Item)[0] == [Failure("not a JSON object but list", "[]")]
    results, counts = ask_all_json(ask, requests("a"), Item, repairs=3)
    assert isinstance(results[0], Item) and results[0].answer == "A"
    assert counts == {"asked": 1, "invalid": 1, "repaired": 1, "failed": 0}


def test_a_repair_shows_the_reply_and_its_error_and_is_paid_once(tmp_path):
    plan = {
        "a": [Answer(completion(f"想\n</think>\n{WRONG}", reasoning="a thought of the server's"))],
        "cut": [Answer(completion(TEXT[:20], "length"))],
        "refused": [Answer(b"too long", status=400)],
    }
    ledger = tmp_path / "ledger.sqlite"
    with ModelServer(plan=plan) as server:
        ask = llm.asker(Server(server.url, "tiny"), ledger, "the test")
        results, counts = ask_all_json(ask, requests(*plan, temperature=0.5), Item)
        assert len(server.calls) == 4  # neither the cut reply nor the failed call is repaired
        assert ask_all_json(ask, requests(*plan, temperature=0.5), Item) == (results, counts)
    assert server.counts()["a"] == 1 and server.counts()["refused"] == 2  # what failed is asked by the next run
    repair = server.calls[3].body
    assert repair["temperature"] == 0.5
    assert [m["role"] for m in repair["messages"]] == ["user", "assistant", "user"]
    assert repair["messages"][1]["content"] == WRONG
    assert "the answer names B, which is no option" in repair["messages"][2]["content"]
    assert isinstance(results[0], Failure) and isinstance(results[1], Failure)
    assert results[0].reason.startswith("not JSON")  # "reply to ..." to the repair
    assert results[1].reason.startswith("cut off at max_tokens: not JSON")
    assert results[2] == Failure("no reply: HTTP 400: too long")
    assert counts == {"asked": 3, "invalid": 2, "repaired": 0, "failed": 3}
    assert [total["step"] for total in llm.totals(ledger)] == ["step", "step.repair1"]


def test_a_server_with_json_schema_gets_the_schema_and_others_do_not(tmp_path):
    with ModelServer(plan={"a": [Answer(completion(TEXT))]}) as server:
        for has in (True, False):
            ask = llm.asker(Server(server.url, "tiny", json_schema=has), tmp_path / "ledger.sqlite", "the test")
            results, _ = ask_all_json(ask, requests("a"), Item)
            assert isinstance(results[0], Item) and results[0].model_dump() == GOOD
    assert len(server.calls) == 2  # another request, another key
    sent = server.calls[0].body["response_format"]
    schema = sent["json_schema"]["schema"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == ("json_schema", "Item", True)
    assert schema["additionalProperties"] is False and schema["required"] == ["stem", "options", "answer", "score"]
    assert schema["$defs"]["Option"]["properties"]["letter"]["enum"] == ["A", "B", "C", "D"]
    assert "response_format" not in server.calls[1].body


def test_a_refusal_is_not_repaired_and_a_long_reply_is_shown_in_part():
    asked = []

    def answering(*replies):
        async def ask(requests):
            asked.extend(requests)
            return [replies[min(len(asked), len(replies)) - 1]]

        return ask

    request = Request("step", "row", 0, [{"role": "user", "content": "说"}])
    result, counts = asyncio.run(ask_json(answering(Response("", "refused", 0)), request, Item))
    assert isinstance(result, Failure) and result.reason == "the model refuses" and len(asked) == 1
    asked.clear()
    long = Response("{" + "坏" * 1_000_000, "stop", 0)
    result, counts = asyncio.run(ask_json(answering(long, Response(TEXT, "stop", 0)), request, Item))
    assert isinstance(result, Item) and counts["repaired"] == 1
    assert len(asked[1].messages[1]["content"]) < 21_000
