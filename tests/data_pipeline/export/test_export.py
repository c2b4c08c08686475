"""Training files: what is written, and what is refused because the frameworks would drop it silently."""

import json

import pyarrow.parquet
import pytest

from data_pipeline.errors import BadInput
from data_pipeline.export import llama_factory, selection, verl
from data_pipeline.export.training_files import count_reasons
from data_pipeline.prompts import question_messages, render
from data_pipeline.records import Dialogue, Question, Reject, Turn
from data_pipeline.sources import cpsycoun, table
from data_pipeline.sources import pceb as benchmark
from data_pipeline.synthesis.splits import LEFT_OUT
from reward.answer import read_strict_match
from tests.conftest import REPOSITORY, real_data

SAMPLES = REPOSITORY / "data_pipeline" / "samples"


def question(id="q1", **changes) -> Question:
    fields = {
        "source": "table", "subject": "普通心理学", "kind": "multi", "stem": "下列属于感觉的有",
        "options": ["视觉", "思维", "听觉"], "answer": "AC", "rationale": "视觉和听觉是感觉。",
        "meta": {"where": "t.csv row 7"},
    }  # fmt: skip
    return Question(id=id, **{**fields, **changes})


def test_a_question_with_a_rationale_becomes_a_thought_and_an_answer(tmp_path):
    assert llama_factory.write(tmp_path, [question()]) == 1
    row = json.loads((tmp_path / "sft.jsonl").read_text())
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][1]["content"] == "多选题：下列属于感觉的有\nA. 视觉\nB. 思维\nC. 听觉"
    assert row["messages"][2]["content"] == "<think>\n视觉和听觉是感觉。\n</think>\n\n答案：AC"
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["sft"]["file_name"] == "sft.jsonl"
    assert info["sft"]["formatting"] == "sharegpt"


def test_sft_teaches_the_form_that_strict_match_reads():
    questions = [q for q in table.read(SAMPLES / "questions.jsonl") if isinstance(q, Question) and q.rationale]
    assert len(questions) > 100 and {"single", "multi"} <= {q.kind for q in questions}
    for q in [question(), *questions]:
        response = llama_factory.question_row(q)["messages"][-1]["content"]
        assert q.kind == "open" or read_strict_match(response, q.options) == q.answer


def test_verl_rows_have_one_schema_whatever_they_hold(tmp_path):
    for name, questions in {"a": [question()], "b": [question(options=["甲", "乙"], subject="")], "none": []}.items():
        assert verl.write(tmp_path / name, verl.question_rows(questions, "train")) == len(questions)
        assert pyarrow.parquet.read_schema(tmp_path / name).equals(verl.SCHEMA)
    row = pyarrow.parquet.read_table(tmp_path / "a").to_pylist()[0]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "AC"}
    assert row["extra_info"] == {
        "id": "q1", "kind": "multi", "subject": "普通心理学", "question": "下列属于感觉的有",
        "options": ["视觉", "思维", "听觉"], "split": "train", "index": 0,
    }  # fmt: skip


def test_an_open_question_and_a_dialogue_become_rows_that_a_judge_can_read(tmp_path):
    asked = question(
        kind="open", options=[], answer="", reference="设身处地", context="一位女士。", stem="什么是共情？"
    )
    talk = [Turn("client", "我睡不着。"), Turn("counselor", "多久了？", "先了解"), Turn("client", "一个月。")]
    dialogue = Dialogue("d", "own", [*talk, Turn("counselor", "这很熬人。", "共情"), Turn("client", "嗯。")])
    rows = [*verl.question_rows([asked], "train", open_questions=True), verl.dialogue_row(dialogue, "train", 1, "你是")]
    verl.write(tmp_path / "rows", rows)
    first, second = pyarrow.parquet.read_table(tmp_path / "rows").to_pylist()
    assert first["reward_model"] == {"style": "model", "ground_truth": "设身处地"}
    assert first["extra_info"]["question"] == "一位女士。\n什么是共情？"
    assert [m["role"] for m in second["prompt"]] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in second["prompt"]] == ["你是", "我睡不着。", "多久了？", "一个月。"]
    assert second["reward_model"] == {"style": "model", "ground_truth": "这很熬人。"}
    assert second["extra_info"]["kind"] == "dialogue"
    assert second["extra_info"]["question"] == "来访者：我睡不着。\n咨询师：多久了？\n来访者：一个月。"
    alone = verl.dialogue_row(Dialogue("e", "own", dialogue.turns[:2]), "train", 0)
    assert alone["extra_info"]["question"] == "我睡不着。" and len(alone["prompt"]) == 1


