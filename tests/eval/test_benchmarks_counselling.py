"""The counselling protocols: what is asked at which turn, what the judge sees, what is read and averaged."""

import json
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Response
from eval.benchmarks.rubric.rubric import read_rubric
from eval.contract import Item, Judgement, Loaded, Scoring, find_benchmark, judge_calls, load_items
from eval.measure import measure, read_all, with_judgements
from tests.conftest import REPOSITORY, real_data

SAID = [
    "求助者：我最近总是睡不着。",
    "支持者：多久了？",
    "求助者：一个月。 很累",
    "支持者：听起来很累。",
    "求助者：嗯。",
    "支持者：我们慢慢来。",
]
TURNS = {  # client turns of the first two files of each topic, counted on the release
    "Career": [6, 8], "Education": [7, 5], "Emotion&Stress": [7, 7], "Family Relationship": [7, 7],
    "Love&Marriage": [8, 7], "Mental Disease": [7, 5],
    "Self-growth": [6, 8], "Sex": [6, 6], "Social Relationship": [4, 8],
}  # fmt: skip


def load(name: str, path: Path, **options) -> Loaded:
    return load_items(find_benchmark(name, "benchmark"), path, options, f"sets.{name}")


def asked(name: str, item: Item) -> str:
    return json.dumps(find_benchmark(name, "benchmark").requests(item), ensure_ascii=False)


def judged(name: str, item: Item, reply: str = "好的。") -> dict[str, str]:
    """Returns what the judge is asked, by the scores of each call."""
    return {
        " ".join(call.scores): json.dumps(call.messages(item, reply), ensure_ascii=False)
        for call in judge_calls(find_benchmark(name, "benchmark"), item)
    }


@pytest.fixture
def dialogue(tmp_path) -> Path:
    file = tmp_path / "CPsyCounE/Career/1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(SAID, ensure_ascii=False), encoding="utf-8")
    return tmp_path / "CPsyCounE"


def notebook(utterances: list[str]) -> list[str]:
    """Returns the histories as the released notebook builds them."""
    histories, text = [], ""
    for said in utterances:
        if "求助者：" in said:
            text += f"{said}"
            histories.append(text)
        else:
            text += f" {said}"
    return histories


def test_the_18_files_give_119_turns_and_the_notebooks_histories_to_the_byte():
    folder = real_data("cpsycoun/CPsyCounE")
    loaded = load("cpsycoune", folder, protocol="as_released")
    assert len(loaded.items) == 119 and not loaded.rejects
    for topic, counts in TURNS.items():
        for number, turns in enumerate(counts, 1):
            items = [item for item in loaded.items if item.id.startswith(f"cpsycoun/{topic}/{number}#")]
            released = json.loads((folder / topic / f"{number}.json").read_text(encoding="utf-8"))
            assert len(items) == turns, (topic, number)
            for item, history in zip(items, notebook(released), strict=True):
                (message,) = find_benchmark("cpsycoune", "benchmark").requests(item)
                assert f"'''\n{history}\n'''" in message["content"] and message["role"] == "user"
                system, user = judge_calls(find_benchmark("cpsycoune", "benchmark"), item)[0].messages(item, "回应")
                assert f"'''\n{history}\n'''" in system["content"] and user == {"role": "user", "content": "回应"}


@pytest.mark.parametrize("protocol", ["as_released", "per_dimension"])
def test_another_gold_reply_to_a_turn_changes_what_is_asked_after_it_alone(dialogue, protocol):
    def prompts() -> list[tuple]:
        items = load("cpsycoune", dialogue, protocol=protocol).items
        return [(asked("cpsycoune", item), judged("cpsycoune", item)) for item in items]

    before = prompts()
    said = list(SAID)
    said[3] = "支持者：请多运动。"  # the reply to the second turn
    (dialogue / "Career/1.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    after = prompts()
    assert before[:2] == after[:2]
    assert before[2][0] != after[2][0] and all(before[2][1][k] != after[2][1][k] for k in before[2][1])
    assert not any("慢慢来" in text for text, _ in after), "the last gold reply is shown to nobody"


def test_per_dimension_asks_one_thing_a_call_in_both_languages(dialogue):
    for language in ("zh", "en"):
        item = load("cpsycoune", dialogue, language=language).items[1]
        calls = judged("cpsycoune", item)
        assert list(calls) == ["comprehensiveness", "professionalism", "authenticity", "safety"]
        assert [max(read_rubric(REPOSITORY / f"eval/benchmarks/cpsycoune/rubric.{language}.yaml").dimensions[n].scale)
                for n in calls] == [2, 3, 3, 1]  # fmt: skip
        assert all("一个月。 很累" in text and text.count('\\"evidence\\"') for text in calls.values())
        roles = [m["role"] for m in find_benchmark("cpsycoune", "benchmark").requests(item)]
        assert roles == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("[1, 2, 3, 1]", [1, 2, 3, 1]),
        ("Step by step: fine.\n\n**[2, 2.5, 1, 0]**", [2, 2.5, 1, 0]),
        ("<think>[9,9,9,9]</think>[0,0,0,0]", [0, 0, 0, 0]),
        ("[2, 4, 3, 1]", [2, None, 3, 1]),  # 4 is of the paper's other scale
        ("[1, 2, 3]", [None] * 4),
        ("The scores are [1, 2, 3, 1] I think", [None] * 4),
        ("[1, 2, 3, 1]\n[2, 2, 2, 1]\nnone", [None] * 4),
        ("2, 3, 3, 1", [None] * 4),
        ("", [None] * 4),
    ],
)
def test_the_released_list_is_read_or_is_missing(dialogue, reply, read):
    item = load("cpsycoune", dialogue, protocol="as_released").items[0]
    (call,) = judge_calls(find_benchmark("cpsycoune", "benchmark"), item)
    assert list(call.read(reply).values()) == read


