"""The demo corpus through PsyLLM's steps: posts become dialogues, dialogues get thoughts, what is planted is caught."""

import re
from functools import cache

from data_pipeline import dialogues
from data_pipeline.llm import recorded
from data_pipeline.records import Reject
from data_pipeline.safety import reply_rules
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.guidance import guidance
from data_pipeline.safety.helplines import HELPLINES
from data_pipeline.safety.personal_data import find_contacts
from data_pipeline.safety.reply_rules import named_diagnoses
from data_pipeline.sources import messages, posts
from data_pipeline.steps import (
    check_balance,
    clean,
    deduplicate,
    plan_dialogue,
    reason_reply,
    validate_dialogue,
    write_dialogue,
)
from data_pipeline.synthesis import apply
from tests.data_pipeline.samples.test_demo_corpus import CORPUS, PSYLLM, read, recording_asker

APPROACHES = ("认知行为取向", "接纳承诺取向", "心理动力取向", "人本取向", "整合取向")  # as the prompt lists them
LIMITS = {"client": (20, 60), "thought": (50, 90), "reply": (35, 75)}  # characters: the demo's model is tiny
TALK_LIMITS = {"client": (12, 35), "thought": (36, 60), "reply": (25, 45)}  # those of dialogues.jsonl, shorter still
FORM = re.compile(rf"[^。？?]+。[^。？?]+。用(?:{'|'.join(APPROACHES)})的[^，。？?]+，[^。？?]+。")
GUIDE = guidance("zh", HELPLINES)


class Line:
    """PsyLLM's steps over the posts, as recipes/psyllm_demo runs them; `asked` gathers the keys of all requests."""

    def __init__(self):
        ask, self.asked = recording_asker()
        self.posts = apply.run(
            "deduplicate",
            apply.run("clean", read(posts, CORPUS / "posts.jsonl"), clean.Settings()).rows,
            deduplicate.Settings(),
        )
        self.planned = apply.run("plan_dialogue", self.posts.rows, plan_dialogue.Settings(), ask)
        self.written = apply.run("write_dialogue", self.planned.rows, write_dialogue.Settings(), ask)
        self.reasoned = apply.run("reason_reply", self.written.rows, reason_reply.Settings(), ask)
        self.validated = apply.run("validate_dialogue", self.reasoned.rows, validate_dialogue.Settings(), ask)
        self.trained = [d for d in self.validated.rows if not d.meta.get("crisis")]  # crisis waits for people


class TalkLine:
    """PsyLLM's steps over the dialogues that are there already, as recipes/psyllm_demo runs them."""

    def __init__(self):
        ask, self.asked = recording_asker()
        found = list(messages.read(CORPUS / "dialogues.jsonl"))
        self.refused = [row for row in found if isinstance(row, Reject)]
        self.given = [row for row in found if not isinstance(row, Reject)]
        self.cleaned = apply.run("clean", self.given, clean.Settings())
        self.reasoned = apply.run("reason_reply", self.cleaned.rows, reason_reply.Settings(), ask)
        self.validated = apply.run("validate_dialogue", self.reasoned.rows, validate_dialogue.Settings(), ask)


line, talks = cache(Line), cache(TalkLine)


def counselor_turns(rows) -> list[tuple]:
    """Returns (place, turn) of every counselor turn, the guidance that code appends taken off."""
    return [
        (f"{d.id}/t{n}", turn.thought, turn.content.removesuffix(GUIDE).strip())
        for d in rows
        for n, turn in enumerate((turn for turn in d.turns if turn.role == "counselor"), 1)
    ]


def sample_taken(record, step: str, row: str) -> int:
    (entry,) = (e for e in record.meta["trail"] if e["step"] == step and e.get("row") == row)
    return entry["sample"]


def by_id(rows) -> dict:
    return {row.id: row for row in rows}


def test_every_recorded_reply_is_asked_for_and_no_other_is_missing():
    there = {key for key in recorded.load(CORPUS / "replies") if key[0].split(".")[0] in PSYLLM}
    assert there == line().asked | talks().asked
    assert not line().asked & talks().asked