def test_a_dialogue_that_no_model_can_answer_and_one_of_a_benchmark_are_no_prompts():
    where = {"where": "d.jsonl row 7"}
    for turns, why in (
        ([Turn("client", "我睡不着。")], "no counselor turn"),
        ([Turn("counselor", "你好。")], "starts with the counselor"),
        ([Turn("system", "你是")], "no turn"),
    ):
        with pytest.raises(BadInput, match=f"d.jsonl row 7: 'd' cannot be a GRPO prompt: {why}"):
            verl.dialogue_rows([Dialogue("d", "own", turns, where)], "train", 0)
    item = Dialogue("d", "own", [Turn("client", "问"), Turn("counselor", "答")], where | {"benchmark": "CPsyCounE"})
    with pytest.raises(BadInput, match="d.jsonl row 7: CPsyCounE is a benchmark.*train_on_benchmark=true"):
        verl.dialogue_rows([item], "train", 0)
    (row,) = verl.dialogue_rows([item], "train", 5, train_on_benchmark=True)
    assert (row["extra_info"]["index"], row["reward_model"]["ground_truth"]) == (5, "答")


def test_the_prompt_says_nothing_of_key_or_rationale():
    changed = question(answer="B", rationale="完全不同的解析")
    assert question_messages(question()) == question_messages(changed)


def test_case_and_general_questions_have_a_system_prompt_each():
    general, case = question(), question(context="求助者，女性，30岁。")
    assert question_messages(general)[0]["content"] == render("system_general")
    assert question_messages(case)[0]["content"] == render("system_case")
    assert question_messages(case)[1]["content"].startswith("案例：求助者，女性，30岁。\n\n多选题：")
    for name in ("system_general", "system_case"):
        assert "<think></think>" in render(name)


def test_a_template_variable_that_is_missing_is_an_error():
    with pytest.raises(Exception, match="stem"):
        render("question", context="", kind="single", options=[])


def test_a_benchmark_is_refused_as_training_data(pceb, tmp_path):
    item = next(q for q in benchmark.read(pceb) if isinstance(q, Question) and q.kind == "single")
    for write in (
        lambda **k: llama_factory.write(tmp_path, [item], **k),
        lambda **k: len(verl.question_rows([item], "train", **k)),
    ):
        with pytest.raises(BadInput, match="train_on_benchmark=true") as error:
            write()
        assert item.meta["where"] in str(error.value)
        assert write(train_on_benchmark=True) == 1


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([question(), question()], "t.csv row 7: the id 'q1' stands already at t.csv row 7"),
        ([question(rationale=" ")], "t.csv row 7: 'q1' has no rationale"),
        ([question(rationale="a</think>b")], "a mark of a model's turn or thought: '</think>'; take it out"),
        ([question(rationale="来访者中心。故选A。")], "a rationale that ends in another answer: '故选A。'; the key is"),
        ([question(rationale="It is learnt. The answer is A.")], "a rationale that ends in another answer"),
        ([question(kind="open", options=[], answer="")], "open question"),
    ],
)
def test_what_would_be_dropped_or_mistrained_is_refused(tmp_path, questions, message):
    with pytest.raises(BadInput, match=message):
        llama_factory.write(tmp_path, questions)
    assert not (tmp_path / "sft.jsonl").exists()


