"""One answer, piece by piece, of an OpenAI-compatible server: vLLM, `python -m launch.serve`, an API."""

import json
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server, api_key, is_loopback
from launch.models.local import SHOWN, GenerationInterrupted, LengthLimit, Sampling
from launch.models.reasoning import Pieces
from reward.thought import ThoughtStream

_HOPELESS = (401, 402, 403, 404)  # key, account, permission, model or path: the next message would fare no better


@dataclass
class Connection:
    """An open connection to a server; `models`: what it says it serves, [] when it does not say."""

    server: Server
    client: Any  # openai.OpenAI
    models: list[str]
    key: str = field(repr=False)

    def hide(self, text: str) -> str:
        return (text.replace(self.key, "***") if self.key else text)[:SHOWN]


def connect(server: Server) -> Connection:
    """Returns the connection to a server that answers; raises BadInput when none does, or when it refuses the key."""
    import openai

    key = api_key(server)
    client = openai.OpenAI(
        base_url=server.base_url,
        api_key=key or "none",
        max_retries=server.attempts - 1,  # only before the first piece of an answer
        timeout=openai.Timeout(server.timeout_s, connect=10),
        http_client=openai.DefaultHttpxClient(trust_env=not is_loopback(server)),
    )
    connection = Connection(server, client, [], key)
    try:
        listed = json.loads(client.get("/models", cast_to=str))
        connection.models = [str(entry["id"]) for entry in listed["data"]]
    except openai.APIStatusError as error:
        if error.status_code in (401, 402, 403):
            raise _hopeless(connection, error) from None  # any other: some servers have no such list
    except openai.APIConnectionError as error:
        raise BadInput(
            f"no server at {server.base_url}: {connection.hide(_cause(error))}; correct base_url or start the server"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{server.base_url}: something answers there, but no OpenAI-compatible server") from None
    return connection


def ask(connection: Connection, messages: list[dict], sampling: Sampling, prefilled: bool = False) -> Pieces:
    """Yields thought and reply of a server: from a field of their own (vLLM, DeepSeek) or out of the tags in the text.

    Raises Cut when the answer breaks off or cannot be had, BadInput for what the next message would suffer as well.
    """
    import openai

    splitter, finish = ThoughtStream(prefilled), None
    body = {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
    try:
        with connection.client.chat.completions.create(
            model=connection.server.model,
            messages=messages,
            stream=True,
            extra_body=connection.server.extra_body,
            **body,
        ) as chunks:
            for chunk in chunks:
                for choice in (chunk.choices or [])[:1]:
                    more = choice.delta.model_extra or {}
                    if thought := more.get("reasoning_content") or more.get("reasoning"):
                        splitter.closed = True  # the server parts them
                        splitter.inside = False
                        yield "thought", str(thought)
                    yield from splitter.feed(choice.delta.content or "")
                    finish = choice.finish_reason or finish
        yield from splitter.end()
    except openai.APIStatusError as error:
        if error.status_code in _HOPELESS:
            raise _hopeless(connection, error) from None
        raise GenerationInterrupted(f"HTTP {error.status_code}: {connection.hide(error.response.text)}") from None
    except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:  # the last ones: pieces that are none
        yield from splitter.end()
        raise GenerationInterrupted(f"connection lost: {connection.hide(_cause(error))}") from None
    if finish == "length":
        raise LengthLimit(f"cut at {sampling.max_new_tokens} tokens")
    if finish != "stop":
        raise GenerationInterrupted(f"broken off by the server ({connection.hide(str(finish or 'no finish_reason'))})")


def served_by(connection: Connection, key: str) -> str:
    """Returns the one model that a server lists, where the user names none; raises BadInput for none or several."""
    if len(connection.models) != 1:
        listed = ", ".join(connection.models[:10]) or "none"
        raise BadInput(
            f"{key}.model is not given, and {connection.server.base_url} lists {listed}; say {key}.model=NAME"
        )
    return connection.models[0]


def _hopeless(connection: Connection, error: Any) -> BadInput:
    key = f"the key in {connection.server.api_key_env}" if connection.key else "no key (api_key_env)"
    told = f"HTTP {error.status_code}: {connection.hide(error.response.text)}"
    server = connection.server
    return BadInput(f"{server.base_url} refuses model {server.model!r} with {key}; correct one of them: {told}")


def _cause(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
