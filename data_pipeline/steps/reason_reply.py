"""Reason reply: every counselor turn is written anew, thought and reply, by a reasoning model that has the history.

PsyLLM's third agent (released Code/, agent3) put the current message before the history and left counselor turns out;
here a request is system, user, assistant, user... in the order of the talk, the client's message last, and earlier
replies are those just written. The thought works with DSM/ICD as background and a named strategy, the reply names no
diagnosis (`data_pipeline/safety/reply_rules.py`). The prompt is ours, in Chinese and English.

A reply with a fault is asked once more as sample 1; then the dialogue is a reject, or, in a crisis, guidance to help
stands in its place.
"""

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from pydantic import Field

from data_pipeline import dialogues
from data_pipeline.llm.structured import once_more
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import NO_TEXT, Ask, Dialogue, Fault, Reject, Request, Response, Turn, note
from data_pipeline.safety.cleaning import checked_reply
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.guidance import Helplines, add_flags, crisis_entry, guidance, guided_turns, note_guidance
from data_pipeline.safety.reply_rules import find_forbidden, named_diagnoses
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, tidy
from reward.thought import split_thought, stray_mark, template_opened

NAME = "reason_reply"
THOUGHT_CHARS, REPLY_CHARS = 600, 150  # as a rule, for the plan of calls; ours


class Settings(StepSettings):
    language: Literal["zh", "en"] = "zh"  # of the prompt; ours, the released data are English
    think_tags: bool = False  # ask for <think> text, for a model that does not think by itself; ours
    draft: bool = False  # show the turn's original text; the released code writes anew without it
    earlier_thoughts: bool = False  # keep them in the history, as <think> text; ours
    # telephone numbers of the guidance to help; ours. null: mainland China's for zh, none and local help for en
    helplines: Helplines = Field(default=None, validate_default=True)
    params: dict = {"temperature": 1.0}  # of the request; released code


@dataclass(frozen=True)
class _Next:
    """The counselor turn that is to be written; those before it are."""

    dialogue: Dialogue
    number: int  # among the counselor turns, from 1
    place: int  # among all turns
    guided: set[int]  # the counselor turns, from 1, that end in guidance


class _Read(NamedTuple):
    thought: str = ""
    text: str = ""
    fault: Fault | None = None
    rule: str = ""  # the first that a reply with forbidden content breaks: the report counts by rule