U, A, S = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "not a list of messages"),
        ("x", "not a list of messages"),
        ([S], "0 messages after the system message"),
        ([U], "1 messages"),
        ([U, A, U], "3 messages"),
        ([A, U], "message 1 has the role 'assistant', expected 'user'"),
        ([U, U], "message 2 has the role 'user'"),
        ([U, {"role": "therapist", "content": "x"}], "has the role 'therapist'"),
        ([U, {"role": "assistant", "content": " "}], "the assistant message is empty"),
        ([U, {"role": "assistant", "content": None}], "the assistant message is empty"),
        ([{"role": "system", "content": ""}, U, A], "the system message is empty"),
    ],
)
def test_messages_that_llama_factory_would_drop_are_refused(messages, message):
    with pytest.raises(BadInput, match=f"here: .*{message}|here: {message}"):
        llama_factory.check_messages(messages, "here")


def test_messages_that_alternate_are_fine():
    llama_factory.check_messages([S, U, A, U, A], "here")
    llama_factory.check_messages([U, A], "here")


# --- dialogues --------------------------------------------------------------------------------------------------------


def dialogue(*turns: Turn, **meta) -> Dialogue:
    turns = turns or (Turn("client", "问一"), Turn("counselor", "答一", "想一"), Turn("client", "问二"),
                      Turn("counselor", "答二", "想二"))  # fmt: skip
    return Dialogue("d1", "test", list(turns), {"where": "d.jsonl row 7", **meta})


def contents(row: dict) -> list[str]:
    return [message["content"] for message in row["messages"]]


def test_thoughts_stand_in_every_reply_in_the_last_or_in_none():
    first, second = "<think>\n想一\n</think>\n\n答一", "<think>\n想二\n</think>\n\n答二"
    rows = {mode: llama_factory.dialogue_rows(dialogue(), "系统", mode) for mode in llama_factory.THOUGHTS}
    assert [(row["id"], contents(row)) for row in rows["every"]] == [("d1", ["系统", "问一", first, "问二", second])]
    assert [(row["id"], contents(row)) for row in rows["none"]] == [("d1", ["系统", "问一", "答一", "问二", "答二"])]
    assert [(row["id"], contents(row)) for row in rows["last"]] == [
        ("d1/1", ["系统", "问一", first]),
        ("d1/2", ["系统", "问一", "答一", "问二", second]),
    ]
    for row in [row for found in rows.values() for row in found]:
        llama_factory.check_messages(row["messages"], "here")


def test_exporting_leaves_the_dialogue_as_it_was():
    given = dialogue()
    for mode in llama_factory.THOUGHTS:
        llama_factory.dialogue_rows(given, "系统", mode)
    assert given == dialogue()


def test_a_dialogues_own_system_turn_comes_before_ours():
    own = dialogue(Turn("system", "自己的"), Turn("client", "问"), Turn("counselor", "答"))
    for mode in llama_factory.THOUGHTS:
        assert contents(llama_factory.dialogue_rows(own, "系统", mode)[0]) == ["自己的", "问", "答"]


def test_a_clients_last_words_without_an_answer_are_not_trained():
    given = dialogue(Turn("client", "问"), Turn("counselor", "答"), Turn("client", "谢谢"))
    for mode in llama_factory.THOUGHTS:
        (row,) = llama_factory.dialogue_rows(given, "系统", mode)
        assert contents(row) == ["系统", "问", "答"]


def test_written_rows_are_counted_by_row(tmp_path):
    assert llama_factory.write(tmp_path, [question()], [dialogue()], thoughts="last", system="系统") == 3
    rows = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["q1", "d1/1", "d1/2"]
    assert contents(rows[1])[0] == "系统"


ASKS, ANSWERS = Turn("client", "问"), Turn("counselor", "答", "想")


