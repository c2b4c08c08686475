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
from collections.abc import Callable, Iterator
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from data_pipeline import server
from data_pipeline.crisis import crisis_rules
from data_pipeline.records import BadInput
from launch import gate, remote, stage, streaming
from launch.arguments import Command, Stage, prompt_text
from launch.eval import CHECKPOINTS, find_models
from launch.screen import Screen
from launch.streaming import Sampling
from launch.talk import HELP, Talk
from launch.thought import Piece

STAGE = Stage("chat", has_hardware=False)
BANNER = (
    "研究用工具，不是医疗器械，不作诊断，不供处于危机中的人使用。此刻若有危险，请联系身边的人、急救或危机热线。\n"
    "A research tool, no medical device and no diagnosis, not for people in crisis. If you are in danger now, turn to\n"
    "somebody near you, to emergency services or to a crisis line."
)


def run(config: DictConfig, command: Command) -> None:
    """Talks until the input ends; raises BadInput for wrong settings or input, StageFailed for messages unanswered."""
    check(config)
    crisis = gate.Gate(gate.helplines(config))
    if config.dry_run:
        return stage.show_plan(OmegaConf.to_container(config), ["python", "-m", "launch.chat"], {}, [_plan(config)])
    message = config.message
    if config.once and message is None:
        if not _piped():
            raise BadInput("once=true without message=, and standard input is a terminal; say message=TEXT")
        message = _text(sys.stdin.buffer.read(), "standard input")
    if config.once and not str(message).strip():
        raise BadInput("once=true: the message is empty")
    if guard := open_line(config.guard, "guard"):
        crisis = replace(crisis, guard=guard)
    crisis_rules()  # read now, not at the first message
    answers, name = open_model(config)
    talk = Talk(config, answers, crisis, Screen(shown=config.thoughts == "shown"), name)
    print(f"{BANNER}\n", file=sys.stderr)
    try:
        _once(talk, str(message)) if config.once else _pipe(talk) if _piped() else _terminal(talk)
    except BrokenPipeError:  # nobody reads any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check(config: DictConfig) -> None:
    """Raises BadInput for a value that cannot be."""
    for key, kind, least, most in (
        ("temperature", (int, float), 0, 2),
        ("top_p", (int, float), 0.001, 1),
        ("max_new_tokens", int, 1, 10**6),
        ("seed", int, 0, 2**32),
    ):
        value = config[key]
        if value is None and key == "seed":
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            raise BadInput(f"{key}={value}: a {'whole ' * (kind is int)}number from {least} to {most}")
    for key, known in (("thoughts", ("shown", "hidden")), ("language", ("zh", "en")), ("checkpoint", CHECKPOINTS)):
        if config[key] not in known and not (key == "checkpoint" and config[key] is None):
            raise BadInput(f"{key}={config[key]}: known are {', '.join(known)}")
    for key in ("once", "keep_thoughts", "think_prefilled", "dry_run"):
        if not isinstance(config[key], bool):
            raise BadInput(f"{key}={config[key]}: true or false")
    if config.message is not None and not config.once:
        raise BadInput("message= goes with once=true; without it, messages come from standard input")
    for key in ("system", "prefix"):
        prompt_text(config[key], key)
    for key in ("endpoint", "guard"):
        if config[key].base_url:
            described(config[key], key)


def find_model(config: DictConfig) -> str:
    """Returns the folder or ID of the model to talk to; raises BadInput for one that is not there."""
    asked = OmegaConf.merge(config, {"checkpoint": config.checkpoint or ("base" if config.base_model else "all")})
    return list(find_models(asked).values())[-1]  # the last of base, sft, grpo


def described(settings: DictConfig, key: str) -> server.Server:
    """Returns the server of `settings`, called "?" while its model is not known; raises BadInput for wrong ones."""
    return server.server_from({**OmegaConf.to_container(settings), "model": settings.model or "?"}, key)


def open_line(settings: DictConfig, key: str) -> remote.Line | None:
    """Returns the line to the server of `settings`, None without a base_url; raises BadInput when none answers."""
    if not settings.base_url:
        return None
    line = remote.connect(described(settings, key))
    if settings.model is None:
        line.server = replace(line.server, model=remote.served_by(line, key))
    elif line.models and settings.model not in line.models:
        listed = ", ".join(line.models[:10])
        print(f"note: {settings.base_url} lists {listed}, not {key}.model={settings.model}", file=sys.stderr)
    return line


def open_model(config: DictConfig) -> tuple[Callable[[list[dict]], Iterator[Piece]], str]:
    """Returns (what answers a list of messages piece by piece, its name)."""
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    template = OmegaConf.to_container(config.chat_template_kwargs)
    if line := open_line(config.endpoint, "endpoint"):
        more = {"chat_template_kwargs": template} if template else {}
        more |= {} if config.seed is None else {"seed": config.seed}
        line.server = replace(line.server, extra_body={**more, **line.server.extra_body})
        return lambda messages: remote.ask(line, messages, sampling, config.think_prefilled), line.server.model
    model = find_model(config)
    loaded = streaming.load(model, "model")
    with (
        contextlib.suppress(BadInput, streaming.Full),
        contextlib.closing(streaming.stream(loaded, "你好", replace(sampling, max_new_tokens=1))) as first,
    ):
        list(first)  # the first token of all is slow, so it comes before anybody waits for it
    if config.seed is not None:
        import torch

        torch.manual_seed(config.seed)
    return lambda messages: streaming.answer(loaded, messages, sampling, template), model


def _once(talk: Talk, message: str) -> None:
    if not talk.say(_text(message.encode("utf-8", "surrogateescape"), "message")):
        raise stage.StageFailed("the message has no whole answer")


def _pipe(talk: Talk) -> None:
    asked, unanswered, faults = 0, 0, []
    for number, raw in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
        try:
            line = _text(raw, f"line {number}").strip()
            if line.startswith("/"):
                asked += 1
                if talk.obey(line):
                    break
            elif line:
                asked += 1
                unanswered += not talk.say(line)
                print(flush=True)
        except BadInput as error:
            faults.append(str(error))
            talk.screen.note(str(error))
    if faults:
        raise BadInput(f"{len(faults)} lines were not taken: {faults[0]}")
    if not asked:
        raise BadInput("standard input is no terminal and holds no message; one a line, or once=true message=TEXT")
    if unanswered:
        raise stage.StageFailed(f"{unanswered} of {asked} messages have no whole answer")


def _terminal(talk: Talk) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (editing of the line)
    print(f"{talk.name}. {HELP}", file=sys.stderr)
    talk.stoppable = True
    while True:
        try:
            line = talk.screen.ask()
            line.encode("utf-8")
            if line.startswith("/"):
                if talk.obey(line):
                    return
            elif line.strip():
                talk.say(line.strip())
        except EOFError:
            return print(file=sys.stderr)
        except KeyboardInterrupt:
            talk.screen.note("/exit or Ctrl-D ends")
        except UnicodeError:
            talk.screen.note("that line is not UTF-8 and was not sent; set the terminal to UTF-8")
        except BadInput as error:
            talk.screen.note(str(error))


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
    stage.main(STAGE, run)
