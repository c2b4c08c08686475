"""What goes over the wire: a request's body, and what a reply says, out of one JSON body or the pieces of a stream."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server
from data_pipeline.records import REFUSED, TOOL_CALLS, Request, Response
from reward.thought import beginning

SHOWN = 300  # characters of a server's message in an error
Delta = tuple[str, str]  # ("text" or "reasoning", more of it): of a Response, the field and what has just come
_OURS = {"messages", "model", "n", "stream"}  # of a request's body
_BROKEN_OFF = ("abort", "error", "insufficient_system_resource")  # finish reasons of completions that are no result
_MODEL = re.compile(r'"model"\s*:\s*"([^"\\]{1,200})"')  # within a text the quotes would be escaped
_LONE = re.compile("[\ud800-\udfff]")
_SECRET = 8  # characters; a shorter key is no secret, but may be a word


def request_body(server: Server, request: Request) -> dict:
    """Returns what is sent for a request; raises BadInput for a parameter that is the client's own."""
    given = {name: value for name, value in request.params.items() if value is not None} | server.extra_body
    if ours := sorted(_OURS & given.keys()):
        raise BadInput(f"{', '.join(ours)}: not a parameter of a request here; the client sets it")
    if request.shape and server.json_schema:
        given.setdefault("response_format", _response_format(request.shape))
    return {"model": server.model, "messages": request.messages, **given}


def count_tokens(body: dict) -> tuple[int, int]:
    """Returns about how many tokens a prompt has (its bytes / 4), and how many its reply may have (0: not said)."""
    prompt = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace")) // 4
    return prompt, body.get("max_tokens") or body.get("max_completion_tokens") or 0


