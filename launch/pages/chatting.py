"""The chat page: one or two models answer, piece by piece; the crisis gate stands before them as in the terminal.

A conversation lives in this process alone, is forgotten when it ends, and is written to a file only when somebody asks.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import anyio
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from data_pipeline.errors import BadInput, first_fault
from data_pipeline.prompts import prompt_text
from launch.cli.arguments import CHAT, parse
from launch.cli.configuration import checked, compose_stage
from launch.conversation.crisis_gate import CrisisGate, helplines
from launch.conversation.opening import open_model, open_remote
from launch.conversation.session import Session
from launch.conversation.settings import Conversation
from launch.models.find import find_models
from launch.pages import texts
from launch.pages.rendering import page
from launch.preflight import gpu
from launch.running import overview
from launch.running.folder import RUNS

MOST = 20  # conversations that are kept in mind; the oldest is forgotten
QUIET = 15  # seconds after which a line is sent although nothing was said, so that a lost reader is noticed


class Say(BaseModel):
    """A message to one model."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=8, max_length=64)  # of the conversation, made by the page
    model: str  # a name of `voices`
    text: str = Field(min_length=1, max_length=20_000)
    temperature: float
    top_p: float
    max_new_tokens: int
    system: str = Field(max_length=20_000)


class Save(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(max_length=2)


@dataclass
class Page:
    """What a conversation is shown on: a queue of events for the reader of the answer. `stop` ends the answer."""

    shown: bool = True
    events: "queue.Queue[dict | None]" = field(default_factory=queue.Queue)
    stopped: threading.Event = field(default_factory=threading.Event)

    def guidance(self, text: str) -> None:
        self._put("guidance", text)

    def thought(self, text: str) -> None:
        self._put("thought", text)

    def reply(self, text: str) -> None:
        self._put("reply", text)

    def note(self, text: str) -> None:
        self._put("note", text, heed=False)

    def end(self) -> None:
        pass

    def _put(self, kind: str, text: str, heed: bool = True) -> None:
        self.events.put({"kind": kind, "text": texts.visible(text)})
        if heed and kind != "guidance" and self.stopped.is_set():
            raise KeyboardInterrupt


@dataclass
class Voice:
    """A model that answers, opened at its first message; one thread for all that it does."""

    name: str
    words: list[str]
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    opened: tuple[Callable, str, CrisisGate] | None = None
    until_the_end: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # of the process

    def settings(self) -> Conversation:
        with _COMPOSING:
            return checked(compose_stage(CHAT, parse(CHAT, self.words)), Conversation)

    def open(self, talk: Conversation, shown: Page) -> tuple[Callable, str, CrisisGate]:
        """Returns (what answers, its name, the gate); raises BadInput where there is no such model."""
        if self.opened is None:
            gate = CrisisGate(helplines(talk.helplines, talk.country))
            if guard := open_remote(talk, "guard", self.until_the_end):
                gate = replace(gate, guard=guard)
            if not talk.endpoint["base_url"]:
                shown.note("the model is being loaded")
                gpu.check_driver()
            with _OPENING:
                self.opened = (*open_model(talk, self.until_the_end), gate)
        return self.opened


_COMPOSING = threading.Lock()  # Hydra's state is the process's
_OPENING = threading.Lock()  # two first imports of transformers at once break one of them
_VOICES: dict[str, Voice] = {}
_SESSIONS: dict[tuple[str, str], Session] = {}


def router(given: dict[str, list[str]], run: str) -> APIRouter:
    """Returns the routes; `given` are the words for the configuration of up to two models, {"chat": [...], "other":
    [...]}, `run` the run that was named.
    """
    routes = APIRouter()

    @routes.get("/chat")
    def chat(request: Request, left: str = "", right: str = "") -> Response:
        names = list(voices(given, run))
        left = left if left in names else names[0] if names else ""
        right = right if right in names and right != left else ""
        talk, told = None, ""
        try:
            talk = _voice(left, given, run).settings() if left else None
        except BadInput as error:
            told = str(error)
        system = prompt_text(talk.system, "system") if talk else ""
        return page(
            request, "chat.html.jinja", names=names, left=left, right=right, talk=talk, told=told, system=system
        )

    @routes.post("/chat/say")
    def say(asked: Say) -> Response:
        voice, shown = _voice(asked.model, given, run), Page()
        voice.thread.submit(_answer, voice, asked, shown)
        return _Stream(_events(shown), shown)

    @routes.post("/chat/save")
    def save(asked: Save) -> dict:
        found = [session for (id, _), session in _SESSIONS.items() if id in asked.ids and session.said]
        if not found:
            raise BadInput("nothing was said yet")
        folder, files = RUNS / ".chats", []
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for number, session in enumerate(found, 1):
            session.terminal = Page()
            file = folder / f"{stamp}-{number}-{int(time.monotonic() * 1000) % 1000:03}.json"
            session.save(str(file))
            files.append(str(file.resolve()))
        return {"files": files}

    return routes


def check(name: str, words: list[str]) -> None:
    """Raises BadInput for words that are no settings of a conversation, and where they name no model."""
    if words:
        if not any(word.startswith(("endpoint.base_url=", "base_model=", "run=")) for word in words) and name != "chat":
            raise BadInput(f"{name}: which model? {name}.endpoint.base_url=URL or {name}.base_model=PATH")
        try:
            Voice(name, words).settings()
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from None


def voices(given: dict[str, list[str]], run: str) -> dict[str, list[str]]:
    """Returns {name: words of the chat's configuration} of the models that may be talked to: what the command line
    names, then the checkpoints of runs, the named one's first, the last checkpoint of each before the others.
    """
    found: dict[str, list[str]] = {}
    for words in given.values():
        said = dict(word.split("=", 1) for word in words if "=" in word)
        if address := said.get("endpoint.base_url"):
            found[f"{said.get('endpoint.model', 'model')} @ {address}"] = words
        elif model := said.get("base_model"):
            found[model] = words
    own = ("endpoint", "base_model", "run=", "checkpoint=")
    shared = [word for word in given.get("chat", ()) if not word.startswith(own)]
    runs = sorted(overview.all_runs(), key=lambda one: one.name != run)
    for one in runs:
        with contextlib.suppress(BadInput, OSError):
            for checkpoint in reversed(find_models(one.name, None, "all")):
                shared = [
                    word for word in given.get("chat", ()) if not word.startswith(("endpoint", "base_model", "run="))
                ]
                found[f"{one.name}/{checkpoint}"] = [f"run={one.name}", f"checkpoint={checkpoint}", *shared]
    return found


def _voice(name: str, given: dict[str, list[str]], run: str) -> Voice:
    if name not in _VOICES:
        known = voices(given, run)
        if name not in known:
            raise BadInput(f"{name}: no such model; {', '.join(known) or 'there is none yet'}")
        _VOICES[name] = Voice(name, known[name])
    return _VOICES[name]


def _answer(voice: Voice, asked: Say, shown: Page) -> None:
    """Has the message answered, in the voice's thread; what comes is in the queue, None at its end."""
    try:
        session = _session(voice, asked, shown)
        session.say(asked.text)
    except BadInput as error:
        shown.note(str(error))
    except Exception as error:  # of a model: it is told, and the page goes on
        shown.note(f"{type(error).__name__}: {error}")
    finally:
        shown.events.put(None)


def _session(voice: Voice, asked: Say, shown: Page) -> Session:
    given = {"temperature": asked.temperature, "top_p": asked.top_p, "max_new_tokens": asked.max_new_tokens,
             "system": asked.system.strip() or None}  # fmt: skip
    session = _SESSIONS.get((asked.id, voice.name))
    talk = _changed(session.settings if session else voice.settings(), given)
    if session is None:
        answers, name, gate = voice.open(talk, shown)
        session = _SESSIONS[asked.id, voice.name] = Session(talk, answers, gate, shown, name, stoppable=True)
        while len(_SESSIONS) > MOST:
            _SESSIONS.pop(next(iter(_SESSIONS)))
    session.settings, session.terminal = talk, shown
    return session


def _changed(talk: Conversation, given: dict[str, Any]) -> Conversation:
    """Returns the settings with those of the page; raises BadInput for a value that cannot be."""

    try:
        return Conversation.model_validate({**talk.model_dump(), **given})
    except ValidationError as error:
        raise BadInput(first_fault("", error)) from None


def _events(shown: Page) -> Generator[bytes, None, None]:
    while True:
        try:
            event = shown.events.get(timeout=QUIET)
        except queue.Empty:
            yield b"\n"
            continue
        if event is None:
            yield b'{"kind":"end"}\n'
            return
        yield json.dumps(event, ensure_ascii=False).encode() + b"\n"


class _Stream(StreamingResponse):
    """Stops the answer when nobody reads it any more, so that the model is free for the next message."""

    def __init__(self, events: Generator[bytes, None, None], shown: Page) -> None:
        super().__init__(events, media_type="application/x-ndjson")
        self.shown = shown

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                self.shown.stopped.set()