async def row(dialogue: Dialogue, settings: Settings, ask: Ask) -> Outcome:
    """Returns the dialogue, every counselor turn with its thought; a reject for one with a turn that failed, and for
    one that does not alternate from the client on. A well-formed crisis dialogue always goes on, with meta["answer"]
    "guidance" if some reply is guidance alone, and an answer to last words that were flagged; files["crisis"] lists it.
    """
    outcome = Outcome(counts=Counter({"in": 1}))
    dialogue, fault = _begin(dialogue)
    where, crisis = dialogue.meta.get("where", dialogue.id), bool(dialogue.meta.get("crisis"))
    reject, alone = Reject(dialogue.id, where, *fault) if fault else None, []
    guided = guided_turns(dialogue.turns, crisis)
    places = [place for place, turn in enumerate(dialogue.turns) if turn.role == "counselor"]
    for number, place in enumerate(places if not reject else (), 1):
        turn = _Next(dialogue, number, place, guided)
        read, sample = await _reason(turn, settings, ask, outcome.counts)
        if read.fault:
            at = f"turn {number}: {read.fault.detail}" if read.fault.detail else f"turn {number}"
            failed = Reject(dialogue.id, where, read.fault.code, at)
            if not crisis:
                reject = failed
                break
            alone.append(failed.reason)
        _write(turn, read, sample, settings)
    if crisis:
        outcome.files["crisis"] = [crisis_entry(dialogue, reject.reason if reject else "; ".join(alone))]
        outcome.counts.update({"crisis": 1, "crisis_guidance_alone": bool(alone)})
    if reject:
        outcome.rejects.append(reject)
        return outcome
    outcome.rows.append(dialogue)
    outcome.counts["dialogues"] += 1
    for place in places:
        outcome.counts["thought_chars", len(dialogue.turns[place].thought)] += 1
        outcome.counts["reply_chars", len(dialogue.turns[place].content)] += 1
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns the number of turns that were written, their lengths, and the faults of replies."""
    return {
        "in": counts["in"],
        "dialogues": counts["dialogues"],
        "turns": counts["turns"],
        "median_thought_chars": _median(counts, "thought_chars"),
        "median_reply_chars": _median(counts, "reply_chars"),
        "faults": dict(counts_under(counts, "fault").most_common()),  # those that the second try mended, too
        "crisis": counts["crisis"],
        "crisis_guidance_alone": counts["crisis_guidance_alone"],
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    """A turn is asked about once, at most twice; a dialogue whose last words were flagged has one more."""
    rows = size.rows or 1
    history = size.chars / rows / 2
    if settings.earlier_thoughts:
        history += THOUGHT_CHARS * size.turns / rows / 2
    reply, most = THOUGHT_CHARS + REPLY_CHARS, size.turns + size.rows
    return Calls(
        expected=size.turns,
        most=2 * most,
        out=Size(size.rows, size.chars + reply * size.turns, size.turns),
        most_out=Size(size.rows, size.chars + reply * most, most),
        prompt_chars=history,
        reply_chars=reply,
    )


def _median(counts: Counter, name: str) -> float:
    return median([*counts_under(counts, name).elements()] or [0])


def _begin(given: Dialogue) -> tuple[Dialogue, Fault | None]:
    dialogue = tidy(given)
    for turn in dialogue.turns:
        if turn.role == "counselor":
            turn.thought = ""
    dialogue.meta = add_flags(dialogue.meta, [turn.content for turn in dialogue.turns if turn.role == "client"])
    dialogue.meta.pop("answer", None)
    fault = dialogues.fault(dialogue.turns)
    if not fault and dialogue.turns[-1].role == "client" and crisis_flags(dialogue.turns[-1].content):
        dialogue.turns.append(Turn("counselor", ""))  # the client's last words were in a crisis: they get an answer
    return dialogue, fault


async def _reason(turn: _Next, settings: Settings, ask: Ask, counts: Counter) -> tuple[_Read, int]:
    """Returns what was read at last, and its sample."""
    request = _request(turn, settings)
    while True:
        reply = (await ask([request]))[0]
        read = _read(reply, turn)
        if not read.fault:
            counts["turns"] += 1
            return read, request.sample
        counts["fault", f"{read.fault.code}: {read.rule}" if read.rule else read.fault.code] += 1
        # A failed call was tried often enough, the next run asks it; what refuses refuses again.
        if reply.finish in ("failed", *NO_TEXT) or request.sample:
            return read, request.sample
        request = once_more(request)


def _request(turn: _Next, settings: Settings) -> Request:
    turns = turn.dialogue.turns
    setting, said = "", turns[: turn.place]
    if said[0].role == "system":
        setting, said = said[0].content, said[1:]
    system = render(
        f"{NAME}.{settings.language}",
        think_tags=settings.think_tags,
        crisis=bool(turn.guided) and turn.number >= min(turn.guided),
        guided=turn.number in turn.guided,
        setting=setting,
        draft=_draft(turns[turn.place].content, settings) if settings.draft else "",
    )
    messages = [{"role": "system", "content": system}]
    for one in said:
        text = dialogues.with_thought(one) if settings.earlier_thoughts else one.content
        messages.append({"role": dialogues.MESSAGE_ROLES[one.role], "content": text})
    return Request(NAME, f"{turn.dialogue.id}/t{turn.number}", 0, messages, settings.params)


def _draft(text: str, settings: Settings) -> str:
    for alone in (True, False):  # what `write_dialogue` added is no part of the draft
        text = text.removesuffix(guidance(settings.language, settings.helplines, alone)).strip()
    return text


def _read(reply: Response, turn: _Next) -> _Read:
    """Returns thought and reply; without a fault both can be used."""
    if reply.finish == "failed":
        return _Read(fault=Fault("no reply", reply.error))
    if reply.finish in NO_TEXT:
        return _Read(fault=Fault(NO_TEXT[reply.finish]))
    if reply.finish == "length":
        return _Read(fault=Fault("cut off at max_tokens"))
    if reply.finish == "content_filter":
        return _Read(fault=Fault("stopped by the server's filter"))
    if reply.reasoning.strip():
        thought, text = reply.reasoning, reply.text
    else:
        thought, text = split_thought(reply.text, template_opened(reply.text))
        if text is None:
            return _Read(fault=Fault("the thought is not closed, or there are several"))
        if thought is None:
            why = "a model that does not think by itself needs think_tags: true"
            return _Read(fault=Fault("no thought", why))
    thought, text = thought.strip(), text.strip()
    if not thought or not text:
        return _Read(fault=Fault("an empty reply" if thought else "an empty thought"))
    if mark := stray_mark(thought) or stray_mark(text):
        return _Read(fault=Fault(f"{mark} inside the reply or beside the thought that the server gave"))
    if forbidden := _forbidden(text, turn):
        named = ", ".join(f"{rule} ({words})" for rule, words in forbidden)
        return _Read(fault=Fault("forbidden content", named), rule=forbidden[0][0])
    thought, text = checked_reply(thought), checked_reply(text)
    if isinstance(text, Fault):
        return _Read(fault=text)
    if isinstance(thought, Fault):
        return _Read(fault=thought)
    return _Read(thought, text)


def _forbidden(text: str, turn: _Next) -> list[tuple[str, str]]:
    """Returns (rule, the words that break it)."""
    before = [one.content for one in turn.dialogue.turns[: turn.place] if one.role == "client"]
    forbidden = find_forbidden(text)
    if new := sorted(named_diagnoses(text) - named_diagnoses("\n".join(before))):
        forbidden = [*forbidden, ("a diagnosis that the client has not named", ", ".join(new))]
    return forbidden


def _write(turn: _Next, read: _Read, sample: int, settings: Settings) -> None:
    """Writes the turn into the dialogue: thought and reply, or guidance alone where they have a fault."""
    dialogue, guided = turn.dialogue, turn.number in turn.guided
    if read.fault:
        dialogue.meta["answer"] = "guidance"
        dialogue.turns[turn.place] = Turn("counselor", guidance(settings.language, settings.helplines, alone=True))
    else:
        text = f"{read.text}\n\n{guidance(settings.language, settings.helplines)}" if guided else read.text
        dialogue.turns[turn.place] = Turn("counselor", text, read.thought)
        asked, prompt = f"{dialogue.id}/t{turn.number}", prompt_hash(f"{NAME}.{settings.language}")
        note(dialogue, NAME, row=asked, sample=sample, prompt=prompt)
    if read.fault or guided:
        note_guidance(dialogue, NAME, settings.language, settings.helplines)


STEP = Step(takes=(Dialogue,), settings=Settings, row=row, asks="model", calls=calls, report=report, files=("crisis",))