def test_no_row_is_lost():
    ids = [post.id for post in line().posts.rows]
    for step in ("planned", "written", "reasoned", "validated"):
        result = getattr(line(), step)
        check_balance(step, ids, result)
        ids = [row.id for row in result.rows]
    ids = [row.id for row in talks().given]
    for step in ("cleaned", "reasoned", "validated"):
        result = getattr(talks(), step)
        check_balance(step, ids, result)
        ids = [row.id for row in result.rows]


def test_plans_have_one_to_three_rounds_and_the_wrong_one_is_made_anew():
    assert line().planned.rejects == []
    assert line().planned.report["rounds"] == {"1": 8, "2": 11, "3": 9}
    assert line().planned.report["calls"] == {"asked": 29, "invalid": 0, "repaired": 0, "failed": 0, "again": 1}
    assert sample_taken(by_id(line().planned.rows)["post-07"], "plan_dialogue", "post-07") == 1


def test_a_dialogue_cut_short_is_repaired():
    assert line().written.rejects == []
    assert line().written.report["rounds"] == line().planned.report["rounds"]
    assert line().written.report["calls"] == {"asked": 28, "invalid": 1, "repaired": 1, "failed": 0}
    cut = recorded.load(CORPUS / "replies")["write_dialogue", "post-12", 0].text
    assert not cut.endswith("}") and len(by_id(line().written.rows)["post-12"].turns) == 4


def test_replies_that_name_a_diagnosis_or_have_no_thought_are_asked_anew():
    report = line().reasoned.report
    assert report["faults"] == {"forbidden content: diagnosis": 3, "no thought": 1}
    assert (report["in"], report["dialogues"], report["turns"]) == (28, 27, 56)
    (reject,) = line().reasoned.rejects
    assert reject.id == "post-28" and reject.reason.startswith("forbidden content: turn 1: diagnosis (")
    rows = by_id(line().reasoned.rows)
    assert sample_taken(rows["post-06"], "reason_reply", "post-06/t1") == 1
    assert sample_taken(rows["post-19"], "reason_reply", "post-19/t2") == 1


def test_two_dialogues_are_refused_and_one_verdict_is_unreadable():
    report = line().validated.report
    assert {name: report[name] for name in ("in", "kept", "refused", "unreadable", "no_reply", "guidance")} == {
        "in": 27, "kept": 24, "refused": 2, "unreadable": 1, "no_reply": 0, "guidance": 0,
    }  # fmt: skip
    assert list(report["issues"].values()) == [0, 0, 1, 1]
    assert report["calls"] == {"asked": 28, "invalid": 2, "repaired": 0, "failed": 1, "again": 1}
    assert {r.id: r.reason.split(" (")[0].split(": ")[0] for r in line().validated.rejects} == {
        "post-08": "issue 3", "post-10": "issue 4", "post-22": "verdict unreadable",
    }  # fmt: skip


def test_the_dialogue_in_a_crisis_goes_through_with_guidance_and_waits_for_people():
    (crisis,) = (d for d in line().validated.rows if d.meta.get("crisis"))
    assert (crisis.id, crisis.meta["crisis"], crisis.meta["validation"]["keep"]) == ("post-17", ["suicide"], True)
    assert "answer" not in crisis.meta, "its replies are its own, the guidance stands behind the first"
    clients, replies = crisis.turns[::2], crisis.turns[1::2]
    assert [crisis_flags(turn.content) for turn in clients] == [["suicide"], []], "no plan and no method"
    assert [turn.content.endswith(GUIDE) for turn in replies] == [True, False]
    others = [t.content for d in line().written.rows for t in d.turns if t.role == "client" and d.id != crisis.id]
    assert [text for text in others if crisis_flags(text)] == []


def test_enough_dialogues_reach_training_every_turn_with_its_thought():
    rows = line().trained
    assert len(rows) == 23 and sum(len(d.turns) for d in rows) == 2 * 50
    assert {len(d.turns) for d in rows} == {2, 4, 6}
    for d in rows:
        assert dialogues.fault(d.turns) is None
    turns = counselor_turns(line().validated.rows)
    assert len({reply for _, _, reply in turns}) == len({thought for _, thought, _ in turns}) == len(turns)
    for place, thought, _ in turns:
        assert re.search("DSM-5|ICD-11", thought), place
        assert sum(thought.count(name) for name in APPROACHES) == 1, place


