"""The plan of calls beside what a real server counts: never above `at most`, near `expected` where all goes well."""

import json
import resource
import shutil
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.llm.completions import count_tokens
from data_pipeline.records import write_jsonl
from data_pipeline.steps import Size, find_step
from data_pipeline.synthesis import cost_plan
from data_pipeline.synthesis.configuration import Configuration, configuration
from data_pipeline.synthesis.run import read_source, run
from launch.cli import arguments
from launch.cli.configuration import as_dict, compose_stage
from tests.conftest import REPOSITORY, launch
from tests.data_pipeline import counsellor, examiner
from tests.model_server import Answer, completion

CORPUS = REPOSITORY / "data_pipeline/samples/corpus"
SIZES = (2, 6, 15)
NUMBERS = ("expected", "most", "expected_tokens", "most_tokens", "cost")
SELECTORS = "selectors={small: {model: small}, large: {model: large}}"


def composed(*words: str) -> Configuration:
    command = arguments.parse(arguments.DATA, ["run=planned", "llm=vllm", "llm.model=tiny", *words])
    return configuration(as_dict(compose_stage(arguments.DATA, command)))


def psyche_r1(folder: Path, size: int, *words: str) -> Configuration:
    """The first passages and posts of the corpus."""
    (folder / "passages").mkdir()
    for number, file in enumerate(sorted((CORPUS / "passages").rglob("*.*"))[:size]):
        shutil.copy(file, folder / "passages" / f"{number}{file.suffix}")
    config = composed("recipe=psyche_r1", SELECTORS, f"passages={folder}/passages", *words)
    return config.model_copy(update={"posts": posts(folder, size)})


def psyllm(folder: Path, size: int, *words: str) -> Configuration:
    """The first posts of the corpus, and as many dialogues: of one to eight rounds, some in a crisis, some open."""
    roles = {"system": "system", "client": "user", "counselor": "assistant"}
    talks = [
        {"id": talk.id, "messages": [{"role": roles[turn.role], "content": turn.content} for turn in talk.turns]}
        for talk in counsellor.dialogues(size)
    ]
    write_jsonl(folder / "dialogues.jsonl", talks)
    given = {"source": "messages", "path": str(folder / "dialogues.jsonl")}
    config = composed("recipe=psyllm", *words)
    return config.model_copy(update={"posts": posts(folder, size), "dialogues": given})


