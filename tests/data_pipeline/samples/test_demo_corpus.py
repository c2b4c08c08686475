"""The demo corpus: its recorded replies carry it through every step, and what is planted in it is caught there."""

import json
import re
from collections import Counter
from functools import cache

import pytest

from data_pipeline.llm import recorded
from data_pipeline.records import LETTERS, Reject, read_jsonl
from data_pipeline.safety.crisis import crisis_flags
from data_pipeline.safety.personal_data import find_contacts
from data_pipeline.sources import passages, posts
from data_pipeline.steps import (
    clean,
    deduplicate,
    filter_quality,
    generate_questions,
    rewrite_empathy,
    select_challenging,
    write_rationales,
)
from data_pipeline.synthesis import apply
from reward.answer import read_answer
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY / "data_pipeline/samples"
CORPUS = SAMPLES / "corpus"
INVENTED = {
    "13800000000", "123456789", "example_love", "example_wx2024", "example_ad01", "someone@example.com",
}  # fmt: skip
LINKS = ("example.com", "example.org")  # reserved for examples (RFC 2606)
PSYLLM = ("plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")  # asked in test_demo_dialogues.py
FACES = ("😭", "╥", "ω", "T_T", "💔", "🍜")


def read(reader, path) -> list:
    rows = list(reader.read(str(path)))
    assert [row for row in rows if isinstance(row, Reject)] == []
    return rows


def recording_asker():
    """Returns (what answers requests with the corpus's replies, the set in which it gathers their keys)."""
    ask_recorded, asked = recorded.asker(CORPUS / "replies"), set()

    def ask(requests):
        asked.update((r.step, r.row, r.sample) for r in requests)
        return ask_recorded(requests)

    return ask, asked


ASKED_FOR = generate_questions.Settings(single=8, multi=4)  # as recipes/demo/data.yaml


class Line:
    """The steps as the demo runs them; `asked` gathers the keys of all requests."""

    def __init__(self):
        ask, self.asked = recording_asker()
        self.passages = apply.run("clean", read(passages, CORPUS / "passages"), clean.Settings()).rows
        self.generated = apply.run("generate_questions", self.passages, ASKED_FOR, ask)
        self.unique = apply.run("deduplicate", self.generated.rows, deduplicate.Settings())
        criteria = filter_quality.Settings()
        self.good = apply.run("filter_quality", self.unique.rows, criteria, ask, passages=self.passages)
        self.explained = apply.run("write_rationales", self.good.rows, write_rationales.Settings(rounds=1), ask)
        asks = {"small": ask, "large": ask}
        self.selected = apply.run(
            "select_challenging", self.explained.rows, select_challenging.Settings(samples=2), asks
        )
        self.cleaned = apply.run("clean", read(posts, CORPUS / "posts.jsonl"), clean.Settings())
        self.posts = apply.run("deduplicate", self.cleaned.rows, deduplicate.Settings())
        self.dialogues = apply.run("rewrite_empathy", self.posts.rows, rewrite_empathy.Settings(), ask)


line = cache(Line)


@cache
def samples() -> dict[str, dict]:
    return {row["stem"]: row for _, row in read_jsonl(SAMPLES / "questions.jsonl")}


def test_the_corpus_has_its_size():
    rows = read(passages, CORPUS / "passages")
    files = [f for f in (CORPUS / "passages").rglob("*") if f.is_file()]
    assert len(rows) == len(files) >= 16, "one file, one passage"
    assert len({row.subject for row in rows}) >= 6
    chinese = {row.id: len(re.findall("[一-龥]", row.text)) for row in rows}
    assert {id: n for id, n in chinese.items() if not 300 <= n <= 600} == {}
    rows = read(posts, CORPUS / "posts.jsonl")
    assert len(rows) == 30 and all(1 <= len(row.replies) <= 2 for row in rows)
    flagged = [row for row in rows if crisis_flags(f"{row.title}\n{row.text}")]
    assert len(flagged) == 1
    assert crisis_flags(flagged[0].text) == ["suicide"], "no plan and no method"


def test_every_recorded_reply_is_asked_for_and_no_other_is_missing():
    merged = set(line().unique.report["merged_ids"])  # would be judged at another threshold
    spare = {("filter_quality", row, 0) for row in merged}
    twice = line().posts.report["merged_ids"]
    spare |= {(step, row, 0) for step in ("rewrite_empathy", "check_empathy") for row in twice}
    there = {key for key in recorded.load(CORPUS / "replies") if key[0].split(".")[0] not in PSYLLM}
    assert there == line().asked | spare


