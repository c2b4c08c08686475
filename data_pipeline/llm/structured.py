"""Replies that are one JSON object of a given shape, read strictly; one that is not may be repaired by asking again.

A shape is a pydantic model, best `class Verdict(BaseModel, extra="forbid")` without default values. The prompt says in
words what the object holds; a server with `json_schema` gets the schema besides. Nothing is searched for in a text: it
is one object, bare or in one ```json fence, after a thought that ends in </think>, or it is invalid.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_pipeline.prompts import render
from data_pipeline.records import Ask, Request, Response

Shape = TypeVar("Shape", bound=BaseModel)

_SHOWN = 5  # errors of one reply
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str  # for the rejects: "wrong shape: answer: Field required"
    text: str = ""  # the last reply


def ask_json(
    ask: Callable[[list[Request]], list[Response]], requests: list[Request], shape: type[Shape], repairs: int = 1
) -> tuple[list[Shape | Failure], dict[str, int]]:
    """Returns (an object or a Failure per request, in order; counts "asked", "invalid", "repaired", "failed").

    An invalid reply is asked again up to `repairs` times (1 is ours), with the reply and its error, as the request of
    the same row and sample in step "STEP.repair1", so that ledger and recorded replies know it. Not repaired are calls
    that failed and replies cut off at max_tokens: asked again they end the same. "failed" is the number of Failures:
    failed calls + invalid - repaired. Raises what `ask` raises.
    """
    replies = ask([replace(request, shape=shape) for request in requests])
    results = [_result(reply, shape) for reply in replies]
    pairs = zip(replies, results, strict=True)
    bad = sum(isinstance(result, Failure) and reply.finish != "failed" for reply, result in pairs)
    counts = {"asked": len(requests), "invalid": bad, "repaired": 0}
    invalid = _repairable(range(len(requests)), replies, results)
    for number in range(1, repairs + 1):
        if not invalid:
            break
        replies = ask([_repair(requests[place], failure, shape, number) for place, failure in invalid.items()])
        for place, reply in zip(invalid, replies, strict=True):
            results[place] = _result(reply, shape)
            counts["repaired"] += not isinstance(results[place], Failure)
        invalid = _repairable(invalid, replies, results)
    counts["failed"] = sum(isinstance(result, Failure) for result in results)
    return results, counts


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
        return Failure(f"no reply: {reply.error}")
    try:
        return parse(reply.text, shape)
    except ValueError as error:
        cut = "cut off at max_tokens: " if reply.finish == "length" else ""
        return Failure(f"{cut}{error}", reply.text)


def _repairable(places: Iterable[int], replies: list[Response], results: list) -> dict[int, Failure]:
    """Returns the failures that asking again may mend, by their place; `replies` are those of `places`."""
    return {
        place: results[place]
        for place, reply in zip(places, replies, strict=True)
        if isinstance(results[place], Failure) and reply.finish not in ("failed", "length")
    }


def _repair(request: Request, failure: Failure, shape: type, number: int) -> Request:
    """The thought is not sent back, as servers' own templates do not send it. Asked in the request's language: Chinese
    if its last message holds any.
    """
    language = "zh" if _CHINESE.search(request.messages[-1]["content"]) else "en"
    shown = [
        {"role": "assistant", "content": _content(failure.text)},
        {"role": "user", "content": render(f"repair_json.{language}", error=failure.reason)},
    ]
    step = f"{request.step}.repair{number}"
    return replace(request, step=step, messages=[*request.messages, *shown], shape=shape)


def ask_again(
    ask: Ask, requests: list[Request], shape: type[Shape], fault: Callable[[int, Shape], str] = lambda place, reply: ""
) -> tuple[list[Shape | Failure], list[int], dict]:
    """Returns as `ask_json`, and the sample of each result between: what is unreadable, or of which `fault(place,
    object)` gives a reason, is asked once more as sample 1 (ours). Failed calls are not: the client has tried them.
    """
    results, samples = [], [0] * len(requests)
    found, counts = ask_json(ask, requests, shape)
    for place, result in enumerate(found):
        results.append(_faulty(result, place, fault))
    again = [place for place, result in enumerate(results) if isinstance(result, Failure) and result.text]
    if again:
        found, more = ask_json(ask, [once_more(requests[place]) for place in again], shape)
        for place, result in zip(again, found, strict=True):
            results[place], samples[place] = _faulty(result, place, fault), 1
        counts = {name: counts[name] + more[name] for name in counts} | {"again": len(again)}
    return results, samples, counts | {"failed": sum(isinstance(result, Failure) for result in results)}


def _faulty(result: Shape | Failure, place: int, fault: Callable) -> Shape | Failure:
    if isinstance(result, Failure) or not (why := fault(place, result)):
        return result
    return Failure(why, result.model_dump_json())


def once_more(request: Request) -> Request:
    """Returns the request as sample 1; one at temperature 0, whose answer would be the same, at 1."""
    params = request.params
    return replace(request, sample=1, params=params | ({"temperature": 1.0} if params.get("temperature") == 0 else {}))
