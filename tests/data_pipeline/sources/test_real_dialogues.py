"""The readers of dialogues on the real data sets."""

import json
from collections import Counter

import pytest

from data_pipeline import dialogues
from data_pipeline.records import Dialogue, Reject, write_jsonl
from data_pipeline.sources import cpsycoun, messages, smilechat
from tests.conftest import real_data
from tests.data_pipeline.sources.dialogue_files import one, sharegpt, split


def reasons(rejects) -> Counter:
    return Counter(r.code for r in rejects)


def alternates(dialogue: Dialogue) -> bool:
    roles = [turn.role for turn in dialogue.turns if turn.role != "system"]
    return roles == (["client", "counselor"] * len(roles))[: len(roles)] and len(roles) > 1


REAL = {  # (reader, folder, merge): (in, out, {reason: rejected})
    (smilechat, "smile", False): (
        300, 296, {"two client turns in a row": 2, "two counselor turns in a row": 1, "labels behind the replies": 1}),
    (smilechat, "smile", True): (300, 298, {"no counselor turn": 1, "labels behind the replies": 1}),
    (cpsycoun, "cpsycoun/CPsyCounD", False): (
        100, 92, {"two counselor turns in a row": 7, "two client turns in a row": 1}),
    (cpsycoun, "cpsycoun/CPsyCounD", True): (100, 100, {}),
    (cpsycoun, "cpsycoun/CPsyCounE", False): (18, 18, {}),
}  # fmt: skip


@pytest.mark.parametrize(("reader", "folder", "merge"), REAL)
def test_every_real_dialogue_alternates_or_is_rejected_with_its_reason(reader, folder, merge):
    total, out, why = REAL[reader, folder, merge]
    path = real_data(folder)
    assert len([f for f in path.rglob("*") if f.is_file()]) == total
    kept, rejects = split(reader.read(path, merge=merge))
    assert (len(kept), len(kept) + len(rejects)) == (out, total)
    assert reasons(rejects) == why
    assert all(map(alternates, kept))
    assert len({d.id for d in kept} | {r.id for r in rejects}) == total
    assert all(str(path) in d.meta["where"] for d in kept) and all(str(path) in r.where for r in rejects)


def test_nothing_that_was_said_is_lost():
    for file in sorted(real_data("smile").glob("*.json"))[:50]:
        (dialogue,) = smilechat.read(file)
        said = [turn["content"].strip() for turn in json.loads(file.read_bytes())]
        assert isinstance(dialogue, Reject) or [turn.content for turn in dialogue.turns] == said
    for file in sorted(real_data("cpsycoun/CPsyCounD").glob("*.txt")):
        dialogue = one(cpsycoun.read(file, merge=True))
        text = "".join(turn.content for turn in dialogue.turns)
        whole = file.read_text(encoding="utf-8").replace("来访者：", "").replace("心理咨询师：", "")
        assert "".join(text.split()) == "".join(whole.split())


def test_merging_says_how_many_turns_it_joined():
    path = real_data("cpsycoun/CPsyCounD")
    split_up = {r.id for r in cpsycoun.read(path) if isinstance(r, Reject)}
    kept, rejects = split(cpsycoun.read(path, merge=True))
    assert not rejects
    assert {d.id for d in kept if d.meta.get("merged_turns")} == split_up


@pytest.mark.parametrize(("reader", "folder"), [(smilechat, "smile"), (cpsycoun, "cpsycoun")])
def test_sharegpt_and_openai_messages_and_back_are_the_identity(reader, folder, tmp_path):
    kept, _ = split(reader.read(real_data(folder), merge=True))
    rows = {"sharegpt": map(sharegpt, kept),
            "openai": ({"id": d.id, "messages": dialogues.messages(d.turns)} for d in kept)}  # fmt: skip
    for name, written in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", written)
        back, rejects = split(messages.read(tmp_path / f"{name}.jsonl"))
        assert not rejects and [(d.id, d.turns) for d in back] == [(d.id, d.turns) for d in kept]
