"""The crisis gate of a conversation: rules, and if one is given a guard model, say when guidance to help is shown.

It flags for people and decides nothing else. A guard that does not answer, or answers anything but a plain no, counts
as yes. What is said goes to the guard and nowhere else: no ledger, no file.
"""

import re
from dataclasses import dataclass

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import render
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES_BY_COUNTRY, check_helplines
from launch.models.reasoning import GenerationInterrupted, Sampling
from launch.models.remote import Remote, ask

_NO = re.compile(r"\W*(?:否|no)\W*", re.IGNORECASE)
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True)
class CrisisGate:
    helplines: tuple
    guard: Remote | None = None

    def flags(self, text: str) -> list[str]:
        """Returns the crisis flags of `text` by the rules; without any, ["guard"] or ["guard failed"], or []."""
        if not text.strip():
            return []
        return crisis_flags(text) or (_asked(self.guard, text) if self.guard else [])

    def guidance(self, near: str) -> str:
        """Returns the guidance to help, in the language of the text `near`."""
        language = "zh" if _CHINESE.search(near) or not near.strip() else "en"
        text = guidance(language, self.helplines, alone=True)
        return render(f"chat_crisis.{language}", guidance=text, helplines=self.helplines)


def _asked(guard: Remote, text: str) -> list[str]:
    messages = [{"role": "user", "content": render("crisis_guard", text=text)}]
    try:
        pieces = ask(guard, messages, Sampling(512, 0.0, 1.0))
        reply = "".join(text for kind, text in pieces if kind == "reply")
    except (GenerationInterrupted, BadInput):
        return ["guard failed"]
    return [] if _NO.fullmatch(reply) else ["guard"]


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
