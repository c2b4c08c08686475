"""What the pages read: runs in every state, large files by their lines, responses by what is known of them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from data_pipeline.records import write_jsonl
from launch.pages import answers, rendering, run_page, texts
from launch.running import overview, trail
from launch.running.lines import Lines, find_id, lines_of, tail
from tests.conftest import launch, refused
from tests.launch.pages import made
from tests.launch.pages.browser import opened


def read(run: str, stage: str) -> overview.StageState:
    found = overview.read_stage(run, stage)
    assert found
    return found


def there(file: Path) -> Lines:
    found = lines_of(file)
    assert found
    return found


def test_a_stage_is_running_stopped_finished_or_of_another_version(run_name):
    folder = made.stage(run_name, "grpo", "running", planned_steps=4)
    assert read(run_name, "grpo").state == overview.STOPPED
    (folder / ".lock").write_text(str(os.getpid()))  # of these tests, whose command names launch
    command = Path("/proc/self/cmdline").read_bytes()
    assert (read(run_name, "grpo").state == overview.RUNNING) == (b"launch" in command)
    (folder / ".lock").write_text("4194999")
    (folder / "metrics.1.jsonl").write_text('{"step": 3, "data": {"critic/score/mean": 0.5}}\n{"step": 4, "da')
    state = read(run_name, "grpo")
    assert (state.done, state.total, state.told, state.share) == (3, 4, "reward 0.50", 0.75)
    made.stage(run_name, "sft", layout=1)
    old = read(run_name, "sft")
    assert old.state == overview.UNREADABLE and "another version" in old.told
    assert overview.read_stage(run_name, "eval") is None
    page = run_page.gather(overview.read_run(run_name))
    said = rendering.environment().get_template("run_parts.html.jinja").render(rendering.context("en", "/", of=page))
    assert "another version of PsyForge" in said
    shutil.rmtree(Path("runs", run_name))


def test_without_a_run_it_says_how_to_make_one():
    said = rendering.environment().get_template("runs.html.jinja").render(rendering.context("zh", "/", runs=[]))
    assert "bash launch/demo.sh" in said and "还没有运行" in said


def test_lines_are_found_by_number_by_text_and_by_id(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"id": f"q{n}", "stem": f"第{n}题 Attachment", "meta": {"id": f"q{n + 1}"}} for n in range(5000)]
    rows[4000]["stem"] = '含"引号"与\n换行'
    write_jsonl(file, rows)
    lines = there(file)
    assert [number for number, _ in lines.slice(10, 3)] == [10, 11, 12]
    assert lines.slice(4999, 10)[0][1]["id"] == "q4999" and lines.slice(5000, 10) == [] and lines.count() == 5000
    assert list(lines.find("ATTACHMENT", 4990)) == list(range(4990, 5000)) and not list(lines.find("没有这样的话"))
    assert list(lines.find('"引号"与\n')) == [4000] and next(lines.find("第77题")) == 77
    assert find_id(file, "q4321") == 4321 and find_id(file, "q5000") is None  # which stands in meta alone
    file.write_bytes(file.read_bytes() + b'{"id": "half')
    assert there(file).count() == 5001 and there(file).record(5000) == {}
    (tmp_path / "empty.jsonl").touch()
    assert there(tmp_path / "empty.jsonl").count() == 0 and find_id(tmp_path / "empty.jsonl", "q1") is None
    assert lines_of(tmp_path / "none.jsonl") is None and tail(tmp_path / "none.log") == []


def test_a_row_is_followed_from_its_passage_to_its_end(run):
    data = overview.read_run(run).path / "data"
    q0, p0 = trail.last_version(data, "q0"), trail.last_version(data, "p0")
    assert q0 and p0
    assert [one.table.key for one in trail.versions(data, q0)] == [
        "questions/1_generate_questions/rows.jsonl", "questions.jsonl"
    ]  # fmt: skip
    assert trail.children(data, p0.record, 3) == ["q0", "q1", "q2"] and trail.children(data, q0.record) == []
    assert trail.endings(data, "q0") == ["held out for evaluation (heldout.jsonl)"]
    assert [fact["code"] for _, fact in trail.facts(data, {"qx"})] == ["no JSON"]
    assert trail.table_of(data, "../../x") is None


def test_responses_are_filtered_by_what_is_known_of_them(run):
    sft = next(one for one in answers.stored(run) if one.checkpoint == "sft")
    about = answers.overview(sft.path)
    assert about.verdicts == {"right": 40, "wrong": 20} and about.differ == 0 and about.odd == 0
    wrong, following, total = answers.chosen(sft.path, answers.Filter(verdict="wrong"), 0, 7)
    assert total == 20 and len(wrong) == 7 and all(not row.acc for _, row in wrong)
    rest, following, _ = answers.chosen(sft.path, answers.Filter(verdict="wrong"), following or 0, 50)
    assert len(rest) == 13 and following is None
    found, _, total = answers.chosen(sft.path, answers.Filter(q="第7题", subject="咨询心理学"), 0, 50)
    assert [row.id for _, row in found] == ["q7"] and total is None
    base = next(one for one in answers.stored(run) if one.checkpoint == "base")
    assert answers.overview(base.path).differ == 60  # flexible-extract reads them, strict-match does not
    assert [row.id for row in answers.of_item(base, "q59")] == ["q59"] and answers.of_item(base, "q60") == []


def test_a_run_as_one_file_asks_nobody(run, tmp_path, browser):
    done = launch("report", f"run={run}", f"folder={tmp_path}", "language=zh")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "report.html"
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o077 == 0 and "<script" not in text.replace("&lt;script", "") and "href=" not in text
    assert "default-src 'none'" in text and "<svg" in text and "同一题的回答并排" in text
    page, asked = browser.new_context().new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    errors = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()] and errors == [] and page.locator(".beside article").count() >= 4
    refused(launch("report", "run=no-such-run"), "no stage has run")
    refused(launch("report", f"run={run}", "language=fr"), "en or zh")


@pytest.mark.slow
def test_a_page_of_a_run_that_is_made_goes_on_by_itself(browser, served, run_name):
    name = f"{run_name}-live"
    folder = made.stage(name, "grpo", "running", planned_steps=8)
    holder = served.process.pid  # a process of launch that lives
    (folder / ".lock").write_text(str(holder))
    metrics = folder / "metrics.1.jsonl"
    metrics.write_text(json.dumps({"step": 2, "data": {"critic/score/mean": 0.1}}) + "\n")
    try:
        page = opened(browser, served)
        page.goto(f"{served.origin}/runs/{name}")
        assert page.get_by_text("2 / 8").count() == 1
        with metrics.open("a") as file:
            file.write(json.dumps({"step": 5, "data": {"critic/score/mean": 0.2}}) + "\n")
        page.get_by_text("5 / 8").wait_for(timeout=8000)
        made.stage(name, "grpo", "finished", planned_steps=8, counts={})
        page.locator("[data-stage=grpo] .state.finished").wait_for(timeout=8000)
    finally:
        shutil.rmtree(Path("runs", name))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90000, "1 d 1 h"), (None, "")]
)
def test_durations(seconds, told):
    assert texts.duration(seconds) == told


def test_unseen_signs_are_named_and_text_stays():
    assert texts.visible("a\u202eb\x1b[0m\r\n你好\t") == "a\\u202eb\\u001b[0m\n你好\t"