def posts(folder: Path, size: int) -> str:
    lines = (CORPUS / "posts.jsonl").read_text(encoding="utf-8").splitlines()[:size]
    (folder / "posts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "posts.jsonl")


def planned(config: Configuration) -> dict[str, cost_plan.StepPlan]:
    """Returns {step: its plan over all pipelines} of the steps that ask."""
    found: dict[str, cost_plan.StepPlan] = {}
    for step in cost_plan.plan(config):
        if not isinstance(step, cost_plan.Incoming) and step.most:
            before = found.get(step.step)
            numbers = {name: getattr(step, name) + getattr(before, name, 0) for name in NUMBERS if getattr(step, name)}
            found[step.step] = replace(step, **numbers)
    return found


def with_max_tokens(config: Configuration, most: int) -> Configuration:
    synthesis = dict(config.synthesis)
    for name in config.wanted():
        if find_step(name, "the test").asks:
            given = synthesis.get(name) or {}
            synthesis[name] = {**given, "params": {**given.get("params", {}), "max_tokens": most}}
    return config.model_copy(update={"synthesis": synthesis})


@dataclass
class Counted:
    """What the server was asked, by step: calls, and tokens of prompts and replies as the plan guesses them."""

    calls: Counter
    prompts: Counter
    replies: Counter


def counted(config: Configuration, folder: Path, reply) -> Counted:
    """Runs the synthesis with a server that replies so; the client asks once where it would ask a fault again."""
    step_of = counsellor.step_of if "plan_dialogue" in config.pipelines["posts"] else examiner.step_of
    found = Counted(Counter(), Counter(), Counter())

    def counting(messages: list[dict]) -> Answer:
        said = reply(messages)
        body = said.body if isinstance(said, Answer) else completion(said)
        assert isinstance(body, dict)
        step, told = step_of(messages), json.dumps(body["choices"][0]["message"], ensure_ascii=False)
        found.calls[step] += 1
        found.prompts[step] += count_tokens({"messages": messages})[0]
        found.replies[step] += len(told.encode()) // 4
        return Answer(body)

    with counsellor.server(counting) as server:
        base = {**(config.llm or {}), "base_url": server.url, "attempts": 1}
        run(config.model_copy(update={"llm": base}), folder, lambda text: None)
        assert len(server.calls) == found.calls.total()
    return found


def kept(found: Counted, plan: dict[str, cost_plan.StepPlan]) -> None:
    """Asserts that no step, and not all together, asked more than the plan's at most."""
    print({step: (one.expected, found.calls[step], one.most) for step, one in plan.items()})
    assert set(found.calls) <= set(plan)
    assert {step: n for step, n in found.calls.items() if n > plan[step].most} == {}
    assert found.calls.total() <= sum(one.most for one in plan.values())
    tokens = found.prompts + found.replies
    limits = {step: one.most_tokens for step, one in plan.items() if one.most_tokens is not None}
    assert {step: tokens[step] for step, limit in limits.items() if tokens[step] > limit} == {}


def far(expected: dict[str, float], found: Counter, factor: float) -> dict[str, tuple[float, float]]:
    """Returns {step, or "all": (expected, found)} of those that are further apart than the factor."""
    pairs = {step: (number, found[step]) for step, number in expected.items()}
    pairs["all"] = sum(expected.values()), found.total()
    return {step: pair for step, pair in pairs.items() if not 1 / factor <= pair[0] / max(pair[1], 1) <= factor}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("recipe", "model"), [(psyche_r1, examiner), (psyllm, counsellor)], ids=["psyche_r1", "psyllm"]
)
def test_a_model_that_does_what_it_is_asked_is_asked_as_expected(tmp_path, recipe, model, size):
    config = recipe(tmp_path, size)
    plan = planned(config)
    found = counted(config, tmp_path / "run", model.answer)
    kept(found, plan)
    assert far({step: one.expected for step, one in plan.items()}, found.calls, 1.5) == {}
    prompts = planned(with_max_tokens(config, 1))  # replies as good as without tokens
    for step in {"generate_questions", "filter_quality", "select_challenging", "plan_dialogue"} & set(plan):
        assert 0.5 <= prompts[step].expected_tokens / found.prompts[step] <= 2, step  # others show the model's thoughts


# --- models that do not do what they are asked ------------------------------------------------------------------------


def invalid_once(answer):
    """Every first reply that should be JSON is none; the repair is in order."""

    def reply(messages):
        said = answer(messages)
        text = said if isinstance(said, str) else said.body["choices"][0]["message"]["content"]
        return "没有JSON" if text.startswith("{") and len(messages) == 1 else said

    return reply


def never_json(answer):
    def reply(messages):
        return "没有JSON" if len(messages) == 1 or messages[0]["role"] != "system" else answer(messages)

    return reply


def more_questions(messages):
    if examiner.prompt_of(messages) == "generate_questions":
        return json.dumps(examiner.questions(messages[0]["content"], times=3))
    return examiner.answer(messages)


def never_right(messages):
    if examiner.prompt_of(messages) in ("write_rationales", "select_challenging"):
        return examiner.solved(messages, right=False)
    return examiner.answer(messages)


def as_long_as_can_be():
    """Of a counselling dialogue: the most rounds, and as many tries at everything as a step makes."""
    seen = Counter()

    def reply(messages):
        step, key = counsellor.step_of(messages), counsellor.digest(messages)
        seen[key] += 1
        if step == "reason_reply":  # every turn anew: the first try has no thought
            return "嗯。" if seen[key] == 1 else counsellor.answer(messages)
        if len(messages) == 1:  # both samples are no JSON at first
            return "没有JSON"
        again = seen[key] == 2  # the first sample's repair is of no use either
        if step == "plan_dialogue":
            return json.dumps({"emotion": "累", "rounds": 3, "themes": [f"主题{n}" for n in range(3 * again)]})
        return counsellor.answer(messages) if again else "{}"

    return reply


