"""Replies that are one JSON object of a given shape, read strictly; one that is not may be repaired by asking again.

A shape is a pydantic model, best `class Verdict(BaseModel, extra="forbid")` without default values. The prompt says in
words what the object holds; a server with `json_schema` gets the schema besides. Nothing is searched for in a text: it
is one object, bare or in one ```json fence, after a thought that ends in </think>, or it is invalid.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_pipeline.prompts import render
from data_pipeline.records import NO_TEXT, Ask, Request, Response

Shape = TypeVar("Shape", bound=BaseModel)

LONGEST = 20_000  # characters of an invalid reply, and of its error, that are shown for repair; ours
_SHOWN = 5  # errors of one reply
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str  # for the rejects: "wrong shape: answer: Field required"
    text: str = ""  # the last reply
    passing: bool = False  # no reply came, and one may come when it is asked again


async def ask_json(ask: Ask, request: Request, shape: type[Shape], repairs: int = 1) -> tuple[Shape | Failure, Counter]:
    """Returns (an object or a Failure; counts "asked", "invalid", "repaired", "failed").

    An invalid reply is asked again up to `repairs` times (1 is ours), with the reply and its error, as the request of
    the same row and sample in step "STEP.repair1", so that ledger and recorded replies know it. Not repaired are calls
    that failed, replies cut off at max_tokens, refusals and calls of tools: asked again they end the same. Raises what
    `ask` raises.
    """
    reply = (await ask([replace(request, shape=shape)]))[0]
    result, counts = _result(reply, shape), Counter(asked=1)
    counts["invalid"] = int(isinstance(result, Failure) and reply.finish != "failed")
    for number in range(1, repairs + 1):
        if not isinstance(result, Failure) or reply.finish in ("failed", "length", *NO_TEXT):
            break
        reply = (await ask([_repair(request, result, shape, number)]))[0]
        result = _result(reply, shape)
        counts["repaired"] += not isinstance(result, Failure)
    counts["failed"] = int(isinstance(result, Failure))
    return result, counts


async def ask_again(
    ask: Ask, request: Request, shape: type[Shape], fault: Callable[[Shape], str] = lambda reply: ""
) -> tuple[Shape | Failure, int, Counter]:
    """Returns as `ask_json`, and the sample of the result between.

    What is unreadable, or of which `fault(object)` gives a reason, is asked once more as sample 1 (ours) and counted as
    "again". A failed call is not: the client has tried it.
    """
    result, counts = await ask_json(ask, request, shape)
    result, sample = _faulty(result, fault), 0
    if isinstance(result, Failure) and result.text:
        result, more = await ask_json(ask, once_more(request), shape)
        result, sample = _faulty(result, fault), 1
        counts.update(more)
        counts["again"] = 1
    counts["failed"] = int(isinstance(result, Failure))
    return result, sample, counts


def _faulty(result: Shape | Failure, fault: Callable[[Shape], str]) -> Shape | Failure:
    if isinstance(result, Failure) or not (why := fault(result)):
        return result
    return Failure(why, result.model_dump_json())


def once_more(request: Request) -> Request:
    """Returns the request as sample 1; one at temperature 0, whose answer would be the same, at 1."""
    params = request.params
    return replace(request, sample=1, params=params | ({"temperature": 1.0} if params.get("temperature") == 0 else {}))


def under(name: str, counts: Counter) -> Counter:
    """Returns the counts of calls as those of an Outcome, for `calls_report(counts, name)`."""
    return Counter({(name, key): number for key, number in counts.items()})


def calls_report(counts: Counter, name: str = "calls") -> dict[str, int]:
    """Returns the figures of a report on the calls that were counted under `name`."""
    again = ("again",) if counts[name, "again"] else ()
    return {key: counts[name, key] for key in ("asked", "invalid", "repaired", "failed", *again)}


def parse(text: str, shape: type[Shape]) -> Shape:
    """Returns the object that `text` is; raises ValueError with the reason for anything else."""
    content = _content(text)
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    try:
        return shape.model_validate_json(content, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        kind = "not JSON" if errors[0]["type"] == "json_invalid" else "wrong shape"  # pydantic's parser is the stricter
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise ValueError(f"{kind}: {'; '.join(map(_told, errors[:_SHOWN]))}{more}") from None


def _content(text: str) -> str:
    text = text.strip()
    if not text.startswith(("{", "```")):
        text = text.partition("</think>")[2].strip() or text  # a thought that the server has not split off
    head, _, body = text.partition("\n")
    if head.strip() in ("```json", "```") and body.endswith("```"):
        return body.removesuffix("```").strip()
    return text


def _object(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"wrong shape: a key stands twice: {next(name for name in names if names.count(name) > 1)}")
    return dict(pairs)


def _constant(name: str) -> None:
    raise ValueError(f"not JSON: {name}")


def _told(error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {error['msg']}" if where else error["msg"]


def _result(reply: Response, shape: type[Shape]) -> Shape | Failure:
    if reply.finish == "failed":
        return Failure(f"no reply: {reply.error}", passing=reply.passing)
    if reply.finish in NO_TEXT:
        return Failure(NO_TEXT[reply.finish])
    try:
        return parse(reply.text, shape)
    except ValueError as error:
        cut = "cut off at max_tokens: " if reply.finish == "length" else ""
        return Failure(f"{cut}{error}", reply.text)


def _repair(request: Request, failure: Failure, shape: type, number: int) -> Request:
    """The thought is not sent back, as servers' own templates do not send it. Asked in the request's language: Chinese
    if its last message holds any.
    """
    language = "zh" if _CHINESE.search(request.messages[-1]["content"]) else "en"
    shown = [
        {"role": "assistant", "content": _short(_content(failure.text))},
        {"role": "user", "content": render(f"repair_json.{language}", error=_short(failure.reason))},
    ]
    step = f"{request.step}.repair{number}"
    return replace(request, step=step, messages=[*request.messages, *shown], shape=shape)


def _short(text: str) -> str:
    """Returns the text, one longer than LONGEST without its middle."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"