def hide(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text


def read_reply(content: str, key: str) -> tuple[Response, bool]:
    """Returns the response, and whether the server is to be asked again because there is none in `content`."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        if not content.strip():
            return Response("", "failed", 0, error="empty body"), True
        shown = hide(content, key)[-SHOWN:]
        return Response("", "failed", 0, error=f"broken JSON, {len(content)} characters, its end: {shown}"), True
    prompt_tokens, tokens = _tokens(data)
    choices = _dict(data).get("choices")
    if not isinstance(choices, list) or not choices:
        error = f"no choices: {hide(content, key)[:SHOWN]}"
        return Response("", "failed", tokens, "", prompt_tokens, error), True
    message = _dict(choices[0]).get("message")
    text, thought = (_clean(part, key) for part in _said(message))
    finish = _clean(_dict(choices[0]).get("finish_reason"), key) or "unknown"
    finish = finish if text.strip() else _instead(message) or finish
    return judged(Response(text, finish, tokens, thought, prompt_tokens))


def served_model(content: str) -> str:
    """Returns the name that the server gives the model of a completion, "" where it gives none."""
    match = _MODEL.search(content)
    return match[1] if match else ""


def judged(response: Response) -> tuple[Response, bool]:
    """Returns it, or in its place one with finish "failed" that keeps tokens and thought; and whether to ask again."""
    error = ""
    if response.finish == "content_filter" and not response.text.strip():
        response.finish = REFUSED
    if response.finish in (REFUSED, TOOL_CALLS):
        return response, False  # an answer, too: asked again it would cost the same
    # Results too, which asked again would cost the same and end the same: nothing but thoughts, be it up to max_tokens
    # or to an end of the model's own, and an end as the first token.
    ended = response.finish == "stop" and (response.reasoning.strip() or response.tokens == 1)
    if response.finish in _BROKEN_OFF:
        error = f"broken off by the server: {response.finish}"
    elif not response.text.strip() and response.finish != "length" and not ended:
        error = f"empty content, finish {response.finish}"
    if not error:
        return response, False
    return Response("", "failed", response.tokens, response.reasoning, response.prompt_tokens, error), True


class Arriving:
    """An answer that arrives in pieces. Half a character (of a surrogate pair) and what may be the beginning of the
    key wait for the next piece.
    """

    def __init__(self, key: str) -> None:
        self.key, self.finish, self.counts, self.instead = key, "", (0, 0), ""
        self.whole, self.held = {"text": "", "reasoning": ""}, {"text": "", "reasoning": ""}

    def take(self, chunk: object) -> Iterator[Delta]:
        """Yields what a chunk of a chat completion brings."""
        if _dict(chunk).get("usage"):
            self.counts = _tokens(chunk)
        choices = _dict(chunk).get("choices")
        choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
        text, thought = _said(choice.get("delta"))
        self.instead = self.instead or _instead(choice.get("delta"))
        yield from self._give("reasoning", thought, last=bool(text))
        yield from self._give("text", text)
        self.finish = _clean(choice.get("finish_reason"), self.key) or self.finish

    def rest(self) -> Iterator[Delta]:
        """Yields what was waiting."""
        yield from self._give("reasoning", "", last=True)
        yield from self._give("text", "", last=True)

    def response(self) -> tuple[Response, bool]:
        """Returns the whole as `judged` does; without a finish reason it was broken off."""
        prompt_tokens, tokens = self.counts
        finish = self.finish if self.whole["text"].strip() else self.finish and (self.instead or self.finish)
        response = Response(self.whole["text"], finish, tokens, self.whole["reasoning"], prompt_tokens)
        if self.finish:
            return judged(response)
        return self.broken("broken off by the server: no finish_reason"), True

    def broken(self, error: str) -> Response:
        """Returns what has come by now, as failed for this reason."""
        prompt_tokens, tokens = self.counts
        return Response(self.whole["text"], "failed", tokens, self.whole["reasoning"], prompt_tokens, error)

    def _give(self, kind: str, more: str, last: bool = False) -> Iterator[Delta]:
        text, keep = self.held[kind] + more, 0
        if text and not last:
            keep = beginning(text, [self.key]) if len(self.key) >= _SECRET else 0
            keep = max(keep, "\ud800" <= text[-1] <= "\udbff")
        ready = _clean(text[: len(text) - keep], self.key)
        self.held[kind] = text[len(text) - keep :]
        if ready:
            self.whole[kind] += ready
            yield kind, ready


def _said(message: object) -> tuple[str, str]:
    """Returns (text, thought) of a message, or of the delta of one, as they stand there; parts of each are joined."""
    message = _dict(message)
    content, thought = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    text, inner = _parts(content)
    return text, thought if isinstance(thought, str) and thought else inner


def _parts(content: object) -> tuple[str, str]:
    """Returns (text, thought) of a message's content: a string, or parts of type text, thinking and reasoning."""
    if isinstance(content, str):
        return content, ""
    texts, thoughts = [], []
    for part in content if isinstance(content, list) else ():
        part = {"text": part} if isinstance(part, str) else _dict(part)
        kind = part.get("type", "text")
        said = _parts(part.get(kind, part.get("text")))[0]
        if kind in ("thinking", "reasoning"):
            thoughts.append(said)
        elif kind in ("text", "output_text"):
            texts.append(said)
    return "".join(texts), "".join(thoughts)


def _instead(message: object) -> str:
    """Returns the end of a message that holds a refusal or calls of tools, or ""."""
    message = _dict(message)
    content = message.get("content")
    parts = [_dict(part).get("type") for part in content] if isinstance(content, list) else []
    if message.get("refusal") or "refusal" in parts:
        return REFUSED
    return TOOL_CALLS if message.get("tool_calls") or message.get("function_call") or "tool_use" in parts else ""


def _tokens(data: object) -> tuple[int, int]:
    """Returns the tokens of (prompt, completion) as the server counts them, 0 where it does not say."""
    usage = _dict(_dict(data).get("usage"))
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0  # what sqlite can add up


def _clean(text: object, key: str) -> str:
    """Returns a server's text as valid Unicode: a pair of surrogates becomes its character, half a one U+FFFD."""
    text = text if isinstance(text, str) else ""
    if _LONE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return hide(text, key) if len(key) >= _SECRET else text


@cache
def _response_format(shape: type) -> dict:
    import openai

    tool = cast(Any, openai.pydantic_function_tool(shape))  # its type leaves the parameters out at will
    schema = tool["function"]["parameters"]  # strict, as OpenAI asks it of a schema
    return {"type": "json_schema", "json_schema": {"name": shape.__name__, "strict": True, "schema": schema}}