@pytest.mark.parametrize(
    ("turns", "thoughts", "message"),
    [
        ([ASKS, ASKS], "every", "'d1' cannot be trained on: two client turns in a row: 1 and 2"),
        ([ASKS], "every", "no counselor turn"),
        ([ASKS, Turn("counselor", "想</think>答")], "none", "</think> inside a reply: turn 2"),
        ([ASKS, Turn("counselor", "答", "想</think>想")], "last", "</think> inside a thought: turn 2"),
        ([ASKS, ANSWERS, ASKS, Turn("counselor", "答")], "every", "none in counselor turn 2; .*thoughts=none"),
        ([ASKS, Turn("counselor", "答"), ASKS, ANSWERS], "every", "none in counselor turn 1; .*thoughts=last"),
    ],
)
def test_a_dialogue_that_would_teach_something_wrong_is_refused_with_its_place(turns, thoughts, message, tmp_path):
    with pytest.raises(BadInput, match=f"d.jsonl row 7: .*{message}"):
        llama_factory.write(tmp_path, [], [dialogue(*turns)], thoughts=thoughts)
    assert not (tmp_path / "sft.jsonl").exists()


def test_thoughts_in_some_turns_only_can_be_exported_without_any():
    given = dialogue(ASKS, ANSWERS, ASKS, Turn("counselor", "答"))
    assert contents(llama_factory.dialogue_rows(given, "系统", "none")[0]) == ["系统", "问", "答", "问", "答"]


def test_a_thought_in_the_last_turn_only_is_the_row_that_thoughts_last_wants():
    given = dialogue(ASKS, Turn("counselor", "先答"), ASKS, ANSWERS)
    (row,) = llama_factory.dialogue_rows(given, "系统", "last")
    assert row["id"] == "d1/2" and contents(row)[:4] == ["系统", "问", "先答", "问"] and "<think>" in contents(row)[-1]
    fault = llama_factory.unfit(given, "every")
    assert fault and fault.reason.startswith("thoughts in some counselor turns only: none in counselor turn 1")


def test_what_cannot_be_a_row_is_a_reject_and_the_others_go_on():
    asked = selection.settings({"seed": 1, "run": "x", "source": "synthesis", "split": {}})
    good, bad = dialogue(), dialogue(ASKS, ANSWERS, ASKS, Turn("counselor", "答"))
    export = selection.of_synthesised([good, bad], selection.Compared("none given"), asked)
    assert export.dialogues == [good] and [r.code for r in export.rejects] == ["thoughts in some counselor turns only"]
    question = Question("q", "own", "", "single", "题", ["对", "错"], "A", rationale="<think>因为")
    fine = Question("r", "own", "", "single", "题二", ["对", "错"], "A", rationale="因为")
    export = selection.of_questions([question, fine], [], selection.Compared("none given"), asked)
    assert export.sft == [fine] and [r.code for r in export.rejects] == ["a mark of a model's turn or thought"]


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(BadInput, match="thoughts=first: must be one of every, last, none"):
        llama_factory.dialogue_rows(dialogue(), "系统", "first")


def test_an_evaluation_set_of_dialogues_is_refused_as_training_data(tmp_path):
    item = next(cpsycoun.read(real_data("cpsycoun/CPsyCounE")))
    assert isinstance(item, Dialogue)
    with pytest.raises(BadInput, match="CPsyCounE is a benchmark.*train_on_benchmark=true") as error:
        llama_factory.write(tmp_path, [], [item])
    assert item.meta["where"] in str(error.value)
    assert llama_factory.write(tmp_path, [], [item], train_on_benchmark=True) == 1


def test_rejects_are_counted_by_code_and_what_the_recipe_left_out_by_its_detail_too():
    given = [("no answer", ""), ("an empty turn", "turn 2"), ("an empty turn", "turn 4"), (LEFT_OUT, "too long")]
    given += [(LEFT_OUT, "too long"), (LEFT_OUT, "outside the sample"), ("flagged for people", "crisis content")]
    assert count_reasons([Reject(f"q{n}", "x", *why) for n, why in enumerate(given)]) == {
        "no answer": 1, "an empty turn": 2, "left out by the recipe: too long": 2,
        "left out by the recipe: outside the sample": 1, "flagged for people": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rationale",
    [
        "感觉直接。故选A、C。",
        "思维间接，故不选B。",
        "所以不能选B",
        "The answer isn't B.",
        "A good answer is good.",
        "因此这种疗法是CBT。",
        "故选CBT",
    ],
)
def test_a_rationale_that_ends_as_its_key_does_is_fit(rationale):
    assert llama_factory.unfit(question(rationale=rationale)) is None
