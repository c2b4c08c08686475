"""What was said in the sessions with one client: kept as JSON, shown as text, and looked at for what a client did.

A response to an item that is a session is the JSON of one `Transcript`; its signs "<" are escaped, so that no words of
it read as the tags of a thought.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import orjson

CLIENT, LIMIT, REFUSED, UNANSWERED = "client", "limit", "client refused", "no answer"  # how a session ended
NAMES = {"client": "来访者", "counselor": "咨询师"}, {"client": "client", "counselor": "counsellor"}


@dataclass(slots=True)
class Said:
    role: str  # "client" | "counselor"
    content: str
    thought: str = ""
    told: list[int] = field(default_factory=list)  # numbers of the facts that a client's turn was to tell first


@dataclass(slots=True)
class Transcript:
    language: str
    stance: str
    sessions: list[list[Said]]
    ended: list[str]  # how each session did
    facts: int = 0  # that the profile has
    unreadable: int = 0  # replies of the client's model about what it was asked; then nothing was told

    def dumps(self) -> str:
        return orjson.dumps(asdict(self)).decode().replace("<", "\\u003c")

    @classmethod
    def loads(cls, text: str) -> "Transcript":
        row = orjson.loads(text)
        return cls(**row | {"sessions": [[Said(**said) for said in session] for session in row["sessions"]]})

    def turns(self) -> Iterator[Said]:
        for session in self.sessions:
            yield from session

    def said_by(self, role: str) -> list[str]:
        return [turn.content for turn in self.turns() if turn.role == role]


def shown(text: str) -> str:
    """Returns a transcript as people read it; words that run over several lines stay behind their speaker."""
    transcript = Transcript.loads(text)
    chinese = transcript.language == "zh"
    names, lines = NAMES[0 if chinese else 1], []
    for number, session in enumerate(transcript.sessions, 1):
        if len(transcript.sessions) > 1:
            lines.append(f"—— 第 {number} 次 ——" if chinese else f"-- session {number} --")
        colon = "：" if chinese else ": "
        lines += [f"{names[turn.role]}{colon}" + turn.content.replace("\n", "\n    ") for turn in session]
    return "\n".join(lines)


CLIENT_FIGURES = ("client_turns", "client_told", "client_repeats")


def figures(transcript: Transcript) -> dict[str, float]:
    """Returns, of what the client did, counted without a judge: its turns, the share of its facts that it was brought
    to tell (left out without facts), and the share of its turns that say again what an earlier one said.
    """
    said = ["".join(words.split()) for words in transcript.said_by("client")]
    told = {number for turn in transcript.turns() for number in turn.told}
    made = {"client_turns": float(len(said)), "client_repeats": 1 - len(set(said)) / len(said)}
    return made | ({"client_told": len(told) / transcript.facts} if transcript.facts else {})