def too_many_rounds(messages):
    if counsellor.step_of(messages) == "plan_dialogue":
        return json.dumps({"emotion": "累", "rounds": 9, "themes": [f"第{n}" for n in range(9)]})
    return counsellor.answer(messages)


def nonsense(messages):
    return "……"


WORST = {
    "invalid once": (psyche_r1, invalid_once(examiner.answer)),
    "never JSON": (psyche_r1, never_json(examiner.answer)),
    "more questions": (psyche_r1, more_questions),
    "more questions, invalid once": (psyche_r1, invalid_once(more_questions)),
    "never right": (psyche_r1, never_right),
    "nonsense": (psyche_r1, nonsense),
    "counselling: invalid once": (psyllm, invalid_once(counsellor.answer)),
    "counselling: never JSON": (psyllm, never_json(counsellor.answer)),
    "counselling: too many rounds": (psyllm, too_many_rounds),
    "counselling: nonsense": (psyllm, nonsense),
}


@pytest.mark.parametrize("name", WORST)
def test_no_model_makes_a_step_ask_more_than_at_most(tmp_path, name):
    recipe, reply = WORST[name]
    config = with_max_tokens(recipe(tmp_path, 6), 4000)
    kept(counted(config, tmp_path / "run", reply), planned(config))


def test_at_most_is_no_more_than_what_can_be(tmp_path):
    """Psyche-R1 with each reply repaired; PsyLLM with three rounds, where each reply is of use at the last try."""
    for name, recipe, reply in (
        ("psyche_r1", psyche_r1, invalid_once(examiner.answer)),
        ("psyllm", psyllm, as_long_as_can_be()),
    ):
        (folder := tmp_path / name).mkdir()
        config = recipe(folder, 6)
        plan, found = planned(config), counted(config, folder / "run", reply)
        kept(found, plan)
        unreached = {step: one.most for step, one in plan.items() if found.calls[step] != one.most}
        assert set(unreached) <= {"reason_reply"}  # at most one turn more, where last words were flagged
        assert found.calls["reason_reply"] >= unreached.get("reason_reply", 0) - 2 * 2 * 6


# --- what a dry run prints --------------------------------------------------------------------------------------------


def test_a_line_for_each_step_and_their_sum(tmp_path):
    prices = ("llm.input_price=1", "llm.output_price=2")
    lines = cost_plan.lines(cost_plan.plan(psyche_r1(tmp_path, 2, *prices)))
    assert [line.split(":")[0].strip() for line in lines[:-1]] == [
        "questions", "clean", "generate_questions", "deduplicate", "filter_quality", "review", "write_rationales",
        "select_challenging", "posts", "clean", "deduplicate", "rewrite_empathy", "all steps",
    ]  # fmt: skip
    assert lines[0].startswith("questions: 2 rows") and lines[1] == "  clean: asks nobody"
    assert lines[2].startswith("  generate_questions: expected 2 calls, at most 4; expected")
    assert lines[-2].startswith("all steps: expected 86 calls, at most 122; expected")
    assert "tokens, unbounded without max_tokens, cost 0.0" in lines[-2]


def test_rows_are_unknown_where_data_is_missing(tmp_path):
    config = psyche_r1(tmp_path, 2)
    missing = config.model_copy(update={"passages": str(tmp_path / "nowhere")})
    lines = cost_plan.lines(cost_plan.plan(missing))
    assert lines[0] == f"questions: rows unknown, {tmp_path}/nowhere is not there"
    assert lines[-2].startswith("all steps whose rows are known: expected 4 calls, at most 8")
    assert lines[-2].endswith("cost unknown without prices")
    far = cost_plan.Incoming("posts", "s3://bucket/posts.jsonl")
    assert far.line == "posts: rows unknown, s3://bucket/posts.jsonl: a dry run fetches nothing"
    nothing = missing.model_copy(update={"posts": str(tmp_path / "nothing")})
    assert [line[:12] for line in cost_plan.lines(cost_plan.plan(nothing))] == ["questions: r", "posts: rows "]


