"""What people and models write is shown as it is: no markup, no command to a terminal, no turned writing."""

import io
import json

import pytest

from data_pipeline.safety.shown import STEERING as STEERS
from data_pipeline.safety.shown import shown, tracked
from eval import report
from eval.contract import Table
from launch.cli import entry
from tests.conftest import launch

STEERING = "\x1b[2J\x07\x9b31m\u202e\u2066\u200f\u2028\r\x00"
FOREIGN = f"[/red] [bold]x[/bold] :smile: <b>y</b> | [a](http://h) ![b](http://h) {STEERING} 你好"


def steers(text: str) -> list[str]:
    return [sign for sign in text if STEERS.match(sign)]


def test_what_steers_is_shown_as_its_code_and_the_rest_stays():
    assert shown("你好\tb\n👩‍👩‍👧 e\u0301 ع") == "你好\tb\n👩‍👩‍👧 e\u0301 ع"
    assert shown("\x1b[2J\u202e\ud800") == "\\u001b[2J\\u202e\\ud800"
    assert steers(shown(FOREIGN)) == []


def test_messages_and_tables_take_it_as_it_stands(monkeypatch):
    out = io.StringIO()
    console = type(entry.console)(file=out, width=200, highlight=False, soft_wrap=True)
    monkeypatch.setattr(entry, "console", console)
    console.print(FOREIGN)
    console.print(FOREIGN, style="bold")
    entry.print_table(FOREIGN, ("head [/b]", FOREIGN), [("[/red]", FOREIGN)])
    told = out.getvalue()
    assert "[/red] [bold]x[/bold] :smile: <b>y</b>" in told and steers(told) == []


def test_bars_take_it_as_it_stands():
    assert list(tracked([1, 2], FOREIGN, 2)) == [1, 2]


def test_pages_and_markdown_take_it_as_it_stands(tmp_path):
    table = Table(FOREIGN, ("a", FOREIGN), [["[/red]\n| b", FOREIGN]])
    page = report.Page(FOREIGN, [report.Section(FOREIGN, [FOREIGN], [table])], [("label", FOREIGN)])
    report.write(tmp_path, page)
    html, markdown = (tmp_path / "report.html").read_text("utf-8"), (tmp_path / "report.md").read_text("utf-8")
    assert "<b>y</b>" not in html and "&lt;b&gt;y" in html and "\\u202e" in html
    assert "<b>" not in markdown and "](http" not in markdown and "![" not in markdown.replace("!\\[", "")
    assert steers(html) == steers(markdown) == []


@pytest.mark.parametrize("kind", ["[/red]", "[bold]x"])
def test_the_data_stage_prints_kinds_of_questions_that_look_like_markup(kind, tmp_path, run_name):
    questions = [
        {"id": n, "question": f"第{n}题：谁提出了依恋理论{n}？", "answer": "A", "options": {"A": "鲍", "B": "皮"},
         "question_type": kind if n == 3 else "single", "kind": "KG", "subject_name": "[/b]\x1b"}
        for n in range(12)
    ]  # fmt: skip
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / "KG-a-b-单项选择题.json"
    file.write_text(json.dumps(questions, ensure_ascii=False), encoding="utf-8")
    words = ("split.grpo=2", "split.heldout=2", "resume=force")
    done = launch("data", "recipe=demo", f"run={run_name}", "source=cpsyexam", f"source_path={tmp_path}", *words)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "a question_type other than single" in done.stdout


def test_a_models_name_that_looks_like_markup_is_asked_and_told(tmp_path, run_name):
    done = launch("chat", "recipe=demo", "endpoint.base_url=http://127.0.0.1:9/v1", "endpoint.model=[/red]x",
                  "once=true", "message=x", "endpoint.attempts=1")  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    done = launch("eval", "recipe=demo", "hardware=cpu", f"run={run_name}", "endpoint.base_url=http://127.0.0.1:9/v1",
                  "endpoint.model=[/red]x", "endpoint.attempts=1")  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr and "Markup" not in done.stderr, done.stderr