def test_lengths_suit_a_tiny_model():
    for rows, limits in ((line().validated.rows, LIMITS), (talks().reasoned.rows, TALK_LIMITS)):
        texts = [("client", d.id, turn.content) for d in rows for turn in d.turns if turn.role == "client"]
        for place, thought, reply in counselor_turns(rows):
            texts += [("thought", place, thought), ("reply", place, reply)]
        assert {(kind, where): t for kind, where, t in texts if not limits[kind][0] <= len(t) <= limits[kind][1]} == {}


def test_replies_say_nothing_forbidden_and_ask_one_question_at_most():
    for place, _, reply in counselor_turns(line().validated.rows + talks().reasoned.rows):
        assert reply_rules.find_forbidden(reply) == [] and named_diagnoses(reply) == set(), place
        assert not any(name.removesuffix("取向") in reply for name in APPROACHES), place
        assert reply.count("？") + reply.count("?") <= 1, place


def test_no_contact_data_in_any_reply():
    for key, reply in recorded.load(CORPUS / "replies").items():
        if key[0].split(".")[0] in PSYLLM:
            assert find_contacts(f"{reply.reasoning}\n{reply.text}") == [], key


def test_the_row_that_does_not_alternate_is_rejected_by_the_reader():
    (reject,) = talks().refused
    assert reject.id == "talk-65" and reject.where.endswith("dialogues.jsonl row 65")
    assert reject.reason.startswith("two client turns in a row: 1 and 2")


def test_every_turn_of_the_dialogues_is_written_anew_with_its_thought():
    given, reasoned = by_id(talks().given), talks().reasoned
    assert sorted(len(d.turns) // 2 for d in given.values()) == [2] * 24 + [3] * 120
    assert talks().cleaned.report["changed"] == 0
    assert {name: reasoned.report[name] for name in ("in", "dialogues", "turns", "faults", "crisis")} == {
        "in": 144, "dialogues": 144, "turns": 408, "faults": {}, "crisis": 0,
    }  # fmt: skip
    for d in reasoned.rows:
        assert d.turns[::2] == given[d.id].turns[::2], "the client's words stay"
        for drafted, turn in zip(given[d.id].turns[1::2], d.turns[1::2], strict=True):
            assert turn.content != drafted.content and 5 <= len(drafted.content) <= 25, d.id


def test_the_thoughts_of_the_dialogues_have_three_parts():
    turns = counselor_turns(talks().reasoned.rows)
    assert len({reply for _, _, reply in turns}) == len({thought for _, thought, _ in turns}) == len(turns)
    for place, thought, _ in turns:
        assert FORM.fullmatch(thought) and re.search("DSM-5|ICD-11", thought), (place, thought)
        assert sum(thought.count(name) for name in APPROACHES) == 1, place
    assert {name for name in APPROACHES if any(name in thought for _, thought, _ in turns)} == set(APPROACHES)


def test_the_dialogue_whose_reply_does_not_fit_is_refused_and_the_others_reach_training():
    report = talks().validated.report
    assert {name: report[name] for name in ("in", "kept", "refused", "unreadable", "no_reply", "guidance")} == {
        "in": 144, "kept": 143, "refused": 1, "unreadable": 0, "no_reply": 0, "guidance": 0,
    }  # fmt: skip
    (reject,) = talks().validated.rejects
    assert reject.id == "talk-51" and reject.reason.startswith("issue 2 (incoherent dialogue): ")
    rows = talks().validated.rows
    assert len(rows) == 143 and sum(len(d.turns) for d in rows) == 2 * 405
    assert not any(d.meta.get("crisis") for d in rows)


def test_the_dialogues_hold_no_contact_data_and_no_crisis():
    for d in talks().given:
        for turn in d.turns:
            assert find_contacts(turn.content) == [] and crisis_flags(turn.content) == [], (d.id, turn.content)