def test_equal_selectors_are_asked_once(tmp_path):
    config = psyche_r1(tmp_path, 2).model_copy(update={"selectors": {"a": {}, "b": {"model": "tiny"}}, "posts": None})
    plan = planned(config)["select_challenging"]
    found = counted(config, tmp_path / "run", examiner.answer)
    assert (plan.expected, found.calls["select_challenging"], plan.most) == (10, 10, 20)


def test_a_step_with_a_model_of_its_own_is_counted_at_its_prices(tmp_path):
    config = psyllm(tmp_path, 2, "llm.input_price=1", "llm.output_price=1")
    own = {"reason_reply": {"model": "thinks", "input_price": 10, "output_price": 10}}
    base, dear = planned(config), planned(config.model_copy(update={"models": own}))
    assert dear["reason_reply"].cost == pytest.approx(10 * (base["reason_reply"].cost or 0)) != 0
    assert dear["plan_dialogue"] == base["plan_dialogue"]


def test_what_the_run_would_refuse_is_refused(tmp_path):
    config = psyche_r1(tmp_path, 2)
    for update in ({"selectors": {}}, {"synthesis": {"clean": {"nothing": 1}}}, {"steps": ["clena"]}):
        with pytest.raises(BadInput):
            list(cost_plan.plan(config.model_copy(update=update)))


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_takes_one_pass_of_reading(tmp_path):
    rows = [
        {"id": f"p{n}", "title": f"第{n}", "text": f"第{n}件事让我睡不着。" * 20, "replies": ["嗯"]}
        for n in range(30_000)
    ]
    write_jsonl(tmp_path / "posts.jsonl", rows)
    config = composed("recipe=psyche_r1", f"posts={tmp_path}/posts.jsonl")
    source = config.sources()["posts"]

    def seconds(work) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    reading, planning = zip(
        *((seconds(lambda: deque(read_source(config, "posts", source), 0)), seconds(lambda: planned(config)))
          for _ in range(3)), strict=True
    )  # fmt: skip
    assert min(planning) <= 1.5 * min(reading) + 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["posts.jsonl"]


def test_a_dry_run_without_data_takes_less_than_a_second_and_a_half():
    """By the processor's clock: whoever else is at work on the machine does not count."""
    words = ["recipe=psyche_r1", "run=never-planned", "passages=/nowhere", "llm=vllm", "llm.model=m", "dry_run=true"]
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = launch("data", *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0 and "questions: rows unknown, /nowhere is not there" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(
        "recipe=psyche_r1 run=never-planned passages=/nowhere llm=vllm llm.model=m"
    )
    assert min(taken) < 1.5


def test_the_scale_of_a_run_is_told_at_a_stated_rate(tmp_path):
    entries = list(cost_plan.plan(psyche_r1(tmp_path, 2)))
    steps = [entry for entry in entries if isinstance(entry, cost_plan.StepPlan)]
    tokens = sum(step.expected_tokens for step in steps)
    (line,) = cost_plan.scale(entries, (tokens / 7200, "stated"))
    assert line.startswith(f"scale: 4 rows, 86 calls, {tokens:,.0f} tokens: 2.0 GPU hours at ")
    assert line.endswith(" tokens/s a server (stated); 0.00 GiB of disk (docs/scale.md)")
    many = cost_plan.Incoming("posts", "x", Size(1e7, 2.2e9))
    clean = cost_plan.StepPlan("posts", "clean", written=7.8e9)
    assert ", 0 tokens: 0.0 GPU hours" in cost_plan.scale([many, clean], (1000, "ours"))[0]
    assert "; 14.53 GiB of disk" in cost_plan.scale([many, clean], (1000, "ours"))[0]
    assert cost_plan.scale([cost_plan.Incoming("posts", "nowhere")], (1000, "ours")) == []
