"""Reason reply: every counselor turn is written anew, thought and reply, by a reasoning model that has the history.

PsyLLM's third agent (released Code/, agent3) put the current message before the history and left counselor turns out;
here a request is system, user, assistant, user... in the order of the talk, the client's message last, and earlier
replies are those just written. The thought works with DSM/ICD as background and a named strategy, the reply names no
diagnosis (`data_pipeline/safety/reply_rules.py`). The prompt is ours, in Chinese and English.

All dialogues are at work at once, each in its next turn: the calls of one round go out together. A reply with a fault
is asked once more as sample 1; then the dialogue is a reject, or, in a crisis, guidance to help stands in its place.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from data_pipeline import dialogues
from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import once_more
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Reject, Request, Response, Turn, note
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.guidance import (
    add_flags,
    check_language,
    crisis_entry,
    guidance,
    guided_turns,
    helplines,
    note_guidance,
)
from data_pipeline.safety.reply_rules import find_forbidden, named_diagnoses
from data_pipeline.steps import Result
from reward.thought import split_thought

STEP = "reason_reply"


@dataclass(frozen=True)
class Settings:
    language: str = "zh"  # of the prompt, zh or en; ours, the released data are English
    think_tags: bool = False  # ask for <think> text, for a model that does not think by itself; ours
    draft: bool = False  # show the turn's original text; the released code writes anew without it
    earlier_thoughts: bool = False  # in the history, as <think> text; ours
    helplines: Any = None  # of the guidance, checked: Helplines; ours. None: mainland China's for zh, local help for en
    params: dict = field(default_factory=lambda: {"temperature": 1.0})  # released code

    def __post_init__(self) -> None:
        check_language(STEP, self.language)
        for name in ("think_tags", "draft", "earlier_thoughts"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"{STEP}: {name}={getattr(self, name)!r}; true or false")
        object.__setattr__(self, "helplines", helplines(STEP, self.helplines, self.language))


@dataclass
class _Talk:
    """A dialogue at work: its turns up to `places[done]` are written."""

    dialogue: Dialogue
    places: list[int]  # of the counselor turns
    guided: set[int]  # the counselor turns, from 1, that end in guidance
    done: int = 0
    sample: int = 0
    why: str = ""  # it is a reject
    alone: list[str] = field(default_factory=list)  # why guidance stands alone in a turn


def run(rows: list[Dialogue], settings: Settings, ask: Ask | None = None) -> Result:
    """Returns the dialogues, every counselor turn with its thought; rejects are dialogues with a turn that failed, and
    those that do not alternate from the client on. Well-formed crisis dialogues are always among the rows, with
    meta["answer"] "guidance" if some reply is guidance alone, and an answer to last words that were flagged;
    files["crisis"] lists them.
    """
    talks, faults = [_begin(dialogue) for dialogue in rows], Counter()
    turns = 0
    while live := [talk for talk in talks if not talk.why and talk.done < len(talk.places)]:
        assert ask is not None  # None will do only where no row can be used
        replies = ask([_request(talk, settings) for talk in live])
        for talk, reply in zip(live, replies, strict=True):
            thought, text, fault = _read(reply, talk)
            turns += not fault
            if fault:
                faults["no reply" if reply.finish == "failed" else fault.split(" (")[0]] += 1
            _take(talk, thought, text, fault, reply.finish == "failed", settings)
    result = Result([], files={"crisis": []})
    for talk in talks:
        dialogue = talk.dialogue
        if dialogue.meta.get("crisis"):
            result.files["crisis"].append(crisis_entry(dialogue, talk.why or "; ".join(talk.alone)))
        if talk.why:
            result.rejects.append(Reject(dialogue.id, dialogue.meta.get("where", dialogue.id), talk.why))
        else:
            result.rows.append(dialogue)
    written = [turn for dialogue in result.rows for turn in dialogue.turns if turn.role == "counselor"]
    result.report = {
        "in": len(rows),
        "dialogues": len(result.rows),
        "turns": turns,
        "median_thought_chars": median([len(turn.thought) for turn in written] or [0]),
        "median_reply_chars": median([len(turn.content) for turn in written] or [0]),
        "faults": dict(faults.most_common()),  # those that the second try mended, too
        "crisis": len(result.files["crisis"]),
        "crisis_guidance_alone": sum(bool(talk.alone) for talk in talks),
    }
    return result


def _begin(given: Dialogue) -> _Talk:
    turns = [replace(turn, thought="") if turn.role == "counselor" else replace(turn) for turn in given.turns]
    meta = add_flags(given.meta, [turn.content for turn in turns if turn.role == "client"])
    meta |= {"trail": [*given.meta.get("trail", ())]}
    meta.pop("answer", None)
    why = dialogues.fault(turns)
    if not why and turns[-1].role == "client" and crisis_flags(turns[-1].content):
        turns.append(Turn("counselor", ""))  # the client's last words were in a crisis: they get an answer
    places = [place for place, turn in enumerate(turns) if turn.role == "counselor"]
    dialogue = replace(given, turns=turns, meta=meta)
    return _Talk(dialogue, places, guided_turns(turns, bool(meta.get("crisis"))), why=why)


def _request(talk: _Talk, settings: Settings) -> Request:
    turns, number = talk.dialogue.turns, talk.done + 1
    setting, said = "", turns[: talk.places[talk.done]]
    if said[0].role == "system":
        setting, said = said[0].content, said[1:]
    system = render(
        f"{STEP}.{settings.language}",
        think_tags=settings.think_tags,
        crisis=bool(talk.guided) and number >= min(talk.guided),
        guided=number in talk.guided,
        setting=setting,
        draft=_draft(turns[talk.places[talk.done]].content, settings) if settings.draft else "",
    )
    messages = [{"role": "system", "content": system}]
    for turn in said:
        text = dialogues.with_thought(turn) if settings.earlier_thoughts else turn.content
        messages.append({"role": dialogues.MESSAGE_ROLES[turn.role], "content": text})
    request = Request(STEP, f"{talk.dialogue.id}/t{number}", 0, messages, settings.params)
    return once_more(request) if talk.sample else request


def _draft(text: str, settings: Settings) -> str:
    for alone in (True, False):  # what `write_dialogue` added is no part of the draft
        text = text.removesuffix(guidance(settings.language, settings.helplines, alone)).strip()
    return text


def _read(reply: Response, talk: _Talk) -> tuple[str, str, str]:
    """Returns (thought, reply, fault); the fault is "" when both can be used."""
    if reply.finish == "failed":
        return "", "", f"no reply: {reply.error}"
    if reply.finish in ("length", "content_filter"):
        return "", "", "cut off at max_tokens" if reply.finish == "length" else "stopped by the server's filter"
    if reply.reasoning.strip():
        thought, text = reply.reasoning, reply.text
    else:  # without <think> the chat template has opened the thought
        thought, text = split_thought(reply.text, "</think>" in reply.text and "<think>" not in reply.text)
        if text is None:
            return "", "", "the thought is not closed, or there are several"
        if thought is None:
            return "", "", "no thought (a model that does not think by itself needs think_tags: true)"
    thought, text = thought.strip(), text.strip()
    if not thought or not text:
        return "", "", "an empty reply" if thought else "an empty thought"
    if marks := [mark for mark in dialogues.MARKS if mark in thought + text]:
        return "", "", f"{marks[0]} inside the reply or beside the thought that the server gave"
    return thought, text, _forbidden(text, talk)


def _forbidden(text: str, talk: _Talk) -> str:
    before = [turn.content for turn in talk.dialogue.turns[: talk.places[talk.done]] if turn.role == "client"]
    found = [f"{rule} ({words})" for rule, words in find_forbidden(text)]
    if new := sorted(named_diagnoses(text) - named_diagnoses("\n".join(before))):
        found.append(f"a diagnosis that the client has not named ({', '.join(new)})")
    return "forbidden content: " + ", ".join(found) if found else ""


def _take(talk: _Talk, thought: str, text: str, fault: str, failed: bool, settings: Settings) -> None:
    dialogue, number = talk.dialogue, talk.done + 1
    crisis = bool(dialogue.meta.get("crisis"))
    if fault and not failed and talk.sample == 0:  # a failed call was tried often enough, and is asked by the next run
        talk.sample = 1
        return
    if fault and not crisis:
        talk.why = f"turn {number}: {fault}"
        return
    place = talk.places[talk.done]
    if fault:
        talk.alone.append(f"turn {number}: {fault}")
        dialogue.meta["answer"] = "guidance"
        dialogue.turns[place] = Turn("counselor", guidance(settings.language, settings.helplines, alone=True))
    else:
        if number in talk.guided:
            text = f"{text}\n\n{guidance(settings.language, settings.helplines)}"
        dialogue.turns[place] = Turn("counselor", text, thought)
        row, prompt = f"{dialogue.id}/t{number}", prompt_hash(f"{STEP}.{settings.language}")
        note(dialogue, STEP, row=row, sample=talk.sample, prompt=prompt)
    if fault or number in talk.guided:
        note_guidance(dialogue, STEP, settings.language, settings.helplines)
    talk.done, talk.sample = number, 0
