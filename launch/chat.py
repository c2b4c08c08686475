"""Talks to a model: of a run, of a folder or the hub, or behind an OpenAI-compatible server.

    python -m launch.chat run=NAME [checkpoint=sft]
    python -m launch.chat base_model=PATH|ID recipe=psyllm language=en
    python -m launch.chat endpoint=http://127.0.0.1:8000/v1 [endpoint.model=NAME]
    python -m launch.chat run=NAME once=true message=你好
    python -m launch.chat run=NAME < messages.txt       one message a line, replies to standard output

/reset forgets the conversation, /save FILE writes it, /help, /exit; Ctrl-C stops an answer. Nothing is kept unasked.
A research tool: guidance to help stands before the answer whenever a message or a reply may speak of a crisis.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.safety.crisis import crisis_rules
from launch.cli.arguments import CHAT, Command
from launch.cli.configuration import as_dict, checked
from launch.cli.entry import StageFailed, run_stage, show_plan
from launch.conversation.crisis_gate import CrisisGate, helplines
from launch.conversation.session import HELP, Session
from launch.conversation.settings import Conversation
from launch.conversation.terminal import Terminal
from launch.models import local, remote
from launch.models.find import find_model
from launch.models.reasoning import Pieces
from launch.preflight import gpu

BANNER = (
    "研究用工具，不是医疗器械，不作诊断，不供处于危机中的人使用。此刻若有危险，请联系身边的人、急救或危机热线。\n"
    "A research tool, no medical device and no diagnosis, not for people in crisis. If you are in danger now, turn to\n"
    "somebody near you, to emergency services or to a crisis line."
)


def run(config: DictConfig, command: Command) -> None:
    """Talks until the input ends; raises BadInput for wrong settings or input, StageFailed for messages unanswered."""
    talk = checked(config, Conversation)
    gate = CrisisGate(helplines(talk.helplines, talk.country))
    if talk.dry_run:
        show_plan(as_dict(config), ["python", "-m", "launch.chat"], {}, [_plan(talk)])
        return
    message = talk.message
    if talk.once and message is None:
        if not _piped():
            raise BadInput("once=true without message=, and standard input is a terminal; say message=TEXT")
        message = _text(sys.stdin.buffer.read(), "standard input")
    if talk.once and not str(message).strip():
        raise BadInput("once=true: the message is empty")
    with contextlib.ExitStack() as until_the_end:
        if guard := open_remote(talk, "guard", until_the_end):
            gate = replace(gate, guard=guard)
        crisis_rules()  # read now, not at the first message
        answers, name = open_model(talk, until_the_end)
        session = Session(talk, answers, gate, Terminal(shown=talk.thoughts == "shown"), name)
        print(f"{BANNER}\n", file=sys.stderr)
        try:
            if talk.once:
                _once(session, str(message))
            elif _piped():
                _pipe(session)
            else:
                _terminal(session)
        except BrokenPipeError:  # nobody reads any more, as after `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_remote(
    talk: Conversation, key: Literal["endpoint", "guard"], until_the_end: contextlib.ExitStack
) -> remote.Remote | None:
    """Returns the connection to the server of `key`, None without one; raises BadInput when none answers."""
    server = talk.server(key)
    if server is None:
        return None
    opened, asked = until_the_end.enter_context(remote.connect(server)), getattr(talk, key)["model"]
    if asked is None:
        remote.change(opened, model=remote.served_by(opened, key))
    elif opened.models and asked not in opened.models:
        print(
            f"note: {server.base_url} lists {', '.join(opened.models[:10])}, not {key}.model={asked}", file=sys.stderr
        )
    return opened


def open_model(talk: Conversation, until_the_end: contextlib.ExitStack) -> tuple[Callable[[list[dict]], Pieces], str]:
    """Returns (what answers a list of messages piece by piece, its name)."""
    sampling, template = talk.sampling(), talk.chat_template_kwargs
    if opened := open_remote(talk, "endpoint", until_the_end):
        more = {"chat_template_kwargs": template} if template else {}
        more |= {} if talk.seed is None else {"seed": talk.seed}
        remote.change(opened, extra_body={**more, **opened.server.extra_body})
        return lambda messages: remote.ask(opened, messages, sampling, talk.think_prefilled), opened.server.model
    model = find_model(talk.run, talk.base_model, talk.checkpoint)
    gpu.check_driver()
    loaded = local.load(model, "model")
    with (
        contextlib.suppress(BadInput),
        contextlib.closing(local.stream(loaded, "你好", replace(sampling, max_new_tokens=1))) as first,
    ):
        list(first)  # the first token of all is slow, so it comes before anybody waits for it
    if talk.seed is not None:
        import torch

        torch.manual_seed(talk.seed)
    return lambda messages: local.answer(loaded, messages, sampling, template), model


def _once(session: Session, message: str) -> None:
    if not session.say(_text(message.encode("utf-8", "surrogateescape"), "message")):
        raise StageFailed("the message has no whole answer")


def _pipe(session: Session) -> None:
    asked, unanswered, faults = 0, 0, []
    for number, raw in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
        try:
            line = _text(raw, f"line {number}").strip()
            if line.startswith("/"):
                asked += 1
                if session.obey(line):
                    break
            elif line:
                asked += 1
                unanswered += not session.say(line)
                print(flush=True)
        except BadInput as error:
            faults.append(str(error))
            session.terminal.note(str(error))
    if faults:
        raise BadInput(f"{len(faults)} lines were not taken: {faults[0]}")
    if not asked:
        raise BadInput("standard input is no terminal and holds no message; one a line, or once=true message=TEXT")
    if unanswered:
        raise StageFailed(f"{unanswered} of {asked} messages have no whole answer")


def _terminal(session: Session) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (editing of the line)
    print(f"{session.name}. {HELP}", file=sys.stderr)
    session.stoppable = True
    while True:
        try:
            line = session.terminal.ask()
            line.encode("utf-8")
            if line.startswith("/"):
                if session.obey(line):
                    return
            elif line.strip():
                session.say(line.strip())
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            session.terminal.note("/exit or Ctrl-D ends")
        except UnicodeError:
            session.terminal.note("that line is not UTF-8 and was not sent; set the terminal to UTF-8")
        except BadInput as error:
            session.terminal.note(str(error))


def _piped() -> bool:
    return sys.stdin is None or not sys.stdin.isatty()


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: not UTF-8 from byte {error.start + 1} on; not sent, save it as UTF-8") from None


def _plan(talk: Conversation) -> str:
    if talk.endpoint["base_url"]:
        return f"talks to {talk.endpoint['model'] or 'the only model'} at {talk.endpoint['base_url']}"
    try:
        return f"talks to {find_model(talk.run, talk.base_model, talk.checkpoint)} in this process"
    except BadInput as error:
        return f"model unknown: {error}"


if __name__ == "__main__":
    sys.argv = [f"endpoint.base_url={a[9:]}" if a.startswith("endpoint=http") else a for a in sys.argv]
    run_stage(CHAT, run)
