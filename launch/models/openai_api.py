"""An OpenAI-compatible server around the generation of this process, for machines without a GPU.

`transformers serve` 5.5.4 runs with the locked packages but was found unfit: a model whose generation_config does not
sample gets greedy answers at any temperature, stop words come back as part of the answer, `n` and
max_completion_tokens are ignored in silence, chat_template_kwargs are refused, and any client may make it load any
model of the hub. Here a field that would change the answer and is not supported is an error. One answer at a
time, and few that wait for theirs: many at once are vLLM's business.
"""

import contextlib
import hmac
import json
import math
import socket
import threading
import time
import uuid
from collections.abc import Generator
from typing import Literal

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from data_pipeline.errors import BadInput
from data_pipeline.records import Response
from launch.cli.entry import console
from launch.models import local
from launch.models.reasoning import Sampling

QUEUE = 32  # requests that are answered or wait; ours, as many as an evaluation asks at once
COMPLETIONS = "/v1/chat/completions"


class Text(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str | list[Text]

    def plain(self) -> dict[str, str]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": content}


class StreamOptions(BaseModel):
    include_usage: bool = False


class Chat(BaseModel):
    """A request: what OpenAI's API takes and this server heeds, and chat_template_kwargs as vLLM takes them."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)  # as vLLM takes it, with the next: 0 and -1 are all
    repetition_penalty: float = Field(1.0, gt=0)
    n: int = Field(1, ge=1, le=64)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict = {}
    user: str | None = None  # heeding it changes no answer, as the next two
    metadata: dict | None = None
    store: bool | None = None
    presence_penalty: Literal[0] | None = None  # only their defaults
    frequency_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


def app(loaded: local.Loaded, name: str, key: str = "") -> FastAPI:
    """Returns the application: /health, /v1/models and /v1/chat/completions; `key` is what clients must send."""
    api, turn = FastAPI(title="PsyForge", docs_url=None, redoc_url=None), threading.Lock()
    api.add_middleware(Queue)

    def checked(request: Request) -> None:
        if key and not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {key}".encode()):
            raise Refused(401, "this server asks for a key, and this is not it")

    @api.exception_handler(Refused)
    async def refused(_, error: Refused) -> JSONResponse:
        return _error(error.status, error.message)

    @api.exception_handler(RequestValidationError)
    async def invalid(_, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, f"{'.'.join(map(str, first['loc'][1:])) or 'body'}: {first['msg']}")

    @api.get("/health")
    def health() -> dict:
        return {"status": "ok"}

    @api.get("/v1/models", dependencies=[Depends(checked)])
    def models() -> dict:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "psyforge"}]}

    @api.post(COMPLETIONS, dependencies=[Depends(checked)])
    def chat(asked: Chat):
        if asked.model != name:
            raise Refused(404, f"the model {asked.model!r} is not served here; {name!r} is")
        if asked.stream and asked.n > 1:
            raise Refused(400, "n: only 1 with stream")
        try:
            prompt = local.prompt(loaded, [m.plain() for m in asked.messages], asked.chat_template_kwargs)
            answers = [_Answer(loaded, prompt, asked, turn, number) for number in range(asked.n)]
        except BadInput as error:
            raise Refused(400, str(error)) from None
        if asked.stream:
            return _Stream(_events(answers[0], asked, name))
        texts = ["".join(answer.pieces()) for answer in answers]
        if failed := [answer.whole.error for answer in answers if answer.whole.error]:
            raise Refused(500, failed[0])
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": answer.whole.finish,
                "logprobs": None,
            }
            for index, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
        return _head("chat.completion", name) | {"choices": choices, "usage": _usage(answers)}

    return api


class Queue:
    """Lets QUEUE requests in, and tells the others when to come back: one more would time out while it waits."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.inside, self.left, self.seconds = app, 0, time.monotonic(), 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != COMPLETIONS:
            return await self.app(scope, receive, send)
        if self.inside >= QUEUE:
            error = (
                f"{QUEUE} requests are answered or wait here already, and this server gives one answer at a time: ask "
                "with fewer at once, or serve by vLLM (engine=vllm, bash launch/install.sh cpu vllm)"
            )
            after = {"Retry-After": str(math.ceil(max(1.0, self.seconds * QUEUE)))}
            return await _error(503, error, after)(scope, receive, send)
        begun = time.monotonic()
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1
            self.seconds = time.monotonic() - max(begun, self.left)  # of the last one, without its wait
            self.left = time.monotonic()


class _Answer:
    """One answer to a request, made when its turn comes; `whole` holds when its pieces are through."""

    def __init__(self, loaded: local.Loaded, prompt: str, asked: Chat, turn: threading.Lock, number: int) -> None:
        limit = asked.max_completion_tokens or asked.max_tokens
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        sampling = Sampling(limit, asked.temperature, asked.top_p, max(asked.top_k, 0), asked.repetition_penalty)
        self.stream = local.stream(loaded, prompt, sampling, stops)
        self.turn, self.seed = turn, None if asked.seed is None else asked.seed + number
        self.whole = Response("", "failed", 0)

    def pieces(self) -> Generator[str, None, None]:
        import torch

        with self.turn, contextlib.closing(self.stream) as events:
            if self.seed is not None:
                torch.manual_seed(self.seed)
            for event in events:
                if isinstance(event, Response):
                    self.whole = event
                else:
                    yield event[1]


class _Stream(StreamingResponse):
    """Closes what it streams also when the client hangs up, so that the next one's turn comes."""

    def __init__(self, events: Generator[str, None, None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.events = events

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.events.close)


def _events(answer: _Answer, asked: Chat, name: str) -> Generator[str, None, None]:
    head = _head("chat.completion.chunk", name)

    def event(delta: dict, finish: str | None = None) -> str:
        return _sse(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield event({"role": "assistant", "content": ""})
    with contextlib.closing(answer.pieces()) as pieces:
        for piece in pieces:
            yield event({"content": piece})
    if answer.whole.error:
        yield _sse({"error": {"message": answer.whole.error, "type": "server_error"}})
        return
    yield event({}, answer.whole.finish)
    if asked.stream_options and asked.stream_options.include_usage:
        yield _sse(head | {"choices": [], "usage": _usage([answer])})
    yield "data: [DONE]\n\n"


def _head(kind: str, name: str) -> dict:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _usage(answers: list[_Answer]) -> dict:
    prompt, tokens = answers[0].whole.prompt_tokens, sum(answer.whole.tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _sse(content: dict) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)


def serve(model: str, name: str, listener: socket.socket, key: str) -> None:
    """Loads the model and serves it on the bound socket until SIGINT or SIGTERM."""
    import uvicorn

    application = app(local.load(model, "model"), name, key)
    host, port = listener.getsockname()[:2]
    console.print(f"serving {name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1", markup=False)
    console.print("The bare model, without the crisis gate of launch.chat. One answer at a time; many at once are the")
    console.print("business of vLLM: engine=vllm (bash launch/install.sh cpu vllm). Ctrl-C ends it.")
    settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(settings).run(sockets=[listener])
