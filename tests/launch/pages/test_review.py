"""People judge records with the keyboard alone; nothing that they said is lost or doubled, whatever dies in between."""

import json
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from urllib.parse import quote

import pytest

from data_pipeline import reviews
from data_pipeline.records import Question
from launch.pages import tasks
from launch.running import overview
from tests.conftest import REPOSITORY, launch
from tests.launch.pages import made
from tests.launch.pages.browser import CHROMIUM, FLAGS, READY, Seen, Served, chromium, serve, serving


@pytest.fixture
def judged(run_name, monkeypatch):
    """A run with a plan for two reviewers, all records for both."""
    data = made.data_stage(run_name, made.questions(60), made.dialogues(10))
    run = overview.read_run(run_name)
    for kind, size in (("question", 40), ("dialogue", 10)):
        for old in (run.path / "reviews").glob("*"):
            if kind in old.name or old.suffix == ".jsonl":
                old.unlink()
        tasks.draw(run, kind, tasks.tables_for(run, kind)[0], size, 1.0, ["li", "王"])
    assert data.is_dir()
    return run


def lines(run: overview.Run, reviewer: str) -> list[reviews.Review]:
    return reviews.read(run.path / "reviews" / f"{reviewer}.jsonl")


class Client:
    """A page without a browser: posts verdicts with the token's cookie."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def post(self, path: str, what: dict, **headers: str) -> tuple[int, dict]:
        port = self.served.origin.rpartition(":")[2]
        request = urllib.request.Request(
            self.served.origin + quote(path), json.dumps(what).encode(),
            {"content-type": "application/json", "origin": self.served.origin,
             "cookie": f"psyforge-{port}={self.served.token}", **headers},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"error": text}


def verdict(task: tasks.Task, key: str, word: str = "accepted", **more) -> dict:
    return {"key": key, "item": task.id, "content": task.content, "verdict": word, "seconds": 1.5, **more}


@pytest.mark.slow
def test_twenty_items_by_keyboard_while_server_and_browser_are_killed(judged):
    where = f"/runs/{quote(judged.name)}/review/question/li"
    port = "7719"
    profile = tempfile.mkdtemp()
    served, seen = serve(f"port={port}", "key_env=KEY_OF_TESTS"), None
    with chromium() as browser:
        api = browser.browser_type
        window = api.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS)
        page = window.pages[0]
        seen = Seen(served.origin)
        seen.watch(page)
        page.goto(served.address)
        page.goto(served.origin + where)
        for n in range(20):
            expect = f"{n + 1} / "
            page.wait_for_function(READY, arg=expect)
            if n == 6:  # the server dies while a verdict is on its way
                served.kill()
            if n in (3, 9):
                page.keyboard.press("r")
                page.keyboard.type(f"因为{n}")
                page.keyboard.press("Control+Enter")
            elif n == 4:
                page.keyboard.press("c")
                page.keyboard.press("Control+a")
                page.keyboard.type("c")
                page.keyboard.press("Control+Enter")
            else:
                page.keyboard.press("us"[n == 5] if n in (5, 8) else "a")
                if n == 8:
                    page.keyboard.press("Control+Enter")
            if n == 6:
                page.get_by_text("waits in this browser").wait_for()
                served = serve(f"port={port}", "key_env=KEY_OF_TESTS")
            if n == 12:  # the browser dies as soon as the verdict is given, the server with it
                served.kill()
                page.wait_for_timeout(300)
                window.close()
                served = serve(f"port={port}", "key_env=KEY_OF_TESTS")
                window = api.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS)
                page = window.pages[0]
                page.goto(served.address)
                page.goto(served.origin + where)
        page.wait_for_function(READY, arg="21 / ")
        window.close()
    served.process.terminate()
    given = lines(judged, "li")
    mine = [task.id for task in made.plan(judged, "question").of("li")]
    assert [one.item for one in given] == mine[:20] and len({one.key for one in given}) == 20
    words = [one.verdict for one in given]
    assert [words[n] for n in (3, 4, 5, 8, 9)] == ["rejected", "corrected", "skipped", "unsure", "rejected"]
    assert given[3].reason == "因为3" and given[4].edits == {"answer": "C"} and 0 < given[0].seconds < 60
    assert not seen.dialogs and not seen.foreign


@pytest.mark.slow
def test_500_verdicts_of_two_reviewers_while_the_server_is_killed_five_times(judged):
    state = {"served": serve("port=7720", "key_env=KEY_OF_TESTS")}
    plan = made.plan(judged, "question")
    sent: dict[str, list[str]] = {"li": [], "王": []}

    def work(name: str) -> None:
        mine, before = plan.of(name), {}
        for n in range(250):
            task, begun = mine[n % len(mine)], time.monotonic()
            what = verdict(task, f"{name}-{n:04}-key", ("accepted", "unsure")[n % 2], before=before.get(task.id, ""))
            while True:
                try:
                    status, said = Client(state["served"]).post(f"/runs/{judged.name}/review/question/{name}", what)
                except (OSError, urllib.error.URLError):
                    time.sleep(0.1)
                    continue
                assert status == 200 and said["saved"], said
                break
            before[task.id] = what["key"]
            sent[name].append(what["key"])
            time.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))  # each ten a second, twenty together

    workers = [threading.Thread(target=work, args=(name,)) for name in sent]
    for worker in workers:
        worker.start()
    for _ in range(5):
        time.sleep(3)
        state["served"].kill()
        state["served"] = serve("port=7720", "key_env=KEY_OF_TESTS")
    for worker in workers:
        worker.join()
    state["served"].process.terminate()
    for name, keys in sent.items():
        assert len(keys) == 250 and [one.key for one in lines(judged, name)] == keys


def test_what_does_not_fit_is_refused_and_told(judged):
    plan = made.plan(judged, "question")
    first, second = plan.of("li")[:2]
    with serving("port=0") as served:
        client, to = Client(served), f"/runs/{judged.name}/review/question/li"
        assert client.post(to, verdict(first, "key-00001"))[0] == 200
        assert client.post(to, verdict(first, "key-00001", before="")) == (200, {"saved": True, "new": False})
        status, said = client.post(to, verdict(first, "key-00002"))  # another tab has judged it
        assert status == 409 and "another tab" in said["error"]
        assert client.post(to, verdict(first, "key-00003", "unsure", before="key-00001"))[0] == 200
        status, said = client.post(to, verdict(second, "key-00004", "rejected"))
        assert status == 400 and "reason" in said["error"]
        status, said = client.post(to, verdict(second, "key-00005", "corrected", edits={"answer": "F"}))
        assert status == 400 and "A to D" in said["error"]
        status, said = client.post(to, verdict(second, "key-00006", "corrected", edits={"answer": "b"}))
        assert status == 400 and "nothing is changed" in said["error"]
        status, said = client.post(to, verdict(second, "key-00007", "corrected", edits={"id": "x"}))
        assert status == 400 and "cannot be corrected" in said["error"]
        status, said = client.post(to, verdict(second, "key-00008") | {"content": "0" * 12})
        assert status == 409 and "changed" in said["error"]
        assert client.post(f"/runs/{judged.name}/review/question/a%2Fb", verdict(second, "key-00009"))[0] in (400, 404)
        assert client.post(f"/runs/{judged.name}/review/question/zhao", verdict(second, "key-00010"))[0] == 400
        file = judged.path / "data/questions.jsonl"
        kept = [row for row in file.read_text(encoding="utf-8").splitlines() if f'"{second.id}"' not in row]
        file.write_text("\n".join(kept) + "\n", encoding="utf-8")
        status, said = client.post(to, verdict(second, "key-00011"))
        assert status == 409 and said["gone"]
        new = {"kind": "rationale", "table": "questions.jsonl", "size": 5, "overlap": 0.5}
        assert client.post(f"/runs/{judged.name}/review", new | {"reviewers": "a/b"})[0] == 400
        assert client.post(f"/runs/{judged.name}/review", new | {"reviewers": "li", "table": "../x"})[0] == 400
        assert client.post(f"/runs/{judged.name}/review", new | {"reviewers": "li"})[0] == 200
        status, said = client.post(f"/runs/{judged.name}/review", new | {"reviewers": "li"})
        assert status == 400 and "already" in said["error"]
    assert [one.key for one in lines(judged, "li")] == ["key-00001", "key-00003"]
    assert (judged.path / "reviews/li.jsonl").stat().st_mode & 0o077 == 0


def test_a_line_that_was_cut_off_is_taken_away_and_all_others_stay(tmp_path):
    one = reviews.Review("key-1", "q1", "question", "c", "accepted")
    assert reviews.append(tmp_path, "li", one) and not reviews.append(tmp_path, "li", one)
    with (tmp_path / "li.jsonl").open("ab") as file:
        file.write(b'{"key":"key-2","item":"q')
    assert [r.key for r in reviews.read(tmp_path / "li.jsonl")] == ["key-1"]
    assert reviews.append(tmp_path, "li", reviews.Review("key-3", "q2", "question", "c", "unsure"))
    assert [r.key for r in reviews.read(tmp_path / "li.jsonl")] == ["key-1", "key-3"]


def test_agreement_has_an_interval_and_changed_records_are_set_aside(judged):
    plan = made.plan(judged, "question")
    for n, task in enumerate(plan.tasks):
        for name, word in (("li", "accepted" if n % 4 else "rejected"), ("王", "accepted" if n % 3 else "rejected")):
            content = "0" * 12 if n == 1 and name == "li" else task.content
            reviews.append(
                tasks.folder_of(judged), name, reviews.Review(f"{name}{n}", task.id, "question", content, word)
            )
    of = tasks.results(judged, plan)
    assert of.aside == [("li", plan.tasks[1].id, "it has changed since")]
    assert of.common == 39 and of.interval and of.kappa and of.interval[0] < of.kappa < of.interval[1]
    apart = {n for n in range(40) if bool(n % 4) != bool(n % 3)} - {1}
    assert of.whole and {task.id for task, _ in of.disagreements} == {plan.tasks[n].id for n in apart}


def test_ranges_are_divided_and_a_share_is_everybodys(judged):
    (judged.path / "reviews" / "plan.question.json").unlink()
    table = tasks.tables_for(judged, "question")[0]
    plan = tasks.draw(judged, "question", table, 40, 0.25, ["a", "b", "c"])
    of = {name: {task.id for task in plan.of(name)} for name in plan.reviewers}
    shared = of["a"] & of["b"] & of["c"]
    assert plan.shared == len(shared) == 10 and sum(map(len, of.values())) == 30 + 3 * 10
    assert set().union(*of.values()) == {task.id for task in plan.tasks} and plan.of("d") == []
    assert [t.id for t in plan.of("a")] != [t.id for t in plan.tasks[:20]]  # in an order of their own


@pytest.mark.slow
def test_the_step_takes_what_people_said_on_the_pages(run_name, tmp_path):
    command = ("data", "recipe=demo", "source=synthesis", f"run={run_name}-step")
    try:
        assert launch(*command).returncode == 0
        run = overview.read_run(f"{run_name}-step")
        table = tasks.tables_for(run, "question")[0]
        assert table.place == "questions/4_filter_quality"  # what goes into the step review
        first, second, third, fourth = tasks.draw(run, "question", table, 4, 1.0, ["li"]).tasks
        folder = tasks.folder_of(run)
        record = tasks.record_of(run, made.plan(run, "question"), second)
        assert isinstance(record, Question)
        other = "A" if record.answer != "A" else "B"
        for n, (task, word, more) in enumerate([
            (first, "rejected", {"reason": "泄题"}), (second, "corrected", {"edits": {"answer": other}}),
            (third, "unsure", {}), (fourth, "rejected", {"reason": "x"}), (fourth, "accepted", {}),
        ]):  # fmt: skip
            one = reviews.Review(f"k{n}", task.id, "question", task.content, word)
            reviews.append(folder, "li", replace(one, **more))
        done = launch(*command, f"synthesis.review.verdicts=[{folder}/li.jsonl]")
        assert done.returncode == 0, done.stderr
        report = json.loads((run.path / "data/steps/questions/5_review/report.json").read_text(encoding="utf-8"))
        assert sum(report["outcomes"].values()) == report["reviewed"] >= 2 and report["rejected"] == 1
        rows = (run.path / "data/steps/questions/5_review/rejects.jsonl").read_text(encoding="utf-8")
        assert first.id in rows and "泄题" in rows
    finally:
        shutil.rmtree(REPOSITORY / "runs" / f"{run_name}-step", ignore_errors=True)


def test_a_sheet_is_an_export_and_an_import(judged):
    plan = made.plan(judged, "question")
    with serving("port=0") as served:
        client, to = Client(served), f"/runs/{judged.name}/review/question/li"
        port = served.origin.rpartition(":")[2]
        client.post(to, verdict(plan.of("li")[0], "key-00001", "rejected", reason="=1+1"))
        request = urllib.request.Request(
            f"{served.origin}{to}/sheet.csv", headers={"cookie": f"psyforge-{port}={served.token}"}
        )
        sheet = urllib.request.urlopen(request).read().decode("utf-8-sig")
        assert "'=1+1" in sheet and sheet.count("rejected") == 1 and len(re.findall(r"(?m),li\r?$", sheet)) == 40
        filled = sheet.replace(",,,,li", ",accepted,,,li")
        status, said = client.post(f"{to}/sheet", {"name": "li.csv", "text": filled})
        assert status == 200 and said["taken"] == 39, said
        status, said = client.post(f"{to}/sheet", {"name": "li.csv", "text": "a,b\n1,2\n"})
        assert status == 400 and "li.csv" in said["error"]
    assert len(reviews.latest(lines(judged, "li"))) == 40
