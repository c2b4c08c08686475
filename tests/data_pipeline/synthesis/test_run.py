"""The runner: what stands in a step's folder is whole, what is done is not done again, what is wrong is named."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Post
from data_pipeline.steps import find_step
from data_pipeline.synthesis import keys, run
from data_pipeline.synthesis.configuration import configuration
from tests.conftest import REPOSITORY, launch, refused
from tests.copies import copy_repository, launch_in
from tests.data_pipeline import counsellor
from tests.data_pipeline.synthesis.recipes import PSYLLM, demo
from tests.model_server import Answer

CLEAN, UNIQUE, REWRITTEN = "posts/1_clean", "posts/2_deduplicate", "posts/3_rewrite_empathy"


def ran(folder: Path, **changes) -> list[str]:
    """Runs the demo's posts; returns the steps that were run."""
    said: list[str] = []
    run.run(demo(passages=None, **changes), folder, said.append)
    return [text.split(": ")[1] for text in said]


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files of all steps without their times: step.json holds one."""
    found = {str(file.relative_to(folder)): file for file in (folder / "steps").rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in sorted(found.items()) if not name.endswith("step.json")}


def state(folder: Path, step: str) -> Path:
    return folder / "steps" / step / "step.json"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- steps that fail --------------------------------------------------------------------------------------------------


OTHER = {"clean": {"min_reply": 1}, "deduplicate": {"n": 4}, "rewrite_empathy": {"max_chars": 599}}  # settings


def broken(name: str):
    """Returns the step, raising; a row step once it has had ten rows."""
    step, seen = find_step(name, "the test"), []
    whole: Any = step.row or step.rows

    def look(*_) -> None:
        seen.append(1)
        if step.rows or len(seen) > 10:
            raise RuntimeError("broken")

    def row(*given):
        look()
        return whole(*given)

    async def asking(*given):
        look()
        return await whole(*given)

    if step.rows:
        return replace(step, rows=look)
    return replace(step, row=asking if step.asks else row, many=None)


@pytest.mark.parametrize("name", OTHER)
def test_a_step_that_raises_is_not_done_and_leaves_whole_files(tmp_path, monkeypatch, name):
    steps = [CLEAN, UNIQUE, REWRITTEN]
    place = next(step for step in steps if step.endswith(name))
    ran(tmp_path / "old")
    whole = contents(tmp_path / "old")
    with monkeypatch.context() as patched:
        patched.setattr(f"data_pipeline.steps.{name}.STEP", broken(name))
        for folder, settings in (("new", {}), ("old", {name: OTHER[name]})):
            with pytest.raises(RuntimeError, match="broken"):
                ran(tmp_path / folder, synthesis=settings)
    assert not (tmp_path / "new/steps" / place / "rows.jsonl").exists(), "no half of a file"
    done = [step for step in steps if state(tmp_path / "new", step).exists()]
    assert done == steps[: steps.index(place)]
    assert not state(tmp_path / "old", place).exists(), "its files are of other settings"
    left = contents(tmp_path / "old")
    assert {path: content for path, content in left.items() if not path.endswith(".partial")} == whole
    assert ran(tmp_path / "old") == [name], "only that is made again"
    assert contents(tmp_path / "old") == whole


CHILD = """
import sys
from pathlib import Path
from data_pipeline.synthesis import keys, run
from tests.data_pipeline.synthesis import test_run
run.run(test_run.talks(*sys.argv[1:3], budget=float(sys.argv[4]) or None), Path(sys.argv[3]), print)
"""


def talks(posts: str, url: str, budget: float | None = None):
    llm = {"base_url": url, "model": "tiny", "concurrency": 8, "attempts": 1, "input_price": 1, "output_price": 1}
    return configuration(PSYLLM | {"posts": posts, "dialogues": None, "llm": llm, "budget": budget})


def write_posts(path: Path, posts: list[Post]) -> Path:
    rows = [{"id": p.id, "title": p.title, "text": p.text, "replies": p.replies} for p in posts]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("budget", [0, 1000], ids=["each on its way", "in rounds"])
def test_killed_and_run_again_it_writes_the_same_bytes(tmp_path, budget):
    posts = write_posts(tmp_path / "posts.jsonl", counsellor.posts(40))
    with counsellor.server(latency=0.02) as counselling:
        line = [sys.executable, "-c", CHILD, str(posts), counselling.url, str(tmp_path / "killed"), str(budget)]
        process = subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while len(counselling.calls) < 60 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == -signal.SIGKILL, told
        assert not state(tmp_path / "killed", "posts/6_validate_dialogue").exists()
        config, asked = talks(str(posts), counselling.url, budget or None), []
        for name in ("killed", "whole"):
            asked.append(len(counselling.calls))
            run.run(config, tmp_path / name, lambda text: None)
        assert asked[1] - asked[0] < len(counselling.calls) - asked[1], "what was answered is not asked again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(lines(tmp_path / "killed/steps/posts/6_validate_dialogue/rows.jsonl")) > 20


def test_a_server_that_fails_leaves_rejects_and_no_traceback_and_is_asked_again(tmp_path):
    posts, down = write_posts(tmp_path / "posts.jsonl", counsellor.posts(3)), [True]
    broken = Answer(b"boom", status=500)
    with counsellor.server(lambda messages: broken if down[0] else counsellor.answer(messages)) as counselling:
        made = run.run(talks(str(posts), counselling.url), tmp_path, lambda text: None)
        assert made.dialogues == [] and made.failed == {"posts/3_plan_dialogue": 3}
        assert made.counts["posts/3_plan_dialogue"].rejected == 3
        assert {row["code"] for row in lines(tmp_path / "steps/posts/3_plan_dialogue/rejects.jsonl")} == {"no plan"}
        assert made.counts["posts/6_validate_dialogue"].into == 0, "the steps behind it ran on nothing"
        down[0] = False
        again = run.run(talks(str(posts), counselling.url), tmp_path, lambda text: None)
        assert len(again.dialogues) == 3 and again.failed == {}
        before = len(counselling.calls)
        assert run.run(talks(str(posts), counselling.url), tmp_path, lambda text: None) == again
        assert len(counselling.calls) == before


@pytest.mark.parametrize("budget", [None, 1000], ids=["each on its way", "in rounds"])
def test_what_a_server_will_never_take_is_a_reject_and_ends_no_stage(tmp_path, budget):
    posts = write_posts(tmp_path / "posts.jsonl", counsellor.posts(3))

    def picky(messages):
        refused = counsellor.step_of(messages) == "plan_dialogue" and "第1个问题" in messages[0]["content"]
        return Answer(b"too long", status=400) if refused else counsellor.answer(messages)

    with counsellor.server(picky) as counselling:
        made = run.run(talks(str(posts), counselling.url, budget), tmp_path, lambda text: None)
    assert len(made.dialogues) == 2 and made.failed == {}
    (reject,) = lines(tmp_path / "steps/posts/3_plan_dialogue/rejects.jsonl")
    assert "HTTP 400: too long" in reject["detail"]


# --- what is done -----------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again_and_a_setting_changes_what_depends_on_it(tmp_path):
    assert ran(tmp_path) == ["clean", "deduplicate", "rewrite_empathy"]
    first, times = contents(tmp_path), [state(tmp_path, step).stat().st_mtime_ns for step in (CLEAN, UNIQUE, REWRITTEN)]
    assert ran(tmp_path) == []
    assert [state(tmp_path, step).stat().st_mtime_ns for step in (CLEAN, UNIQUE, REWRITTEN)] == times
    assert ran(tmp_path, synthesis={"rewrite_empathy": {"max_chars": 599}}) == ["rewrite_empathy"]
    assert ran(tmp_path, synthesis={"rewrite_empathy": {"max_chars": 599}, "review": {"size": 3}}) == []
    assert ran(tmp_path) == ["rewrite_empathy"]
    assert ran(tmp_path, synthesis={"clean": {"min_post": 9}}) == ["clean"], "it let the same rows pass"
    assert ran(tmp_path, synthesis={"clean": {"min_post": 100}}) == ["clean", "deduplicate", "rewrite_empathy"]
    assert ran(tmp_path) == ["clean", "deduplicate", "rewrite_empathy"]
    assert contents(tmp_path) == first


def test_the_code_is_hashed_as_it_was_when_the_run_began(tmp_path):
    """What is edited while a run lasts for days is not what made its rows."""
    keys._module.cache_clear()
    hashed: list[int] = []
    run.run(demo(passages=None), tmp_path, lambda text: hashed.append(keys._module.cache_info().misses))
    assert len(set(hashed)) == 1 and hashed[0] > 0


def test_the_steps_that_are_named_run_and_no_others(tmp_path):
    assert ran(tmp_path, steps=["clean"]) == ["clean"]
    with pytest.raises(BadInput, match="steps: posts need deduplicate before; add it to steps="):
        ran(tmp_path, steps=["rewrite_empathy"])
    assert ran(tmp_path, steps=["deduplicate"]) == ["deduplicate"], "what is done need not be named"
    assert ran(tmp_path, steps=["clean", "deduplicate"]) == []
    assert list(run.done_steps(tmp_path / "steps")) == [CLEAN, UNIQUE]
    assert ran(tmp_path) == ["rewrite_empathy"]
    with pytest.raises(BadInput, match=r"steps: no step 'clena'; there is clean, .*Did you mean clean\?"):
        ran(tmp_path, steps=["clena"])


# --- ids --------------------------------------------------------------------------------------------------------------


def test_an_id_may_stand_in_two_sources_but_only_once_in_each(tmp_path, run_name):
    one, two = counsellor.posts(2)
    posts = write_posts(tmp_path / "posts.jsonl", [one, two, replace(one, text="同一个编号，另一段话。")])
    said = {"user": "我最近总是睡不着，白天也很累。", "assistant": "愿意说说是什么时候开始的吗？"}
    talk = {"id": one.id, "messages": [{"role": role, "content": text} for role, text in said.items()]}
    dialogues = tmp_path / "talks.jsonl"
    dialogues.write_text(json.dumps(talk) + "\n")
    words = ["recipe=psyllm", f"run={run_name}", "llm=vllm", "llm.model=m", f"posts={posts}"]
    with counsellor.server() as server:
        words += ["dialogues.source=messages", f"dialogues.path={dialogues}", f"llm.base_url={server.url}"]
        done = launch("data", *words)
    assert done.returncode == 0, done.stderr
    folder = REPOSITORY / "runs" / run_name / "data"
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["steps"]["posts/0_read"] == {"in": 3, "out": 2, "rejected": 1}
    (reject,) = lines(folder / "steps/posts/0_read/rejects.jsonl")
    assert (reject["id"], reject["code"]) == (one.id, "the id stands already")
    assert reject["where"].endswith("row 3") and "row 1; columns: {id: null}" in reject["detail"]
    assert [row["id"] for row in lines(folder / "dialogues.jsonl")] == [one.id, two.id, one.id]


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"synthesis": {"revew": {}}}, r"synthesis: no step 'revew'; .*Did you mean review\?"),
        ({"synthesis": {"review": {"sise": 1}}}, r"synthesis.review: no setting 'sise'; .*Did you mean size\?"),
        ({"synthesis": {"deduplicate": {"threshold": 2}}}, "threshold=2: Input should be less than or equal to 1"),
        ({"synthesis": {"plan_dialogue": {"min_rounds": 4}}}, "synthesis.plan_dialogue: min_rounds=4 is above max_ro"),
        ({"models": {"reason_replies": {}}}, r"models: no step 'reason_replies'; .*Did you mean reason_reply\?"),
    ],
)
def test_what_is_given_to_any_step_is_looked_at_before_the_first_runs(changes, told):
    with pytest.raises(BadInput, match=told):
        demo(**changes)


STEP_FILES = {
    "bare": ("", "data_pipeline/steps/bare.py declares no STEP = Step(takes=..., settings=..., row=... or rows=...)"),
    "silent": (
        'STEP = Step(takes=(Post,), settings=StepSettings, row=print, asks="model", report=print)\n',
        "data_pipeline/steps/silent.py: a step that asks declares row= and calls=",
    ),
    "mute": (
        "STEP = Step(takes=(Post,), settings=StepSettings, row=print)\n",
        "data_pipeline/steps/mute.py: a row step declares report=",
    ),
    "idle": (
        "STEP = Step(takes=(Post,), settings=StepSettings)\n",
        "data_pipeline/steps/idle.py: a step declares either row= or rows=",
    ),
    "loose": (
        "STEP = Step(takes=(Post,), row=print, report=print)\n",
        "data_pipeline/steps/loose.py: Step.__init__() missing 1 required positional argument: 'settings'",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the repository with steps that are wrong, and a recipe with a setting that is."""
    folder = copy_repository(tmp_path_factory.mktemp("copy"))
    for name, (code, _) in STEP_FILES.items():
        head = "from data_pipeline.records import Post\nfrom data_pipeline.steps import Step, StepSettings\n"
        (folder / f"data_pipeline/steps/{name}.py").write_text(head + code)
    for name, text in (("mine", "synthesis: {review: {size: 0}}"), ("next", "defaults: [/mine@_global_: data]")):
        (folder / "recipes" / name).mkdir()
        (folder / "recipes" / name / "data.yaml").write_text(f"# @package _global_\n{text}\nsource: synthesis\n")
    return folder


@pytest.mark.parametrize("name", STEP_FILES)
def test_a_step_file_that_misses_something_is_told_what(copy, name):
    words = ["recipe=demo", "run=x", "passages=null", f"pipelines.posts=[{name}]"]
    refused(launch_in(copy, "data", *words), STEP_FILES[name][1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recipe=mine"], "size=0: Input should be greater than or equal to 1 (recipes/mine/data.yaml)"),
        (["recipe=next"], "size=0: Input should be greater than or equal to 1 (recipes/mine/data.yaml)"),
        (["recipe=mine", "synthesis.review.size=-1"], "size=-1: Input should be greater than or equal to 1\n"),
        (["recipe=demo", "synthesis.review.size=0"], "size=0: Input should be greater than or equal to 1\n"),
    ],
)
def test_a_setting_out_of_bounds_names_key_bound_and_file(copy, words, told):
    message = refused(launch_in(copy, "data", *words, "run=x", "posts=nowhere.jsonl"), told)
    assert message.startswith("error: synthesis.review.size=")
    assert not (copy / "runs/x").exists(), "it is told before anything is written"
