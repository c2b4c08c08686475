"""An OpenAI-compatible server around the generation of this process, for machines without a GPU.

`transformers serve` 5.5.4 runs with the locked packages but was found unfit: a model whose generation_config does not
sample gets greedy answers at any temperature, stop words come back as part of the answer, `n` and
max_completion_tokens are ignored in silence, chat_template_kwargs are refused, and any client may make it load any
model of the hub. Here a field that would change the answer and is not supported is an error. One answer at a
time, and few that wait for theirs: many at once are vLLM's business.
"""

import asyncio
import contextlib
import json
import socket
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_pipeline.errors import BadInput
from data_pipeline.records import Response
from launch.cli.entry import console
from launch.models import local
from launch.models.openai_gate import COMPLETIONS, Gate, Patient, Refused, error
from launch.models.reasoning import Sampling

CHARACTERS = 16  # of a prompt for each token of the model's window; more cannot fit, and is not read. Ours
COLDEST = 0.01  # temperature; below it probabilities are no numbers, as vLLM has it
# What apply_chat_template takes for itself: a template from outside would be a program
RESERVED = frozenset(
    "self conversation messages tools documents chat_template add_generation_prompt continue_final_message tokenize"
    " padding truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs".split()
)


def _no_template(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is this server's own; only variables of the model's own template are taken")
    return name


Name = Annotated[str, Field(max_length=100), AfterValidator(_no_template)]
Bounded = {"ge": -1e6, "le": 1e6, "allow_inf_nan": False}
Value = bool | Annotated[int, Field(ge=-(10**6), le=10**6)] | Annotated[float, Field(**Bounded)]
Word = Annotated[str, Field(max_length=200)]


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
    messages: list[Message] = Field(min_length=1, max_length=2000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)  # as vLLM takes it, with the next: 0 and -1 are all
    repetition_penalty: float = Field(1.0, ge=0.1, le=10)  # beyond, the probabilities are no numbers
    n: int = Field(1, ge=1, le=64)
    stop: Word | Annotated[list[Word], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: Annotated[dict[Name, Value | Word | None], Field(max_length=20)] = {}
    user: str | None = None  # heeding it changes no answer, as the next two
    metadata: dict | None = None
    store: bool | None = None
    presence_penalty: Literal[0] | None = None  # only their defaults
    frequency_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None


def app(loaded: local.Loaded, name: str, key: str = "") -> FastAPI:
    """Returns the application: /health, /v1/models and /v1/chat/completions; `key` is what clients must send."""
    api = FastAPI(title="PsyForge", docs_url=None, redoc_url=None)
    api.add_middleware(Gate, key=key)
    turn, reading = asyncio.Semaphore(1), anyio.CapacityLimiter(1)  # one answer, and one prompt, at a time

    @api.exception_handler(Refused)
    async def refused(_, refusal: Refused) -> JSONResponse:
        return error(refusal.status, refusal.message, refusal.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(_, fault: RequestValidationError) -> JSONResponse:
        first = fault.errors()[0]
        return error(400, f"{'.'.join(map(str, first['loc'][1:])) or 'body'}: {first['msg']}")

    @api.get("/health")
    async def health() -> dict:
        return {"status": "ok"}

    @api.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "psyforge"}]}

    @api.post(COMPLETIONS)
    async def chat(asked: Chat):
        if asked.model != name:
            raise Refused(404, f"the model {asked.model!r} is not served here; {name!r} is")
        if asked.stream and asked.n > 1:
            raise Refused(400, "n: only 1 with stream")
        messages = [message.plain() for message in asked.messages]
        if (size := sum(len(message["content"]) for message in messages)) > CHARACTERS * loaded.window:
            raise Refused(400, f"messages: {size} characters, and the model takes {loaded.window} tokens")

        def read(number: int) -> _Answer:
            prompt = local.prompt(loaded, messages, asked.chat_template_kwargs)
            return _Answer(loaded, prompt, asked, turn, number)

        try:
            answers = [await run_sync(read, 0, limiter=reading)]
        except BadInput as fault:
            raise Refused(400, str(fault)) from None
        if asked.stream:
            return _Stream(_events(answers[0], asked, name))
        choices = []
        for index in range(asked.n):
            answers += [await run_sync(read, index, limiter=reading)] if index else []
            answer = answers[index]
            async with contextlib.aclosing(answer.pieces()) as pieces:
                text = "".join([piece async for piece in pieces])
            if answer.whole.error:
                raise Refused(500, answer.whole.error)
            message = {"role": "assistant", "content": text}
            choices.append({"index": index, "message": message, "finish_reason": answer.whole.finish, "logprobs": None})
        return _head("chat.completion", name) | {"choices": choices, "usage": _usage(answers)}

    return api


class _Answer:
    """One answer to a request, made when its turn comes; `whole` holds when its pieces are through."""

    def __init__(self, loaded: local.Loaded, prompt: str, asked: Chat, turn: asyncio.Semaphore, number: int) -> None:
        limit = asked.max_completion_tokens or asked.max_tokens
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        temperature = max(COLDEST, asked.temperature) if asked.temperature else 0.0
        sampling = Sampling(limit, temperature, asked.top_p, max(asked.top_k, 0), asked.repetition_penalty)
        self.stream = local.stream(loaded, prompt, sampling, stops)
        self.turn, self.seed = turn, None if asked.seed is None else asked.seed + number
        self.whole = Response("", "failed", 0)

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yields the answer's text; closed, or cancelled, it stops the model before the next one's turn comes."""
        import torch

        async with self.turn:
            if self.seed is not None:
                torch.manual_seed(self.seed)
            try:
                while (event := await run_sync(next, self.stream, None)) is not None:
                    if isinstance(event, Response):
                        self.whole = event
                    else:
                        yield event[1]
            finally:
                with anyio.CancelScope(shield=True):
                    await run_sync(self.stream.close)


class _Stream(StreamingResponse):
    """Closes what it streams also when the client hangs up, so that the next one's turn comes."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.events = events

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self.events.aclose()


async def _events(answer: _Answer, asked: Chat, name: str) -> AsyncGenerator[str, None]:
    head = _head("chat.completion.chunk", name)

    def event(delta: dict, finish: str | None = None) -> str:
        return _sse(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield event({"role": "assistant", "content": ""})
    async with contextlib.aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
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


def serve(model: str, name: str, listener: socket.socket, key: str) -> None:
    """Loads the model and serves it on the bound socket until SIGINT or SIGTERM."""
    import uvicorn

    application = app(local.load(model, "model"), name, key)
    host, port = listener.getsockname()[:2]
    console.print(f"serving {name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    console.print("The bare model, without the crisis gate of launch.chat. One answer at a time; many at once are the")
    console.print("business of vLLM: engine=vllm (bash launch/install.sh cpu vllm). Ctrl-C ends it.")
    settings = uvicorn.Config(application, http=Patient, log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(settings).run(sockets=[listener])
