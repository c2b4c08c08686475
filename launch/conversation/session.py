"""A conversation: what the model gets, what is shown, what a transcript holds."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from data_pipeline.errors import BadInput
from data_pipeline.prompts import prompt_text
from launch.conversation.crisis_gate import NOTES, CrisisGate, Reader
from launch.conversation.settings import Conversation
from launch.models.reasoning import GenerationInterrupted, LengthLimit, Pieces
from reward.thought import join_thought

BANNER = (
    "研究用工具，不是医疗器械，不作诊断，不供处于危机中的人使用。此刻若有危险，请联系身边的人、急救或危机热线。\n"
    "A research tool, no medical device and no diagnosis, not for people in crisis. If you are in danger now, turn to\n"
    "somebody near you, to emergency services or to a crisis line."
)
HELP = "/reset forgets the conversation, /save FILE writes it to a file, /exit ends; Ctrl-C stops an answer"
_CLAUSE = re.compile(r"[，,。；;！!？?、…\n]")
_LONGEST = 40  # characters of an answer that wait for the end of their clause, at most
_BLOCK = 400  # characters of a very long answer that are read at once


class Screen(Protocol):
    """Where a conversation is shown: a terminal, a page."""

    shown: bool  # whether thoughts are

    def guidance(self, text: str) -> None: ...
    def thought(self, text: str) -> None: ...
    def reply(self, text: str) -> None: ...
    def end(self) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class Session:
    """One conversation: `history` is what the model gets, `said` what a transcript holds."""

    settings: Conversation
    answers: Callable[[list[dict]], Pieces]
    gate: CrisisGate
    terminal: Screen
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
        messages = [turn["content"] for turn in reversed(self.said) if turn["role"] == "user"]
        guidance = self.gate.guidance(messages, self.settings.language)
        if flags:
            self.terminal.guidance(guidance)
        prefix = prompt_text(self.settings.prefix, "prefix")
        asked = {"role": "user", "content": f"{prefix}\n{text}" if prefix else text}
        system = prompt_text(self.settings.system, "system")
        head = [{"role": "system", "content": system}] if system else []
        answer = Answer(self.terminal, Reader(self.gate), "" if flags else guidance)
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
        for flag in dict.fromkeys([*flags, *answer.flags]):
            if flag in NOTES:
                self.terminal.note(NOTES[flag])
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
    """An answer while it arrives: it is shown clause by clause, each one after the gate has read it; so is a thought,
    where thoughts are shown.
    """

    terminal: Screen
    reader: Reader
    guidance: str  # to show above what speaks of a crisis, "" once it stands there
    thought: str = ""
    reply: str = ""
    waiting: list[tuple[str, str]] = field(default_factory=list)  # pieces that are not shown yet, thoughts and replies
    cut: str = ""

    @property
    def flags(self) -> list[str]:
        return self.reader.flags

    def take(self, kind: str, piece: str) -> None:
        if kind == "late":
            self.thought, self.reply = self.reply, ""
            self.waiting = [("thought", text) for _, text in self.waiting] if self.terminal.shown else []
            return
        if kind == "thought":
            self.thought += piece
            if not self.terminal.shown:
                return
        else:
            self.reply += piece
        self.waiting.append((kind, piece))
        waits = sum(len(text) for _, text in self.waiting)
        least = min(_BLOCK, (len(self.thought) + len(self.reply)) // 50)  # a long answer comes in larger parts
        if not self.reader.gate.guard and (waits > least + _LONGEST or waits >= least and _CLAUSE.search(piece)):
            self.show()  # with a guard, the whole answer waits for it

    def show(self) -> None:
        """Shows what waits, under guidance when the gate flags the answer so far."""
        if not self.waiting:
            return
        ready, self.waiting = self.waiting, []  # first, lest Ctrl-C shows it twice
        if self.reader.read("".join(text for _, text in ready)) and self.guidance:
            self.terminal.guidance(self.guidance)
            self.guidance = ""
        for kind, text in ready:
            (self.terminal.thought if kind == "thought" else self.terminal.reply)(text)
