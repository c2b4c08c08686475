"""The evaluation stage against a real HTTP server: faults, kills, scoring again, comparing two models."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.prompts import question_messages
from data_pipeline.records import read_questions
from eval.metrics import VERSION
from tests.conftest import REPOSITORY, TABLE, launch, refused
from tests.model_server import Answer, ModelServer, completion

WORDS = ("recipe=demo", "hardware=cpu", "~sets.grpo_prompts", "max_new_tokens=64")


@pytest.fixture(scope="module")
def data(run_name):
    """A run with a data stage: 40 held-out questions. Returns its questions."""
    done = launch("data", "recipe=demo", *TABLE, f"run={run_name}", "split.heldout=40")
    assert done.returncode == 0, done.stderr
    return list(read_questions(Path("runs", run_name, "data/heldout.jsonl")))


@pytest.fixture
def named(run_name, data):
    """Gives names of runs with the same data stage; their folders are deleted afterwards."""
    names = []

    def make(name: str) -> str:
        names.append(f"{run_name}-{name}")
        shutil.copytree(Path("runs", run_name, "data"), Path("runs", names[-1], "data"))
        return names[-1]

    yield make
    for name in names:
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def asked(question) -> str:
    return question_messages(question)[-1]["content"]


def answers(questions, right: float, seed: int = 0) -> dict[str, list[Answer]]:
    """A plan in which a share of the questions is answered rightly, in the form that training teaches."""
    draw, plan = random.Random(seed), {}
    for q in questions:
        letters = q.answer if draw.random() < right else "A" if q.answer != "A" else "B"
        plan[asked(q)] = [Answer(body=completion(f"<think>\n想\n</think>\n\n答案：{letters}"))]
    return plan


def content(answer: Answer) -> str:
    assert isinstance(answer.body, dict)
    return answer.body["choices"][0]["message"]["content"]


def evaluate(name: str, server: ModelServer, *more: str):
    return launch("eval", *WORDS, f"run={name}", f"endpoint.base_url={server.url}", "endpoint.model=tiny", *more)


def metrics(name: str, folder: str = "eval") -> dict:
    return json.loads(Path("runs", name, folder, "metrics.json").read_text())["sets"]["heldout"]["endpoint"]


def test_a_served_model_is_scored_with_counts_and_intervals(data, named):
    name = named("scored")
    with ModelServer(plan=answers(data, 0.7)) as server:
        done = evaluate(name, server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.calls) == 40
        assert server.calls[0].body["max_tokens"] == 64
    found = metrics(name)
    right = sum("答案：" + q.answer in content(a[0])
                for q, a in zip(data, answers(data, 0.7).values(), strict=True))  # fmt: skip
    assert found["accuracy"] == right / 40
    assert found["accuracy_ci"][0] < found["accuracy"] < found["accuracy_ci"][1]
    assert (found["items"], found["unreadable"], found["failed"], found["format_rate"]) == (40, 0, 0, 1.0)
    assert found["readings"]["strict_match"] == found["readings"]["flexible_extract"]
    assert "strict_match" in done.stdout and "flexible_extract" in done.stdout
    shown = [f"{100 * bound:.1f}" for bound in found["accuracy_ci"]]
    assert f"{right / 40:.1%} [{shown[0]}, {shown[1]}]" in done.stdout
    for file in ("responses.endpoint.heldout.jsonl", "report.html"):
        assert Path("runs", name, "eval", file).stat().st_mode & 0o777 == 0o600, file
    page = Path("runs", name, "eval/report.html").read_text()
    assert '<span class="right">' in page and "http://" not in page.replace(server.url, "") and "<script" not in page
    assert re.search(r"^\| tiny \(20\d\d-\d\d-\d\d\) \| 40 \|", Path("runs", name, "eval/report.md").read_text(), re.M)
    again = launch("eval", *WORDS, f"run={name}", f"endpoint.base_url={server.url}", "endpoint.model=tiny")
    assert again.returncode == 0 and "done already" in again.stdout  # the server is gone: nothing was asked


def test_failures_stay_in_the_denominator_and_are_asked_again(data, named):
    name = named("faults")
    plan = answers(data, 1.0)
    keys = list(plan)
    plan[keys[0]] = [Answer(status=500)]
    plan[keys[1]] = [Answer(body=b"")]
    plan[keys[2]] = [Answer(body=b'{"choices": [{"mess')]
    plan[keys[3]] = [Answer(status=429, headers={"Retry-After": "0"})]
    plan[keys[4]] = [Answer(drop=True)]
    plan[keys[5]] = [Answer(status=500), *plan[keys[5]]]  # recovers
    with ModelServer(plan=plan) as server:
        done = evaluate(name, server, "endpoint.attempts=2", "endpoint.timeout_s=5")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "5 requests failed" in done.stderr and "asks them again" in done.stderr
        found = metrics(name)
        assert (found["failed"], found["items"], found["accuracy"]) == (5, 40, 35 / 40)
        asked_before = len(server.calls)
        server.plan = answers(data, 1.0)
        done = evaluate(name, server, "endpoint.attempts=2", "endpoint.timeout_s=5")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.calls) == asked_before + 5
    assert metrics(name)["accuracy"] == 1.0


def test_killed_and_continued_it_repeats_no_finished_request_and_reports_the_same(data, named):
    killed, whole = named("killed"), named("whole")
    words = ("sets.heldout.samples=4", "sets.heldout.temperature=1.0", "endpoint.concurrency=4")
    with ModelServer(latency=0.05, plan=answers(data, 0.5)) as server:
        done = evaluate(whole, server, *words)
        assert done.returncode == 0, done.stderr
        server.calls.clear()
        line = [sys.executable, "-m", "launch.eval", *WORDS, f"run={killed}", f"endpoint.base_url={server.url}",
                "endpoint.model=tiny", *words]  # fmt: skip
        process = subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        while len(server.calls) < 60:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = evaluate(killed, server, *words)
        assert done.returncode == 0, done.stderr
        assert 160 <= len(server.calls) <= 160 + 4  # those in flight at the kill
    same = ("report.md", "metrics.json", "responses.endpoint.heldout.jsonl")
    for file in same:
        texts = [Path("runs", name, "eval", file).read_text().replace(name, "") for name in (killed, whole)]
        assert texts[0] == texts[1], file


def test_stored_responses_are_scored_again_without_a_server(data, named):
    name = named("rescored")
    multi = [q for q in data if q.kind == "multi"]
    plan = answers(data, 1.0)
    for q in multi:
        plan[asked(q)] = [Answer(body=completion(f"答案：{q.answer[0]}"))]
    with ModelServer(plan=plan) as server:
        assert evaluate(name, server).returncode == 0
    done = launch("eval", "rescore", f"run={name}", "elastic_rule=jaccard")
    assert done.returncode == 0, done.stdout + done.stderr
    assert metrics(name, "eval/rescored")["elastic_rule"] == "jaccard"
    assert metrics(name, "eval/rescored")["accuracy"] == metrics(name)["accuracy"]
    refused(launch("eval", "rescore", f"run={name}", "elastic_rule=x"), "elastic_rule=x", "subset, jaccard")
    refused(launch("eval", "rescore", f"run={name}", "temperature=1"), "rescore takes", "temperature")
    refused(launch("eval", "rescore", "run=nobody"), "holds no stored responses")

    stored = Path("runs", name, "eval/responses.endpoint.heldout.jsonl")
    rows = stored.read_text().splitlines()
    stored.write_text("\n".join(rows[:-1]) + "\n")  # as a crashed run would leave it
    refused(launch("eval", "rescore", f"run={name}"), "1 of 40 items have no response", data[-1].id)
    stored.write_text("\n".join([*rows, rows[0].replace(data[0].id, "no/such/item")]) + "\n")
    refused(launch("eval", "rescore", f"run={name}"), "no item with id 'no/such/item'")
    stored.write_text("\n".join(rows) + "\n")
    questions = Path("runs", name, "data/heldout.jsonl")
    questions.write_text(questions.read_text().replace(data[0].stem, data[0].stem + "？"))
    refused(launch("eval", "rescore", f"run={name}"), "another version of the questions")


def test_two_models_are_compared_item_by_item(data, named):
    weak, strong = named("weak"), named("strong")
    for name, right in ((weak, 0.2), (strong, 0.9)):
        with ModelServer(plan=answers(data, right, seed=1)) as server:
            assert evaluate(name, server).returncode == 0
    done = launch("eval", "compare", weak, f"{strong}/endpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "better" in done.stdout and "single" in done.stdout
    same = launch("eval", "compare", weak, weak).stdout
    assert "unclear" in same and "+0.0% to +0.0%" not in same
    refused(launch("eval", "compare", weak), "compare takes two runs")
    refused(launch("eval", "compare", weak, "nobody"), "has no evaluation")
    refused(launch("eval", "compare", weak, f"{strong}/sft"), "has evaluated endpoint, not sft")
    asked_of = Path("runs", weak, "eval/asked.json")
    asked_of.write_text(asked_of.read_text().replace(f'"version": "{VERSION}"', '"version": "3"'))
    refused(launch("eval", "compare", weak, strong), f"{weak}/endpoint is scored by version 3 of the metrics",
            f"{strong}/endpoint by {VERSION}", f"evaluate {weak}/endpoint again under another run=NAME")  # fmt: skip


def test_both_readings_stand_side_by_side_and_a_thought_that_the_template_opened_is_told(data, named):
    name = named("readings")
    plan = answers(data, 1.0)
    for q in data[:10]:  # right, but not in the form
        plan[asked(q)] = [Answer(body=completion(f"因此正确答案是{q.answer}。"))]
    with ModelServer(plan=plan) as server:
        done = evaluate(name, server)
    assert done.returncode == 0, done.stdout + done.stderr
    found = metrics(name)
    readings = found["readings"]
    assert readings["flexible_extract"]["accuracy"] == readings["flexible_extract"]["readable"] == 1.0
    assert readings["strict_match"]["accuracy"] == readings["strict_match"]["readable"] == 0.75 == found["format_rate"]
    assert (found["accuracy"], found["strict_match"]) == (1.0, 0.75)
    assert "closes a thought" not in done.stdout
    report = Path("runs", name, "eval/report.md").read_text()
    assert "| checkpoint | items | flexible_extract | strict_match | single |" in report
    rows = [json.loads(line) for line in Path("runs", name, "eval/responses.endpoint.heldout.jsonl").open()]
    assert [row["strict_match"] for row in rows] == [None if n < 10 else q.answer for n, q in enumerate(data)]

    name = named("opened")
    plan = {asked(q): [Answer(body=completion(f"想\n</think>\n\n答案：{q.answer}"))] for q in data}
    with ModelServer(plan=plan) as server:
        done = evaluate(name, server)
    assert "every response closes a thought that nothing opened" in done.stdout and metrics(name)["accuracy"] == 0
    assert "every response closes a thought" in Path("runs", name, "eval/report.md").read_text()
    done = launch("eval", "rescore", f"run={name}", "think_prefilled=true")
    assert done.returncode == 0 and "closes a thought" not in done.stdout
    both = metrics(name, "eval/rescored")["readings"]
    assert both["strict_match"]["accuracy"] == both["flexible_extract"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sets.heldout.samples=0", "sets.heldout.samples=0: must be a positive whole number"),
        ("sets.heldout.temperature=hot", "sets.heldout.temperature='hot': Input should be a valid number"),
        ("sets.heldout.sample=2", "sets.heldout: unknown sample; known are file, benchmark"),
        ("bootstrap=1", "bootstrap=1: Input should be greater than or equal to 100"),
        ("checkpoint=sfft", "checkpoint=sfft: known are base, sft, grpo and all"),
        ("sets.x={benchmark: pcebb, path: x}", "Did you mean pceb?"),
        ("sets.x={benchmark: pceb, path: /nowhere}", "/nowhere: no such folder"),
        ("sets.x={benchmark: pceb, path: x, option: 1}", "unknown option; known are"),
        (
            "sets.x={benchmark: cpsyexam, path: x, options: {shot: 5}}",
            "sets.x.options: got an unexpected keyword argument 'shot'; its options are split, shots, seed, qa "
            "(eval/benchmarks/cpsyexam.py). Did you mean shots?",
        ),
        ("sets.x={samples: 1}", "takes either file="),
        ("elastic_rule=half", "known are subset, jaccard"),
        ("endpoint.concurrency=0", "endpoint.concurrency=0: Input should be greater than or equal to 1"),
        ("endpoint.api_key_env=sk-123", "not the name of an environment variable"),
    ],
)
def test_settings_that_fit_nothing_are_refused(data, run_name, word, expected):
    message = refused(launch("eval", *WORDS, f"run={run_name}", "endpoint.base_url=http://127.0.0.1:9/v1",
                             "endpoint.model=tiny", word), expected)  # fmt: skip
    assert "sk-123" not in message
    assert not Path("runs", run_name, "eval").exists()


def test_a_server_that_is_not_there_or_refuses_the_key_stops_at_once(data, named):
    name = named("nobody")
    refused(launch("eval", *WORDS, f"run={name}", "endpoint.base_url=http://127.0.0.1:9/v1", "endpoint.model=tiny",
                   "endpoint.attempts=1"), "http://127.0.0.1:9/v1")  # fmt: skip
    plan = {asked(q): [Answer(status=401)] for q in data}
    with ModelServer(plan=plan) as server:
        refused(evaluate(name, server), server.url)
        assert len(server.calls) <= 40
