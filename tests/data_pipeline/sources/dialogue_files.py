"""Small files of dialogues, and what readers make of them."""

import json

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject

ASKED, ANSWERED = {"role": "user", "content": "我睡不好。"}, {"role": "assistant", "content": "慢慢来。"}
ROUND = {"patient": "I cannot sleep.", "counselor_content": "That sounds hard.", "counselor_think": "Empathy first."}


def split(records) -> tuple[list[Dialogue], list[Reject]]:
    records = list(records)
    return [r for r in records if isinstance(r, Dialogue)], [r for r in records if isinstance(r, Reject)]


def sharegpt(dialogue: Dialogue) -> dict:
    names = {"system": "system", "client": "human", "counselor": "gpt"}
    said = [{"from": names[turn.role], "value": dialogues.with_thought(turn)} for turn in dialogue.turns]
    return {"id": dialogue.id, "conversations": said}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def one(records) -> Dialogue:
    (record,) = records
    assert isinstance(record, Dialogue), record
    return record


def thought(text: str) -> dict:
    return {"role": "assistant", "content": text}
