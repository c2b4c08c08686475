"""Write dialogue: post and plan become a dialogue of client and counselor, whose replies `reason_reply` writes anew.

PsyLLM's second agent (released Code/, agent2, temperature 1.0), which was given the plan alone; here it reads the post
as well. The prompt is ours, in Chinese and English. Existing dialogues enter the pipeline behind this step.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from data_pipeline.dialogues import fault
from data_pipeline.errors import BadInput
from data_pipeline.llm.structured import Failure, ask_again
from data_pipeline.prompts import prompt_hash, render
from data_pipeline.records import Ask, Dialogue, Post, Reject, Request, Turn, note
from data_pipeline.safety.guidance import (
    add_flags,
    check_language,
    crisis_entry,
    guidance,
    guided_turns,
    helplines,
    note_guidance,
    post_text,
)
from data_pipeline.steps import Result

STEP = "write_dialogue"


@dataclass(frozen=True)
class Settings:
    language: str = "zh"  # of prompt and dialogue, zh or en; ours, the released data are English
    helplines: Any = None  # of the guidance, checked: Helplines; ours. None: mainland China's for zh, local help for en
    params: dict = field(default_factory=lambda: {"temperature": 1.0})  # released code

    def __post_init__(self) -> None:
        check_language(STEP, self.language)
        object.__setattr__(self, "helplines", helplines(STEP, self.helplines, self.language))


class Round(BaseModel, extra="forbid"):
    client: str
    counselor: str


class Written(BaseModel, extra="forbid"):
    rounds: list[Round]


def run(rows: list[Post], settings: Settings, ask: Ask) -> Result:
    """Returns a Dialogue per post, under the post's id and with its plan; rejects are posts whose dialogue was unusable
    twice. A crisis post is always among the rows and in files["crisis"]: at worst as its text and guidance to help,
    with meta["answer"] "guidance". Raises BadInput for a post that `plan_dialogue` has not seen.
    """
    for post in rows:
        if "plan" not in post.meta:
            raise BadInput(f'{STEP}: {post.meta.get("where", post.id)}: no meta["plan"]; run plan_dialogue before')
    result, kinds = Result([], files={"crisis": []}), Counter()
    asked = [p for p in rows if p.meta["plan"]]
    requests = [Request(STEP, p.id, 0, _messages(p, settings), settings.params) for p in asked]
    written, samples, calls = ask_again(ask, requests, Written, lambda place, reply: _fault(reply, asked[place]))
    found = {p.id: (reply, sample) for p, reply, sample in zip(asked, written, samples, strict=True)}
    for post in rows:
        reply, sample = found.get(post.id, (Failure("the post has no plan"), 0))
        why = f"not written: {reply.reason}" if isinstance(reply, Failure) else ""
        if why and not post.meta.get("crisis"):
            result.rejects.append(Reject(post.id, post.meta.get("where", post.id), why))
            continue
        dialogue = _dialogue(post, reply if isinstance(reply, Written) else None, settings)
        if not why:
            name = f"{STEP}.{settings.language}"
            note(dialogue, STEP, row=post.id, sample=sample, prompt=prompt_hash(name))
        if dialogue.meta.get("crisis"):
            note_guidance(dialogue, STEP, settings.language, settings.helplines)
            result.files["crisis"].append(crisis_entry(dialogue, why))
        kinds[len(dialogue.turns) // 2] += 1
        result.rows.append(dialogue)
    result.report = {
        "in": len(rows),
        "dialogues": len(result.rows),
        "rounds": {str(number): kinds[number] for number in sorted(kinds)},
        "crisis": len(result.files["crisis"]),
        "crisis_guidance_alone": sum(bool(entry["why"]) for entry in result.files["crisis"]),
        "calls": calls,
    }
    return result


def _messages(post: Post, settings: Settings) -> list[dict]:
    plan = post.meta["plan"]
    text = render(
        f"{STEP}.{settings.language}",
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
    return fault([Turn(role, text) for turns in written.rounds for role, text in turns])


def _dialogue(post: Post, written: Written | None, settings: Settings) -> Dialogue:
    rounds = written.rounds if written else [Round(client=post_text(post), counselor="")]
    meta = add_flags(post.meta, [turns.client for turns in rounds])
    meta |= {"parents": [post.id], "trail": [*post.meta.get("trail", ())]}
    turns = [Turn(role, text.strip()) for said in rounds for role, text in said]
    if not written:
        meta["answer"] = "guidance"
    for number in guided_turns(turns, bool(meta.get("crisis"))):
        reply = turns[2 * number - 1]
        text = guidance(settings.language, settings.helplines, alone=not reply.content)
        reply.content = f"{reply.content}\n\n{text}".strip()
    return Dialogue(post.id, post.source, turns, meta)
