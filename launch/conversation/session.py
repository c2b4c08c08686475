"""A conversation: what the model gets, what is shown, what a transcript holds."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_text
from launch.conversation.crisis_gate import CrisisGate
from launch.conversation.settings import Conversation
from launch.conversation.terminal import Terminal
from launch.models.reasoning import GenerationInterrupted, LengthLimit, Pieces
from reward.thought import join_thought

HELP = "/reset forgets the conversation, /save FILE writes it to a file, /exit ends; Ctrl-C stops an answer"
_CLAUSE = re.compile(r"[，,。；;！!？?、…\n]")
_LONGEST = 40  # characters of a reply that wait for the end of their clause, at most


@dataclass
class Session:
    """One conversation: `history` is what the model gets, `said` what a transcript holds."""

    settings: Conversation
    answers: Callable[[list[dict]], Pieces]
    gate: CrisisGate
    terminal: Terminal
    name: str
    stoppable: bool = False  # Ctrl-C stops an answer; else it ends the program
    history: list[dict] = field(default_factory=list)
    said: list[dict] = field(default_factory=list)

    def say(self, text: str) -> bool:
        """Shows the answer to one message; returns whether it is whole. What came of a cut one is kept and marked.

        Raises BadInput for what the next message would suffer as well.
        """
        flags = self.gate.flags(text)
        self.said.append({"role": "user", "content": text, **({"crisis": flags} if flags else {})})
        if flags:
            self.terminal.guidance(self.gate.guidance(text))
        prefix = prompt_text(self.settings.prefix, "prefix")
        asked = {"role": "user", "content": f"{prefix}\n{text}" if prefix else text}
        system = prompt_text(self.settings.system, "system")
        head = [{"role": "system", "content": system}] if system else []
        answer = Answer(self.terminal, self.gate, text, guided=bool(flags))
        whole, fault = True, None
        try:
            with contextlib.closing(self.answers([*head, *self.history, asked])) as pieces:
                for kind, piece in pieces:
                    answer.take(kind, piece)
            answer.show()
        except (GenerationInterrupted, BadInput, KeyboardInterrupt) as error:
            answer.cut, whole = str(error) or "stopped", isinstance(error, LengthLimit)
            fault = error if isinstance(error, BadInput) or not (self.stoppable or str(error)) else None
            answer.show()
        self.terminal.end()
        thought, reply = answer.thought.strip(), answer.reply.strip()
        kept = join_thought(thought, reply) if self.settings.keep_thoughts else reply
        if reply:  # an empty turn is no turn: two messages of the user in a row break many templates
            self.history += [asked, {"role": "assistant", "content": kept}]
        entry = {"role": "assistant", "content": reply, "thought": thought, "cut": answer.cut, "crisis": answer.flags}
        self.said.append({key: value for key, value in entry.items() if value or key in ("role", "content")})
        if fault:
            raise fault
        if not reply:
            self.terminal.note(f"no reply ({answer.cut or 'empty'}); the message is not in the history, say it again")
        elif answer.cut:
            self.terminal.note(f"{answer.cut}; what was said is kept")
        return bool(reply) and whole

    def obey(self, line: str) -> bool:
        """Does what a line that begins with "/" says; returns whether it ends the conversation. Raises BadInput."""
        word, _, rest = line.strip().partition(" ")
        if word == "/exit":
            return True
        if word == "/reset":
            self.history.clear()
            self.said.clear()
            self.terminal.note("the conversation is forgotten")
        elif word == "/save":
            self.save(rest.strip())
        elif word == "/help":
            self.terminal.note(HELP)
        else:
            raise BadInput(f"{word} is no command and was not sent; {HELP}")
        return False

    def save(self, file: str) -> None:
        """Writes the transcript, readable for its owner only; raises BadInput for a file that cannot be or is there."""
        if not file:
            raise BadInput("/save which FILE?")
        about = {
            "model": self.name,
            **self.settings.model_dump(
                include={"system", "temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens"}
            ),
        }
        text = json.dumps({**about, "messages": self.said}, ensure_ascii=False, indent=1) + "\n"
        path = Path(file).expanduser()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise BadInput(f"/save {file}: {error.strerror}; it was not written") from None
        with open(handle, "w", encoding="utf-8", errors="replace") as out:
            out.write(text)
        self.terminal.note(
            f"{len(self.said)} turns in {path.resolve()}, as they were said: names and contacts included"
        )


@dataclass
class Answer:
    """An answer while it arrives: a reply is shown clause by clause, each one after the gate has read it."""

    terminal: Terminal
    gate: CrisisGate
    message: str
    guided: bool  # guidance stands above it already
    thought: str = ""
    reply: str = ""
    waiting: str = ""
    cut: str = ""
    flags: list[str] = field(default_factory=list)

    def take(self, kind: str, piece: str) -> None:
        if kind == "thought":
            self.thought += piece
            self.terminal.thought(piece)
        elif kind == "late":
            self.thought, self.reply, self.waiting = self.reply, "", ""
        else:
            self.reply, self.waiting = self.reply + piece, self.waiting + piece
            if not self.gate.guard and (_CLAUSE.search(piece) or len(self.waiting) > _LONGEST):
                self.show()  # with a guard, the whole reply waits for it

    def show(self) -> None:
        """Shows what waits of the reply, under guidance when the gate flags the reply so far."""
        if not self.waiting:
            return
        if not self.flags and (flags := self.gate.flags(self.reply)):
            self.flags = flags
            if not self.guided:
                self.terminal.guidance(self.gate.guidance(self.message))
        ready, self.waiting = self.waiting, ""  # first, lest Ctrl-C shows it twice
        self.terminal.reply(ready)
