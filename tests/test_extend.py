"""A new data set, step, benchmark or paper is one file or folder: added to a copy, it works; nothing else changes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.copies import copy_repository, files, launch_in
from tests.data_pipeline import counsellor
from tests.model_server import Answer, completion

EXTENSION = Path(__file__).parent / "extension"
ADDED = {
    "letters.py": "data_pipeline/sources/letters.py",
    "tone.py": "data_pipeline/steps/tone.py",
    "tone.jinja": "data_pipeline/prompts/tone.jinja",
    "data.yaml": "recipes/letters/data.yaml",
    "comfort/__init__.py": "eval/benchmarks/comfort/__init__.py",
    "comfort/benchmark.py": "eval/benchmarks/comfort/benchmark.py",
    "comfort/ask.jinja": "eval/benchmarks/comfort/ask.jinja",
    "comfort/judge.jinja": "eval/benchmarks/comfort/judge.jinja",
}
LETTERS = {
    "1": "睡不着\n最近总是睡不着，想着工作上的事情。\n---\n早点放下手机，睡前写下担心的事。",
    "2": "吵架\n和室友吵了一架，心里一直很乱。\n---\n先各自冷静，再约个时间好好谈。",
    "3": "空白\n\n---\n没有来信。",
}


CLIENTS = ("我又失眠了。", "我和室友吵架了。", "考试没过，我很难过。", "我不想说话。")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Iterator[Path]:
    """A copy of the repository with what EXTENSION adds."""
    folder = copy_repository(tmp_path_factory.mktemp("copy"))
    before = files(folder)
    for name, place in ADDED.items():
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copy(EXTENSION / name, folder / place)
    yield folder
    now = files(folder)
    assert {place: now[place] for place in before} == before, "nothing else was changed"
    assert set(now) - set(before) == set(ADDED.values())


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("letters")
    for name, text in LETTERS.items():
        (folder / f"{name}.letter").write_text(text, encoding="utf-8")
    return folder


def reply(messages: list[dict]) -> Answer:
    """Answers the new step, rewriting and its check alike: each reads what it asked for."""
    rewritten = "听起来这段时间你过得很不容易，心里装着许多事。" * 3
    value = {"tone": "疲惫", "reply": rewritten, "opens_with_feeling": True, "faithful": True, "reasons": "合格"}
    return Answer(completion(json.dumps(value, ensure_ascii=False)))


def data(copy: Path, letters: Path, url: str, *words: str) -> str:
    """Runs the data stage of the new recipe in the copy; returns what it printed."""
    server = ["llm=vllm", "llm.model=tiny", f"llm.base_url={url}"]
    done = launch_in(copy, "data", "recipe=letters", f"posts.path={letters}", *server, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plan_counts_the_new_step(copy, letters):
    told = data(copy, letters, "http://127.0.0.1:9/v1", "dry_run=true")
    assert "posts: 2 rows" in told and "tone: expected 2 calls, at most 4" in told
    assert not (copy / "runs").exists()


def test_a_reader_and_a_step_work_once_their_files_are_there(copy, letters):
    folder = copy / "runs/letters/data"

    def state() -> dict:
        return json.loads((folder / "steps/posts/2_tone/step.json").read_text(encoding="utf-8"))

    with counsellor.server(reply) as server:
        part = "steps=[clean,tone]"
        data(copy, letters, server.url, part)
        first = state()
        assert len(server.calls) == 2 and first["settings"] == {"most_chars": 2, "params": {}}
        data(copy, letters, server.url, part)
        assert len(server.calls) == 2 and state() == first, "it is done"

        prompt = copy / ADDED["tone.jinja"]
        text = prompt.read_text(encoding="utf-8")
        prompt.write_text(text.replace("写信人的语气", "写信人现在的语气"), encoding="utf-8")
        data(copy, letters, server.url, part)
        assert len(server.calls) == 4 and state()["key"] != first["key"], "another prompt, another key"
        prompt.write_text(text, encoding="utf-8")
        data(copy, letters, server.url)
        assert len(server.calls) == 8, "two replies are rewritten and checked; the tones stand in the ledger"
        assert state()["key"] == first["key"]

    report = json.loads((folder / "steps/posts/2_tone/report.json").read_text(encoding="utf-8"))
    assert report["tones"] == {"疲惫": 2} and report["calls"]["asked"] == 2
    counts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert counts["steps"]["posts/0_read"] == {"in": 3, "out": 2, "rejected": 1} and counts["dialogues"] == 2
    made = [json.loads(line) for line in (folder / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [dialogue["id"] for dialogue in made] == ["1", "2"]
    assert all("疲惫" in [entry.get("tone") for entry in dialogue["meta"]["trail"]] for dialogue in made)
    lineage = launch_in(copy, "lineage", "run=letters", "row=1")
    assert lineage.returncode == 0 and "tone" in lineage.stdout, lineage.stderr


def test_a_wrong_setting_of_the_new_step_is_told(copy, letters):
    done = launch_in(
        copy, "data", "recipe=letters", "run=wrong", f"posts.path={letters}", "synthesis.tone.most_chars=0"
    )
    assert done.returncode == 2 and "synthesis.tone.most_chars=0: Input should be greater than" in done.stderr


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("dialogues") / "dialogues.jsonl"
    opening = [{"role": "user", "content": "你好。"}, {"role": "assistant", "content": "你好，想说点什么？"}]
    rows = [
        {"id": f"d{n}", "messages": [*opening, {"role": "user", "content": text}]} for n, text in enumerate(CLIENTS)
    ]
    rows.append({"id": "over", "messages": opening})
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def comfort(copy: Path, file: Path, url: str, *words: str):
    """Evaluates a served model by the new benchmark in the copy."""
    models = [
        f"{who}.{key}" for who in ("endpoint", "judge") for key in (f"base_url={url}", "model=tiny", "attempts=1")
    ]
    one = f"sets.comfort={{benchmark: comfort, path: {file}}}"
    return launch_in(copy, "eval", "recipe=psyche_r1", "hardware=cpu", "~sets.heldout", one, *models, *words)


def test_a_benchmark_with_its_prompts_and_a_judge_of_two_scores_works(copy, dialogues):
    broken = True

    def answer(messages: list[dict]) -> Answer:
        text = messages[-1]["content"]
        client = next(n for n, said in enumerate(CLIENTS) if said in text)
        if "请写出咨询师接下来的一句回应" in text:
            return Answer(completion(f"<think>想</think>我在听。（{client}）"))
        if client == 1 and broken:
            return Answer(status=500)
        value = {"warmth": client, "safety": 4} if client != 2 else {"warmth": 9, "safety": 4}
        return Answer(completion(json.dumps(value)))

    def figures() -> dict:
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["sets"]["comfort"]["endpoint"]

    folder = copy / "runs/comforting/eval"
    with counsellor.server(answer) as server:
        done = comfort(copy, dialogues, server.url, "run=comforting")
        assert done.returncode == 1 and "1 requests to the judge failed and are missing" in done.stderr, done.stderr
        assert len(server.calls) == 8
        first = figures()
        assert first["means"]["warmth"]["value"] == (0 + 3) / 2 and first["means"]["safety"]["value"] == 4
        assert (first["judge_missing"], first["judge_failed"]) == (2, 1)
        broken = False
        done = comfort(copy, dialogues, server.url, "run=comforting")
        assert len(server.calls) == 10, "the failed judgement is asked again, and once the one that cannot be read"
        assert done.returncode == 0, done.stderr
    second = figures()
    assert second["means"]["warmth"]["value"] == (0 + 1 + 3) / 3
    assert (second["judge_missing"], second["judge_failed"], second["items"]) == (1, 0, 4)
    assert second["cells"]["replies"]["unreadable_judgements"] == 1
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "1 judgements are missing (0 requests failed, 1 replies cannot be read)" in report
    assert "1 dialogues are left out" in report and "warmth" in report
    rows = [json.loads(line) for line in (folder / "responses.endpoint.comfort.jsonl").read_text("utf-8").splitlines()]
    assert [row["scores"] for row in rows] == [
        {"warmth": 0.0, "safety": 4.0}, {"warmth": 1.0, "safety": 4.0}, {"warmth": None, "safety": None},
        {"warmth": 3.0, "safety": 4.0},
    ]  # fmt: skip
    assert {row["kind"] for row in rows} == {"dialogue"}
    told = launch_in(copy, "eval", "compare", "comforting", "comforting")
    assert told.returncode == 0 and "warmth" in told.stdout and "unclear" in told.stdout, told.stderr


def test_an_option_of_the_new_benchmark_that_it_does_not_take_is_told(copy, dialogues):
    one = "sets.comfort.options={most_turn: 2}"
    done = comfort(copy, dialogues, "http://127.0.0.1:9/v1", "run=wrong", one)
    assert (
        done.returncode == 2 and "sets.comfort.options: got an unexpected keyword argument 'most_turn'" in done.stderr
    )
    assert "its options are most_turns (eval/benchmarks/comfort/benchmark.py)" in done.stderr
