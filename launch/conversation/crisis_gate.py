"""The crisis gate of a conversation: rules, and if one is given a guard model, say when guidance to help is shown.

It flags for people and decides nothing else. A guard that does not answer, or answers anything but a plain yes or no,
counts as yes and is told apart; the rules stand whatever it says. What is said goes to the guard and nowhere else: no
ledger, no file. Qwen3Guard is asked in its own way: it gets the text alone, and its labels are read.
"""

import re
from dataclasses import dataclass, field

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import render
from data_pipeline.safety.crisis import crisis_flags, names_means
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES_BY_COUNTRY, check_helplines
from data_pipeline.safety.normalise import HAN, normalised
from launch.models.reasoning import GenerationInterrupted, Sampling
from launch.models.remote import Remote, ask

FAILED, UNCLEAR = "guard failed", "guard unclear"
NOTES = {
    FAILED: "the guard model did not answer; guidance is shown to be safe, and the rules read every text all the same",
    UNCLEAR: "the guard model answered neither yes nor no; guidance is shown to be safe, and the rules read every text",
}
_NO, _YES = (re.compile(rf"\W*(?:{word})\W*", re.IGNORECASE) for word in ("否|no", "是|yes"))
_SAFETY = re.compile(r"Safety:\s*(Safe|Unsafe|Controversial)", re.IGNORECASE)
_OURS = re.compile("self.?harm|violent|none", re.IGNORECASE)  # of Qwen3Guard's categories
_BEFORE = 80  # characters before new ones that are read with them, and the clause that they begin in
_CLAUSE = re.compile(r"[，,。；;！!？?\n]")


@dataclass(frozen=True)
class CrisisGate:
    helplines: tuple
    guard: Remote | None = None

    def flags(self, text: str) -> list[str]:
        """Returns the crisis flags of `text` by the rules; without any, what the guard says of it (`_asked`), or []."""
        if not text.strip():
            return []
        return crisis_flags(text) or (_asked(self.guard, text) if self.guard else [])

    def guidance(self, near: list[str], language: str) -> str:
        """Returns the guidance to help in the language of the first text of `near` that has one, else in `language`."""
        spoken = next((found for text in near if (found := language_of(text))), language)
        text = guidance(spoken, self.helplines, alone=True)
        return render(f"chat_crisis.{spoken}", guidance=text, helplines=self.helplines)


@dataclass
class Reader:
    """Reads an answer as it comes, thought and reply as one text: each time what is new, and a little before it."""

    gate: CrisisGate
    flags: list[str] = field(default_factory=list)
    before: str = ""

    def read(self, new: str) -> list[str]:
        """Returns the flags of the answer so far; ["means"] where it names means of suicide and speaks of no crisis."""
        text = self.before + new
        if not self.flags and new.strip():
            self.flags = self.gate.flags(text) or (["means"] if names_means(text) else [])
        begins = _CLAUSE.search(text, max(0, len(text) - _BEFORE))  # not amid a negation
        self.before = text[begins.end() :] if begins and len(text) > 2 * _BEFORE else text[-2 * _BEFORE :]
        return self.flags


def language_of(text: str) -> str:
    """Returns "zh" or "en", whichever most of `text` is in, "" where it has no words; pinyin is Chinese."""
    read = normalised(text)
    han, latin = len(re.findall(f"[{HAN}]", read)), len(re.findall("[a-z]+", read))
    return "zh" if han and han >= latin else "en" if latin else ""


def _asked(guard: Remote, text: str) -> list[str]:
    """Returns [] where the guard says no, ["guard"] for yes, [UNCLEAR] or [FAILED]."""
    own_labels = "qwen3guard" in guard.server.model.lower()
    messages = [{"role": "user", "content": text if own_labels else render("crisis_guard", text=text)}]
    try:
        pieces = ask(guard, messages, Sampling(512, 0.0, 1.0))
        reply = "".join(text for kind, text in pieces if kind == "reply")
    except (GenerationInterrupted, BadInput):
        return [FAILED]
    if label := _SAFETY.search(reply):
        safe = label[1].lower() == "safe" or not _OURS.search(reply[label.end() :])
        return [] if safe else ["guard"]
    return [] if _NO.fullmatch(reply) else ["guard"] if _YES.fullmatch(reply) else [UNCLEAR]


def helplines(own: object, country: str) -> tuple:
    """Returns the numbers to name: one's own, else the country's, () for country "none"; raises BadInput."""
    if own is not None:
        return check_helplines("chat", own)
    if country == "none":
        return ()
    if country not in HELPLINES_BY_COUNTRY:
        known = [*HELPLINES_BY_COUNTRY, "none"]
        raise BadInput(
            f"country={country}: data_pipeline/safety/helplines.yaml has {', '.join(known)}"
            f"{did_you_mean(country, known)}; or helplines=[{{name, number, source, date}}], your own"
        )
    return HELPLINES_BY_COUNTRY[country]
