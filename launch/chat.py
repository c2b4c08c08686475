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
from dataclasses import replace

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.safety.crisis import crisis_rules
from launch.cli.arguments import CHAT, Command
from launch.cli.configuration import as_dict, checked
from launch.cli.entry import StageFailed, run_stage, show_plan
from launch.conversation.crisis_gate import CrisisGate, helplines
from launch.conversation.opening import open_model, open_remote
from launch.conversation.session import BANNER, HELP, Session
from launch.conversation.settings import Conversation
from launch.conversation.terminal import Terminal
from launch.models.find import find_model
from launch.preflight import gpu


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
        if not talk.endpoint["base_url"]:
            gpu.check_driver()
        answers, name = open_model(talk, until_the_end)
        terminal = Terminal(shown=talk.thoughts == "shown")
        session = Session(talk, answers, gate, terminal, name)
        print(f"{BANNER}\n", file=sys.stderr)
        try:
            if talk.once:
                _once(session, str(message))
            elif _piped():
                _pipe(session, terminal)
            else:
                _terminal(session, terminal)
        except BrokenPipeError:  # nobody reads any more, as after `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _once(session: Session, message: str) -> None:
    if not session.say(_text(message.encode("utf-8", "surrogateescape"), "message")):
        raise StageFailed("the message has no whole answer")


def _pipe(session: Session, terminal: Terminal) -> None:
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
            terminal.note(str(error))
    if faults:
        raise BadInput(f"{len(faults)} lines were not taken: {faults[0]}")
    if not asked:
        raise BadInput("standard input is no terminal and holds no message; one a line, or once=true message=TEXT")
    if unanswered:
        raise StageFailed(f"{unanswered} of {asked} messages have no whole answer")


def _terminal(session: Session, terminal: Terminal) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (editing of the line)
    print(f"{session.name}. {HELP}", file=sys.stderr)
    session.stoppable = True
    while True:
        try:
            line = terminal.ask()
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
            terminal.note("/exit or Ctrl-D ends")
        except UnicodeError:
            terminal.note("that line is not UTF-8 and was not sent; set the terminal to UTF-8")
        except BadInput as error:
            terminal.note(str(error))


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