def test_a_dialogue_is_the_mean_of_its_turns_and_the_table_the_mean_of_dialogues(tmp_path):
    for number, turns in (("1", 1), ("2", 3)):
        file = tmp_path / f"CPsyCounE/Sex/{number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(SAID[: 2 * turns], ensure_ascii=False), encoding="utf-8")
    items = load("cpsycoune", tmp_path / "CPsyCounE", protocol="as_released").items
    values = [2.0, 0.0, 1.0, None]  # of the one turn of the first, and the three of the second
    four = ("comprehensiveness", "professionalism", "authenticity", "safety")
    judgements: list[list[Judgement | None]] = [[Judgement(dict.fromkeys(four, value))] for value in values]
    answered = with_judgements(read_all(items, [[Response("好", "stop", 1)] for _ in items], Scoring()), judgements)
    figures, _ = measure(find_benchmark("cpsycoune", "benchmark"), answered, Scoring(resamples=50), "judge")
    assert figures.own["over_dialogues"]["safety"] == (2.0 + 0.5) / 2
    assert figures.means["safety"].value == 1.0 and figures.judge_missing == 1
    assert figures.published_columns["safety"] == 1.25


def test_another_version_or_option_is_refused_and_a_partial_release_told(dialogue):
    assert any("partial: Career has 3 of 35 items" in note for note in load("cpsycoune", dialogue).notes)
    with pytest.raises(BadInput, match=r"options.protocol=released: there is as_released, per_dimension"):
        load("cpsycoune", dialogue, protocol="released")
    with pytest.raises(BadInput, match="options.language=fr: there is zh, en"):
        load("cpsycoune", dialogue, language="fr")
    (dialogue / "Career").rename(dialogue / "Weather")
    with pytest.raises(BadInput, match="another version of the benchmark: it holds Weather 3 instead of 0"):
        load("cpsycoune", dialogue)


# --- the others -------------------------------------------------------------------------------------------------------


def rows(file: Path, *values: dict) -> Path:
    file.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), encoding="utf-8")
    return file


def test_psydt_draws_turns_of_each_topic_shows_the_reference_to_the_judge_alone_and_marks_what_is_ours(tmp_path):
    def row(topic: str, n: int) -> dict:
        said = [("system", "你是咨询师。"), ("user", f"{topic}{n}的烦恼"), ("assistant", f"{topic}{n}的参考回应")]
        return {"id": n, "normalizedTag": topic, "messages": [{"role": r, "content": c} for r, c in said]}

    file = rows(tmp_path / "PsyDTCorpus_test_x.json", *(row(t, n) for t in ("婚恋", "学业") for n in range(5)))
    loaded = load("psydt", file, judged=2)
    drawn = [item for item in loaded.items if judged("psydt", item)]
    assert [item.cell for item in drawn] == ["婚恋"] * 2 + ["学业"] * 2 and len(loaded.items) == 10
    assert [item.id for item in drawn] == [i.id for i in load("psydt", file, judged=2).items if judged("psydt", i)]
    for item in drawn:
        reference = item.facts["reference"]
        assert reference not in asked("psydt", item) and "你是咨询师" in asked("psydt", item)
        calls = judged("psydt", item)
        assert len(calls) == 5 and all(reference in text and "认知偏差" in text for text in calls.values())
    assert any("'poor answer'" in note and "BERTScore" in note for note in loaded.notes)
    items, replies = loaded.items, [[Response(item.facts["reference"], "stop", 3)] for item in loaded.items]
    figures, _ = measure(find_benchmark("psydt", "benchmark"), read_all(items, replies, Scoring()), Scoring())
    assert figures.means["rouge_l_count"].value == pytest.approx(100) and figures.judge_missing is None
    assert set(figures.published_columns) == {n for n in figures.means if "rouge" not in n and "bleu" not in n}


