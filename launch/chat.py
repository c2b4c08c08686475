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

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.safety.crisis import crisis_rules
from launch.cli.arguments import CHAT, Command
from launch.cli.configuration import as_dict
from launch.cli.entry import StageFailed, run_stage, show_plan
from launch.conversation.crisis_gate import CrisisGate, helplines
from launch.conversation.session import HELP, Session
from launch.conversation.settings import check, described
from launch.conversation.terminal import Terminal
from launch.models import local, remote
from launch.models.find import find_model
from launch.models.local import Sampling
from launch.models.reasoning import Pieces

BANNER = (
    "研究用工具，不是医疗器械，不作诊断，不供处于危机中的人使用。此刻若有危险，请联系身边的人、急救或危机热线。\n"
    "A research tool, no medical device and no diagnosis, not for people in crisis. If you are in danger now, turn to\n"
    "somebody near you, to emergency services or to a crisis line."
)


def run(config: DictConfig, command: Command) -> None:
    """Talks until the input ends; raises BadInput for wrong settings or input, StageFailed for messages unanswered."""
    check(config)
    gate = CrisisGate(helplines(config))
    if config.dry_run:
        show_plan(as_dict(config), ["python", "-m", "launch.chat"], {}, [_plan(config)])
        return
    message = config.message
    if config.once and message is None:
        if not _piped():
            raise BadInput("once=true without message=, and standard input is a terminal; say message=TEXT")
        message = _text(sys.stdin.buffer.read(), "standard input")
    if config.once and not str(message).strip():
        raise BadInput("once=true: the message is empty")
    if guard := open_connection(config.guard, "guard"):
        gate = replace(gate, guard=guard)
    crisis_rules()  # read now, not at the first message
    answers, name = open_model(config)
    session = Session(config, answers, gate, Terminal(shown=config.thoughts == "shown"), name)
    print(f"{BANNER}\n", file=sys.stderr)
    try:
        if config.once:
            _once(session, str(message))
        elif _piped():
            _pipe(session)
        else:
            _terminal(session)
    except BrokenPipeError:  # nobody reads any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_connection(settings: DictConfig, key: str) -> remote.Connection | None:
    """Returns the connection that `settings` describe, None without a base_url; raises BadInput when none answers."""
    if not settings.base_url:
        return None
    connection = remote.connect(described(settings, key))
    if settings.model is None:
        connection.server = replace(connection.server, model=remote.served_by(connection, key))
    elif connection.models and settings.model not in connection.models:
        listed = ", ".join(connection.models[:10])
        print(f"note: {settings.base_url} lists {listed}, not {key}.model={settings.model}", file=sys.stderr)
    return connection


def open_model(config: DictConfig) -> tuple[Callable[[list[dict]], Pieces], str]:
    """Returns (what answers a list of messages piece by piece, its name)."""
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    template = as_dict(config.chat_template_kwargs)
    if connection := open_connection(config.endpoint, "endpoint"):
        more = {"chat_template_kwargs": template} if template else {}
        more |= {} if config.seed is None else {"seed": config.seed}
        server = connection.server = replace(connection.server, extra_body={**more, **connection.server.extra_body})
        return lambda messages: remote.ask(connection, messages, sampling, config.think_prefilled), server.model
    model = find_model(config)
    loaded = local.load(model, "model")
    with (
        contextlib.suppress(BadInput, local.LengthLimit),
        contextlib.closing(local.stream(loaded, "你好", replace(sampling, max_new_tokens=1))) as first,
    ):
        list(first)  # the first token of all is slow, so it comes before anybody waits for it
    if config.seed is not None:
        import torch

        torch.manual_seed(config.seed)
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


def _plan(config: DictConfig) -> str:
    if config.endpoint.base_url:
        return f"talks to {config.endpoint.model or 'the only model'} at {config.endpoint.base_url}"
    try:
        return f"talks to {find_model(config)} in this process"
    except BadInput as error:
        return f"model unknown: {error}"


if __name__ == "__main__":
    sys.argv = [f"endpoint.base_url={a[9:]}" if a.startswith("endpoint=http") else a for a in sys.argv]
    run_stage(CHAT, run)