def test_generated_questions_are_the_samples_and_none_is_refused():
    assert line().generated.rejects == []
    rows = line().generated.rows
    assert len(rows) >= 150 and len({q.subject for q in rows}) >= 6
    own = [q for q in rows if q.stem in samples()]
    for q in own:
        sample = samples()[q.stem]
        assert (q.options, q.answer, q.kind, q.subject) == tuple(
            sample[name] for name in ("options", "answer", "kind", "subject")
        )
    assert len(rows) - len(own) == 8, "the planted ones"


def test_passages_hold_what_their_questions_ask():
    texts = {passage.id: passage.text for passage in line().passages}
    told = {}
    for q in line().selected.rows:
        for letter in q.answer:
            right = q.options[LETTERS.index(letter)]
            pairs = [right[i : i + 2] for i in range(len(right) - 1)]
            told[right] = sum(pair in texts[q.meta["passage"]] for pair in pairs) / len(pairs)
    assert {right: share for right, share in told.items() if share < 0.4} == {}, "of its pairs of characters"


def test_planted_faults_of_questions_are_caught():
    assert line().unique.report["merged"] == 4 and line().unique.report["conflicts"] == 0
    merged = set(line().unique.report["merged_ids"])
    assert not any(q.stem in samples() for q in line().generated.rows if q.id in merged), "the samples are kept"
    report = line().good.report
    assert report["faults"] == {"answerable": 1, "correct": 1, "exact": 1, "no_leak": 1, "fluent": 0}
    assert len(line().good.rejects) == 4 and report["calls"]["repaired"] == report["calls"]["invalid"] == 1


def test_answers_are_read_as_meant():
    keys = {q.id: q for q in line().good.rows}
    first, second = Counter(), Counter()
    for _, row in read_jsonl(CORPUS / "replies/write_rationales.jsonl"):
        q = keys[row["row"]]
        letters = read_answer(row["text"], q.options)
        (second if row["sample"] else first)["right" if letters == q.answer else letters and "wrong"] += 1
    assert (first["wrong"], first[None], second["wrong"], second[None]) == (2, 1, 6, 0)
    assert first["right"] == 168 and second["right"] == 161
    report = line().explained.report
    assert (report["solved"], report["unsolved"], report["failed"]) == (168, 3, 0)
    assert report["rounds"]["1"] == {"taken": 161, "wrong": 6, "gives the answer away": 1}


def test_enough_questions_reach_training_with_the_rationales_that_the_demo_learns_from():
    rows = line().selected.rows
    explained = [q for q in rows if q.rationale]
    assert len(explained) >= 120 + 40, "40 are held out"
    assert all(q.rationale == samples()[q.stem]["rationale"] for q in explained)
    splits = Counter(q.meta["selection"]["split"] for q in rows)
    assert 0.15 <= splits["grpo"] / len(rows) <= 0.25
    assert all(q.meta["selection"]["split"] == "grpo" for q in rows if not q.rationale)


def test_posts_are_cleaned_and_their_replies_rewritten():
    kinds = Counter(row["kind"] for row in line().cleaned.files["removed"])
    assert set(kinds) >= {"emoji", "emoticon", "contact", "link", "ad", "repeat"}, kinds
    assert line().cleaned.rejects == [] and line().posts.report["merged"] == 2
    assert [(r.code, r.detail.split(" (")[0]) for r in line().dialogues.rejects] == [("check", "not faithful")]
    rows = line().dialogues.rows
    assert len(rows) == 27
    crisis = [d for d in rows if d.meta.get("crisis")]
    assert len(crisis) == 1 and crisis[0].meta["answer"] == "rewritten"
    assert "紧急求助电话" in crisis[0].turns[-1].content and "信得过的人" in crisis[0].turns[-1].content


@pytest.mark.parametrize("name", ["posts.jsonl", "replies/rewrite_empathy.jsonl"])
def test_contact_data_is_invented(name):
    found = set()
    for _, row in read_jsonl(CORPUS / name):
        for text in (row.get("title", ""), row["text"], *row.get("replies", ())):
            found |= {span.text for span in find_contacts(text)}
            assert all(domain in LINKS for domain in re.findall(r"(\w+\.(?:com|cn|net|org))", text))
    assert found == (INVENTED if name == "posts.jsonl" else set())


def test_none_of_it_survives_cleaning():
    raw = (CORPUS / "posts.jsonl").read_text(encoding="utf-8")
    texts = [text for p in line().cleaned.rows for text in (p.title, p.text, *p.replies)]
    texts += [turn.content for d in line().dialogues.rows for turn in d.turns]
    left = json.dumps(texts, ensure_ascii=False)
    for planted in (*INVENTED, *LINKS, *FACES):
        assert planted in raw and planted not in left, planted
