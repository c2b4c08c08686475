"""Write dialogue: post and plan become a dialogue of client and counselor, whose replies `reason_reply` writes anew.

PsyLLM's second agent (released Code/, agent2, temperature 1.0), which was given the plan alone; here it reads the post
as well. The prompt is ours, in Chinese and English. Existing dialogues enter the pipeline behind this step.
"""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, Field

from data_pipeline.dialogues import fault
from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_again, calls_report, under
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Fault, Post, Reject, Request, Turn, note
from data_pipeline.safety.cleaning import checked_reply, without_control
from data_pipeline.safety.guidance import (
    Helplines,
    add_flags,
    crisis_entry,
    guidance,
    guided_turns,
    note_guidance,
    post_text,
)
from data_pipeline.steps import Calls, Outcome, Size, Step, StepSettings, counts_under, tidy

NAME = "write_dialogue"
ROUND_CHARS = 150  # of client and counselor together, as a rule; ours


class Settings(StepSettings):
    language: Literal["zh", "en"] = "zh"  # of prompt and dialogue; ours, the released data are English
    # telephone numbers of the guidance to help; ours. null: mainland China's for zh, none and local help for en
    helplines: Helplines = Field(default=None, validate_default=True)
    params: dict = {"temperature": 1.0}  # of the request; released code


class Round(BaseModel, extra="forbid"):
    client: str
    counselor: str


class Written(BaseModel, extra="forbid"):
    rounds: list[Round]


async def row(post: Post, settings: Settings, ask: Ask) -> Outcome:
    """Returns a Dialogue under the post's id and with its plan; a reject for a post whose dialogue was unusable twice.
    A crisis post always becomes a dialogue and stands in files["crisis"]: at worst as its text and guidance to help,
    with meta["answer"] "guidance". Raises BadInput for a post that `plan_dialogue` has not seen.
    """
    where = post.meta.get("where", post.id)
    if "plan" not in post.meta:
        raise BadInput(f'{NAME}: {where}: no meta["plan"]; run plan_dialogue before')
    outcome = Outcome(counts=Counter({"in": 1}))
    written, sample = Failure("the post has no plan"), 0
    if post.meta["plan"]:
        request = Request(NAME, post.id, 0, _messages(post, settings), settings.params)
        written, sample, asked = await ask_again(ask, request, Written, lambda written: _fault(written, post))
        outcome.counts += under("calls", asked)
    reject = Reject(post.id, where, "not written", written.reason) if isinstance(written, Failure) else None
    if reject and not post.meta.get("crisis"):
        outcome.rejects.append(reject)
        return outcome
    dialogue = _dialogue(post, None if isinstance(written, Failure) else written, settings)
    if not reject:
        note(dialogue, NAME, row=post.id, sample=sample, prompt=prompt_hash(f"{NAME}.{settings.language}"))
    if dialogue.meta.get("crisis"):
        note_guidance(dialogue, NAME, settings.language, settings.helplines)
        outcome.files["crisis"] = [crisis_entry(dialogue, reject.reason if reject else "")]
        outcome.counts["crisis"] += 1
        outcome.counts["crisis_guidance_alone"] += reject is not None
    outcome.counts["rounds", len(dialogue.turns) // 2] += 1
    outcome.rows.append(dialogue)
    return outcome


def report(counts: Counter, settings: Settings) -> dict:
    """Returns the number of dialogues by rounds, and those of a crisis."""
    rounds = counts_under(counts, "rounds")
    return {
        "in": counts["in"],
        "dialogues": sum(rounds.values()),
        "rounds": {str(number): rounds[number] for number in sorted(rounds)},
        "crisis": counts["crisis"],
        "crisis_guidance_alone": counts["crisis_guidance_alone"],
        "calls": calls_report(counts),
    }


def calls(settings: Settings, size: Size, selectors: int) -> Calls:
    """At most a post is asked about twice, and each reply repaired once; `size.turns` are the planned rounds."""
    out = Size(size.rows, ROUND_CHARS * size.turns, size.turns)
    rows = size.rows or 1
    return Calls(
        expected=size.rows,
        most=4 * size.rows,
        out=out,
        most_out=out,
        prompt_chars=size.chars / rows + 100,  # post and plan
        reply_chars=out.chars / rows,
    )


def _messages(post: Post, settings: Settings) -> list[dict]:
    plan = post.meta["plan"]
    text = render(
        f"{NAME}.{settings.language}",
        post=post_text(post),
        emotion=plan["emotion"],
        themes=plan["themes"],
        crisis=bool(post.meta.get("crisis")),
    )
    return [{"role": "user", "content": text}]


def _fault(written: Written, post: Post) -> str:
    planned = post.meta["plan"]["rounds"]
    if len(written.rounds) != planned:
        return f"{len(written.rounds)} rounds, {planned} are planned"
    turns = [Turn(role, text) for turns in written.rounds for role, text in turns]
    faults = [fault(turns), *(text for turn in turns if isinstance(text := checked_reply(turn.content), Fault))]
    return next((one.reason for one in faults if one), "")


def _dialogue(post: Post, written: Written | None, settings: Settings) -> Dialogue:
    rounds = written.rounds if written else [Round(client=post_text(post), counselor="")]
    meta = add_flags(tidy(post).meta, [turns.client for turns in rounds]) | {"parents": [post.id]}
    turns = [Turn(role, without_control(text).strip()) for said in rounds for role, text in said]
    if not written:
        meta["answer"] = "guidance"
    for number in guided_turns(turns, bool(meta.get("crisis"))):
        reply = turns[2 * number - 1]
        text = guidance(settings.language, settings.helplines, alone=not reply.content)
        reply.content = f"{reply.content}\n\n{text}".strip()
    return Dialogue(post.id, post.source, turns, meta)


STEP = Step(
    takes=(Post,),
    makes=Dialogue,
    settings=Settings,
    row=row,
    asks="model",
    calls=calls,
    report=report,
    files=("crisis",),
)