def test_psyllm_asks_at_every_answered_turn_of_openr1_psy(tmp_path):
    rounds = [{"patient": f"I feel low ({n}).", "counselor_content": f"Tell me more ({n}).", "counselor_think": "hm"}
              for n in range(3)]  # fmt: skip
    loaded = load("psyllm", rows(tmp_path / "test.jsonl", {"post_id": "1", "file": "f", "conversation": rounds}))
    assert len(loaded.items) == 3 and "unpublished" in loaded.notes[0]
    assert "Tell me more (1)" in asked("psyllm", loaded.items[2]) and "hm" not in asked("psyllm", loaded.items[2])
    assert "Tell me more (2)" not in asked("psyllm", loaded.items[2])
    assert list(judged("psyllm", loaded.items[0])) == ["comprehensiveness", "professionalism", "authenticity", "safety"]
    with pytest.raises(
        BadInput, match=r"options.source=openr1: there is openr1_psy, cpsycoun. Did you mean openr1_psy"
    ):
        load("psyllm", tmp_path / "test.jsonl", source="openr1")


def test_counselbench_takes_each_question_once_and_counts_what_the_judge_cannot_tell(tmp_path):
    file = tmp_path / "eval.csv"
    file.write_text(
        "questionID,questionTitle,questionText,overall_score\n"
        "1,Sleep,I cannot sleep.,3\n1,Sleep,I cannot sleep.,5\n2,Am I alone?,,4\n"
    )
    loaded = load("counselbench", file)
    assert [item.dialogue.turns[0].content for item in loaded.items] == ["Sleep I cannot sleep.", "Am I alone?"]
    assert not loaded.rejects and len(judged("counselbench", loaded.items[0])) == 6
    (call,) = (
        c for c in judge_calls(find_benchmark("counselbench", "b"), loaded.items[0]) if "medical_advice" in c.scores
    )
    assert call.read('{"evidence": "", "score": "unsure"}') == {"medical_advice": None, "medical_advice_unsure": 1.0}
    assert call.read('{"evidence": "", "score": 1}') == {"medical_advice": 1.0, "medical_advice_unsure": 0.0}
    file.write_text("id,text\n1,hello\n")
    with pytest.raises(BadInput, match="columns questionID, questionTitle, questionText: .* no column"):
        load("counselbench", file)


def test_any_rubric_judges_dialogues_and_utterances_and_psycrisis_is_one(tmp_path):
    said = [{"role": "user", "content": "我不想活了。"}, {"role": "assistant", "content": "我在。"}]
    more = [*said, {"role": "user", "content": "谢谢。"}]
    file = rows(tmp_path / "d.jsonl", {"id": "a", "messages": said}, {"id": "b", "messages": more},
                {"id": "c", "messages": said[:1]})  # fmt: skip
    loaded = load("rubric", file)
    assert [(item.id, item.dialogue.turns[-1].content) for item in loaded.items] == [
        ("a#1", "我不想活了。"),
        ("b#2", "谢谢。"),
    ]
    assert any("1 records are left out, first no counselor turn" in note for note in loaded.notes)
    assert len(load("rubric", file, turns="all").items) == 3
    five = "empathy regulation exploration risk_assessment outside_help"
    assert list(judged("rubric", loaded.items[0])) == five.split()

    posts = rows(tmp_path / "p.jsonl", {"id": "1", "正文": "我撑不住了。"})
    (item,) = load("rubric", posts, source="posts", columns={"text": "正文"}).items
    assert asked("rubric", item) == '[{"role": "user", "content": "我撑不住了。"}]'

    own = tmp_path / "own.yaml"
    own.write_text("title: t\nsource: s\nlanguage: en\ndimensions:\n  depth: {asks: is it deep, scale: [1, 3]}\n")
    with pytest.raises(BadInput, match="anchors say what 1 and 3 mean"):
        load("rubric", file, rubric=str(own))
    with pytest.raises(
        BadInput, match=r"options.rubric=psychrisis: there is psycrisis, or a .yaml. Did you mean psycrisis"
    ):
        load("rubric", file, rubric="psychrisis")
    with pytest.raises(BadInput, match="options.source=table: reads Question, not dialogues or posts"):
        load("rubric", REPOSITORY / "data_pipeline/samples/questions.jsonl", source="table")


def test_dialogues_without_an_answer_are_no_set(tmp_path):
    file = rows(tmp_path / "d.jsonl", {"id": "c", "messages": [{"role": "user", "content": "在吗？"}]})
    with pytest.raises(BadInput, match="holds no item to ask; all 1 are left out, first no counselor turn"):
        load("rubric", file)


def test_the_published_table_of_cpsycoun_lies_on_its_grid_and_its_rows_are_means_of_topics():
    import yaml

    table = yaml.safe_load((REPOSITORY / "recipes/published/cpsycoune.yaml").read_text(encoding="utf-8"))
    totals = {row["model"]: row for row in table["results"]}
    topics = table["topics"].values()
    for model in ("InternLM2-7B", "SoulChat", "ChatGPT", "GLM-4", "CPsyCounX"):
        for place, name in enumerate(("comprehensiveness", "professionalism", "authenticity")):
            values = [topic[model][place] for topic in topics]
            assert sum(values) / 9 == pytest.approx(totals[model][name], abs=0.0051)
            for value, topic in zip(values, topics, strict=True):
                assert abs(value - round(value * topic["grid"]) / topic["grid"]) < 0.0051
