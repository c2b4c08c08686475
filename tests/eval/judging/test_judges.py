"""Judges of known faults behind a real server: what is missing is counted and asked once more, and nothing made up."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Response, Turn
from eval.benchmarks.rubric import rubric
from eval.contract import Answered, Benchmark, Item, Judge, Judgement, Loaded, Scoring, judge_calls, no_scores
from eval.judging import asking, pairs, votes
from eval.judging.judges import Panel, ask_judges
from eval.judging.pairs import Outcome, Pair
from tests.model_server import Answer, ModelServer, completion

RUBRIC = """
title: Two
source: of this test
language: zh
total: sum
dimensions:
  warmth: {asks: 温暖吗, scale: [0, 2], anchors: {0: 不, 1: 有些, 2: 是}}
  advice: {asks: 有医疗建议吗, scale: [0, 1], anchors: {0: 没有, 1: 有}, best: low, unsure: true}
"""

REFUSALS = (  # by the model, by the filter behind it, by the filter before it
    Answer(completion("这个我不能评。", "content_filter")),
    Answer(completion("", "content_filter")),
    Answer({"error": {"message": "filtered", "code": "content_filter"}}, status=400),
)


def chance(*values: object) -> float:
    return int(hashlib.sha256(repr(values).encode()).hexdigest()[:8], 16) / 16**8


class Script:
    """Answers by `say(body)` and keeps how often each request came."""

    def __init__(self, say) -> None:
        self.say = say
        self.server = ModelServer(plan=self)

    def get(self, text: str, _: list[Answer], /) -> list[Answer]:
        return [self.say(self.server.calls[-1].body)]


def answered(number: int) -> list[Answered]:
    """Returns `number` items with a reply each."""
    return [
        Answered(
            Item(Dialogue(f"d{n}", "test", [Turn("client", f"我很累（{n}）。")]), "replies"),
            [Response(f"听起来很累，第{n}次。", "stop", 5)],
            [],
            None,
        )
        for n in range(number)
    ]


def benchmark(file: Path) -> Benchmark:
    file.write_text(RUBRIC, encoding="utf-8")
    calls = rubric.calls(
        rubric.read_rubric(file), lambda item: {"history": [("client", item.dialogue.turns[0].content)]}
    )
    return judged_by(lambda item: calls)


def judged_by(calls: Callable[[Item], Sequence[Judge]], name: str = "test") -> Benchmark:
    return Benchmark(
        load=lambda path: Loaded([], [], []),
        requests=lambda item: [],
        score=no_scores,
        tables=lambda results: [],
        judge=calls,
        name=name,
    )


def server(url: str, model: str) -> llm.Server:
    return llm.Server(base_url=url, model=model, attempts=1, input_price=1.0, output_price=2.0)


def test_two_judges_three_times_each_are_read_counted_and_asked_once_more(tmp_path):
    said: dict[tuple, str] = {}  # (judge, reply, dimension, repeat) -> what came

    def say(body: dict) -> Answer:
        text, repeat, attempt = body["messages"][0]["content"], (body["seed"] - 42) % 1000, (body["seed"] - 42) // 1000
        name = "warmth" if "维度：warmth" in text else "advice"
        (reply,) = re.findall(r'待评回应（JSON）：\n(".*")', text)
        key = (body["model"], json.loads(reply), name, repeat)
        draw = chance(key, attempt)
        if draw < 0.08:
            said[key] = "unreadable"
            return Answer(
                completion(("挺好的。", '{"evidence": "听", "score": 11}', '{"score": 1}')[int(1000 * draw) % 3])
            )
        if draw < 0.12:
            said[key] = "refused"
            return REFUSALS[int(1000 * draw) % len(REFUSALS)]
        if draw < 0.17 and not healed:
            said[key] = "failed"
            return Answer(status=500)
        score: object = (
            "unsure" if name == "advice" and draw > 0.9 else int(draw * 100) % (3 if name == "warmth" else 2)
        )
        said[key] = str(score)
        quote = "" if draw > 0.85 else "听起来  很累" if draw > 0.5 else "别的话"
        return Answer(completion(json.dumps({"evidence": quote, "score": score}, ensure_ascii=False)))

    def ask() -> tuple[list[Judgement], int]:
        judged, again = ask_judges(one, items, panel, tmp_path / "ledger.sqlite", "set", Scoring())
        return [judgement for (judgement,) in judged if judgement], again

    one, items, healed = benchmark(tmp_path / "rubric.yaml"), answered(20), False
    script = Script(say)
    with script.server as running:
        panel = Panel({"first": server(running.url, "alpha"), "second": server(running.url, "beta")}, repeats=3)
        judged, again = ask()
        assert len(running.calls) == 20 * 2 * 3 * 2
        lost = [key for key, what in said.items() if what in ("unreadable", "refused", "failed")]
        assert sum(j.missing for j in judged) == len(lost) == again > 20
        assert sum(j.lost for j in judged) == sum(what == "failed" for what in said.values()) > 3
        before = dict(said)
        for item, judgement in zip(items, judged, strict=True):
            check(item.responses[0].text, judgement, said)
        healed = True
        judged, again = ask()
        assert len(running.calls) == 240 + len(lost), "what was read is not asked again"
        still = [key for key, what in said.items() if what in ("unreadable", "refused")]
        late = [key for key in still if before[key] == "failed"]
        assert again == len(late), "what was asked twice without a readable reply is missing for good"
        assert sum(j.missing for j in judged) == len(still) > 0
        for item, judgement in zip(items, judged, strict=True):
            check(item.responses[0].text, judgement, said)
        calls = len(running.calls)
        ask()
        assert len(running.calls) == calls + len(late)

    whole = [
        Answered(item.item, item.responses, [], [judgement]) for item, judgement in zip(items, judged, strict=True)
    ]
    figures = votes.by_judge(whole, Scoring())
    assert set(figures) == {"first", "second"}
    for name, model in (("first", "alpha"), ("second", "beta")):
        of = figures[name]
        states = [what for key, what in said.items() if key[0] == model]
        assert (of["votes"], of["unreadable"]) == (120, states.count("unreadable"))
        assert (of["refused"], of["failed"]) == (states.count("refused"), 0)
        assert 0 < of["quotes_found"] < of["quotes"] and of["without_quote"] > 0
        replies = sum(call.body["model"] == model for call in running.calls if call.body) - (of["failed"])
        assert of["cost"] == pytest.approx(of["tokens"] * 20e-6 / 15) and of["tokens"] <= 15 * replies
    rows = votes.rows(whole, "model")
    missing = [row for row in rows if row["value"] is None]
    assert all(row["state"] != "read" for row in missing), "a judge that cannot tell gives no rating"
    assert {row["dimension"] for row in rows} == {"warmth", "advice", "advice_unsure"}


def check(reply: str, judgement: Judgement, said: dict[tuple, str]) -> None:
    """Recomputes the scores of one reply."""
    for name in ("warmth", "advice"):
        means, whole = [], True
        for model in ("alpha", "beta"):
            came = [said[model, reply, name, repeat] for repeat in range(3)]
            values = [float(what) for what in came if what.isdigit()]
            means += [sum(values) / len(values)] if values else []
            whole &= any(what.isdigit() or what == "unsure" for what in came)
        expected = sum(means) / len(means) if means and whole else None
        assert judgement.scores[name] == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ('{"evidence": "a", "score": 2}', 2.0),
        ('```json\n{"evidence": "", "score": 0}\n```', 0.0),
        ('<think>三分？</think>{"evidence": "a", "score": 1}', 1.0),
        ('{"evidence": "a", "score": 11}', None),
        ('{"evidence": "a", "score": -1}', None),
        ('{"evidence": "a", "score": "2"}', None),
        ('{"evidence": "a", "score": true}', None),
        ('{"evidence": "a", "score": 1.5}', None),
        ('{"evidence": "a", "score": null}', None),
        ('{"score": 2}', None),
        ('{"evidence": "a", "score": 2, "total": 9}', None),
        ('{"evidence": "a", "score": 1, "score": 2}', None),
        ("2", None),
        ("我给两分。", None),
        ("", None),
    ],
)
def test_only_the_asked_object_is_read(tmp_path, reply, read):
    warmth, _ = judge_calls(benchmark(tmp_path / "rubric.yaml"), answered(1)[0].item)
    assert warmth.read(reply) == {"warmth": read}


def test_a_total_is_missing_where_a_dimension_is_and_no_reply_is_worth_the_bad_end(tmp_path):
    benchmark(tmp_path / "rubric.yaml")
    two = rubric.read_rubric(tmp_path / "rubric.yaml")

    def scored(judgement: Judgement | None) -> dict:
        (row,) = rubric.scores(two, Answered(answered(1)[0].item, [Response("好", "stop", 1)], [], [judgement]))
        return row

    assert scored(Judgement({"warmth": 2.0, "advice": 1.0, "advice_unsure": 0.0}))["total"] == 3
    assert scored(Judgement({"warmth": 2.0, "advice": None, "advice_unsure": 1.0}))["total"] is None
    assert scored(None) == {"warmth": 0.0, "advice": 1.0, "advice_unsure": 0.0, "total": 1.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("anchors: {0: 不, 1: 有些, 2: 是}", "best: high"), "dimensions.warmth.*anchors say what 0 and 2 mean"),
        (("anchors: {0: 不, 1: 有些, 2: 是}", "anchors: {0: 不, 2: 是, 3: 很}"), "anchor 3 is beyond the scale 0 to 2"),
        (("scale: [0, 2]", "scale: [2, 0]"), r"scale takes \[LOW, HIGH\]"),
        (("  warmth:", "  total:"), "dimension 'total'"),
        (("language: zh", "language: fr"), "language='fr'"),
        (("total: sum", "totale: sum"), "totale"),
        (("title: Two", "title: [Two"), "not YAML"),
    ],
)
def test_a_rubric_that_cannot_be_is_refused_with_file_and_key(tmp_path, change, told):
    file = tmp_path / "broken.yaml"
    file.write_text(RUBRIC.replace(*change), encoding="utf-8")
    with pytest.raises(BadInput, match=told) as caught:
        rubric.read_rubric(file)
    assert str(caught.value).startswith(str(file))
    with pytest.raises(BadInput, match="no such rubric"):
        rubric.read_rubric(tmp_path / "none.yaml")


def test_two_calls_that_give_one_score_are_refused():
    call = Judge(("warmth",), lambda item, answer: [], lambda reply: {"warmth": 1.0})
    made = judged_by(lambda item: [call, call], "twice")
    with pytest.raises(BadInput, match="benchmark twice: two calls of the judge give warmth"):
        judge_calls(made, answered(1)[0].item)


def test_a_judge_that_refuses_in_a_field_of_its_own_or_changes_its_name_is_told(tmp_path):
    names = iter(["m-2026-01", "m-2026-01", "m-2026-02", "m-2026-02"])

    def say(body: dict) -> Answer:
        refused = "第0次" in body["messages"][0]["content"]
        said = completion(None, refusal="I cannot") if refused else completion('{"evidence": "", "score": 1}')
        return Answer({**said, "model": next(names)})

    one, items = benchmark(tmp_path / "rubric.yaml"), answered(2)
    ledger, script = tmp_path / "ledger.sqlite", Script(say)
    with script.server as running:
        judge = llm.Server(running.url, "m", concurrency=1)
        judged, _ = ask_judges(one, items, Panel({"judge": judge}), ledger, "set", Scoring())
    assert [vote.state for (of,) in judged if of for vote in of.votes] == ["refused", "refused", "read", "read"]
    told = asking.described(judge, ledger)
    assert told.startswith("m, which answered as m-2026-01, m-2026-02; its name changed on the way")


def test_recorded_verdicts_judge_as_a_server_does_and_cost_nothing(tmp_path):
    one, items = benchmark(tmp_path / "rubric.yaml"), answered(2)
    rows = [
        {"step": f"judge/set/{name}", "row": f"d{n}", "sample": 0, "text": f'{{"evidence": "", "score": {value}}}'}
        for n in range(2) for name, value in (("warmth", 2), ("advice", n * 9))
    ]  # fmt: skip
    folder = tmp_path / "judge"
    folder.mkdir()
    file = folder / "judge.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    panel = Panel({"judge": asking.whom({"replies": str(folder), "model": "x"}, "judges.judge")})
    judged, again = ask_judges(one, items, panel, tmp_path / "ledger.sqlite", "set", Scoring())
    states = [vote.state for (of,) in judged if of for vote in of.votes]
    assert states == ["read", "read", "read", "unreadable"] and again == 0, "asked again it would say the same"
    assert "which no model gave" in asking.described(panel.servers["judge"], tmp_path / "none")
    file.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"step judge/set/advice, row d0.*/judge/judge.set.advice.jsonl"):
        ask_judges(one, items, panel, tmp_path / "ledger.sqlite", "set", Scoring())


# --- pairs ------------------------------------------------------------------------------------------------------------


def made_pairs(number: int) -> list[Pair]:
    histories = {f"h{n}": (("user", f"我睡不着（{n}）。"),) for n in range(number)}
    replies = {name: {item: f"{name}说：{item}" for item in histories} for name in ("甲模型", "乙模型")}
    return pairs.pairs_of(histories, replies)


def test_a_judge_that_likes_the_first_is_found_out_and_what_is_missing_leaves_the_pair_out(tmp_path):
    def preferred(history: str) -> str:
        return "甲模型" if chance(history, "true") < 0.7 else "乙模型"

    said: dict[tuple[str, str], float | None] = {}  # (history, shown first) -> how much of it that one won

    def say(body: dict) -> Answer:
        text = body["messages"][0]["content"]
        a, b = (json.loads(reply).partition("说：") for reply in re.findall(r'^[AB]（JSON）：\n(".*")', text, re.M))
        key, draw = (a[2], a[0]), chance(a[2], a[0], body["seed"])
        said[key] = None
        if draw < 0.05:
            return Answer(completion("两个都不错。"))
        if draw < 0.08:
            return Answer(completion("不便评价。", "content_filter"))
        won = chance(a[2], a[0], "position") < 0.3 or preferred(a[2]) == a[0]
        said[key] = float(won)
        verdict = {"evidence_a": "", "evidence_b": "", "better": "A" if won else "B"}
        return Answer(completion(json.dumps(verdict)))

    made = made_pairs(250)
    script = Script(say)
    with script.server as running:
        panel = Panel({"judge": server(running.url, "biased")})
        outcomes, rows, again = pairs.judge_pairs(made, panel, tmp_path / "ledger.sqlite", "set", Scoring())
    lost = [key for key, won in said.items() if won is None]
    assert len(rows) == 500 and again == len(lost) > 20
    assert sum(row["state"] != "read" for row in rows) == len(lost)
    whole = {item for item, _ in said} - {item for item, _ in lost}
    assert {o.pair.item for o in outcomes if o.won is not None} == whole
    turned, first = pairs.flips(outcomes)
    straight = {item: said[item, "甲模型"] for item in whole}
    swapped = {item: said[item, "乙模型"] for item in whole}
    told = [(a, 1 - b) for item in whole if (a := straight[item]) is not None and (b := swapped[item]) is not None]
    assert turned == pytest.approx(sum(a != b for a, b in told) / len(told))
    assert first == pytest.approx(sum(a + 1 - b for a, b in told) / 2 / len(told) - 0.5)
    assert turned == pytest.approx(0.3, abs=0.06) and first == pytest.approx(0.15, abs=0.03)
    (best, other) = pairs.ranking(outcomes)
    assert (best.model, other.model) == ("甲模型", "乙模型") and best.games == len(whole)


def test_planted_flips_and_preference_are_recovered_within_two_points():
    made = made_pairs(6000)

    def seen(pair: Pair, order: str) -> float:
        """Returns whether the first model won: in 30 of 100 the judge takes the one shown first."""
        if chance(pair.id, order) < 0.3:
            return 1.0 if order == "straight" else 0.0
        return float(chance(pair.item, "true") < 0.6)

    outcomes = [Outcome(p, "judge", seen(p, "straight"), seen(p, "swapped"), "judge") for p in made]
    turned, first = pairs.flips(outcomes)
    assert turned == pytest.approx(0.4 * 0.3 + 0.6 * 0.3, abs=0.02) and first == pytest.approx(0.15, abs=0.02)


def test_a_verdict_holds_for_its_words_and_for_either_order_of_the_models():
    pair = made_pairs(1)[0]
    (a, b), (said_a, said_b) = pair.systems, pair.replies
    turned = Pair(pair.history, pair.item, (b, a), (said_b, said_a))
    other = Pair(pair.history, pair.item, (a, b), (said_a, "别的"))
    assert pair.id == turned.id != other.id and pair.id[0] == "p"
