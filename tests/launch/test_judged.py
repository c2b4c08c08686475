"""A counselling set from model to report: judges, ranking, people's sheets and agreement, as a user runs them.

Slow: 2,400 judgements through faults and kills.
"""

import csv
import hashlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, launch
from tests.model_server import Answer, ModelServer, completion

MODELS = {"strong": 3, "middle": 2, "weak": 1}  # and how good their replies are
SCORE = re.compile(r"[（(]([123])[)）]")


def digest(*values: object) -> int:
    return int(hashlib.sha256(repr(values).encode()).hexdigest()[:8], 16)


class World:
    """Models whose replies say how good they are, and judges that read it; `fault(body)` comes first."""

    def __init__(self, fault=lambda body: None, latency: float = 0.0) -> None:
        self.fault = fault
        self.server = ModelServer(latency, plan=self)
        self.paid = Counter()  # good answers to judges' requests

    def get(self, text: str, _: list[Answer], /) -> list[Answer]:
        body = self.server.calls[-1].body
        if fault := self.fault(body):
            return [fault]
        if '"better"' in text:
            a, b = map(int, SCORE.findall(text))
            value = {"evidence_a": "", "evidence_b": "", "better": "tie" if a == b else "AB"[b > a]}
        elif '"evidence"' in text:
            (good,) = map(int, SCORE.findall(text))
            top = max(int(line) for line in re.findall(r"^(\d)：", text, re.M))
            value = {"evidence": f"好（{good}）", "score": min(top, good - (body["model"] == "m-strict"))}
            self.paid[json.dumps(body, sort_keys=True)] += 1
        else:
            good = MODELS[body["model"]] - (digest(text, body["model"]) % 5 == 0)
            return [Answer(completion(f"好（{max(1, good)}）" + "。" * MODELS[body["model"]]))]
        return [Answer(completion(json.dumps(value, ensure_ascii=False)))]


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("CPsyCounE")
    for n in range(3):
        said = [f"{who}：{n}说{k}。" for k in range(3) for who in ("求助者", "支持者")]
        file = folder / f"Sex/{n}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def names() -> Iterator[list[str]]:
    """Names of three runs, one for each model; their folders are deleted afterwards."""
    made = [f"test-judged-{model}" for model in MODELS]
    yield made
    for name in made:
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def words(name: str, url: str, *more: str) -> list[str]:
    servers = {"endpoint": name.rpartition("-")[2], "judges.strict": "m-strict", "judges.kind": "m-kind"}
    given = [f"{who}.{k}" for who, model in servers.items() for k in (f"base_url={url}", f"model={model}")]
    return ["recipe=counselling", "hardware=cpu", f"run={name}", *given, *more]


def test_three_models_are_judged_ranked_by_judges_and_people_and_compared(dialogues, names, tmp_path):
    world = World()
    with world.server as server:
        for name in names:
            done = launch("eval", *words(name, server.url, f"sets.cpsycoune.path={dialogues}"))
            assert done.returncode == 0, done.stdout + done.stderr
        metrics = json.loads(Path("runs", names[0], "eval/metrics.json").read_text(encoding="utf-8"))
        result = metrics["sets"]["cpsycoune"]["endpoint"]
        judges = result["judges"]
        assert (judges["strict"]["votes"], judges["kind"]["votes"]) == (36, 36)
        for name, mean in result["means"].items():
            parts = [judges[judge]["means"][name]["value"] for judge in judges]
            assert mean["value"] == pytest.approx(sum(parts) / 2)
        assert judges["kind"]["quotes_found"] == judges["kind"]["quotes"] == 36
        report = Path("runs", names[0], "eval/report.md").read_text(encoding="utf-8")
        for told in (
            "judge kind: m-kind",
            "are another quantity",
            "Krippendorff's alpha",
            "36 of 36",
            "EmoLLM 20B lora",
        ):
            assert told in report, told

        calls = len(server.calls)
        ranked = ("eval", "rank", *names)
        done = launch(*ranked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.calls) == calls + 27 * 2 * 2, "three pairs of each of nine turns, both orders, two judges"
        places = [line.split("│")[1].strip() for line in done.stdout.splitlines() if "/endpoint" in line]
        assert places == [f"{name}/endpoint" for name in names]
        assert "0.0%" in done.stdout, "no verdict turns with the order"

        folder = Path("runs", names[0], "eval/ranking.cpsycoune")
        sheet = folder / "pairs.csv"
        text = sheet.read_text(encoding="utf-8-sig")
        assert not any(name in text for name in names) and "endpoint" not in text, "blind"
        assert sheet.stat().st_mode & 0o777 == (folder / "pairs.key.json").stat().st_mode & 0o777 == 0o600
        for rater, turned in (("li", False), ("wang", True)):
            with (tmp_path / f"{rater}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, next(csv.reader([text.splitlines()[0]])))
                writer.writeheader()
                for n, row in enumerate(csv.DictReader(text.splitlines(keepends=True))):
                    a, b = (int(SCORE.findall(row[side])[0]) for side in "AB")
                    better = "平" if a == b else "甲" if (a > b) != (turned and n % 9 == 0) else "b"
                    writer.writerow(row | {"better": "" if n % 5 == 4 else better})
        done = launch(*ranked, f"people={tmp_path}/li.csv,{tmp_path}/wang.csv")
        assert done.returncode == 0 and len(server.calls) == calls + 108, done.stderr
        assert "10 rows of people's sheets are empty" in done.stdout and "by people" in done.stdout
        assert re.search(r"strict +│ li +│ first reply better │ 22 +│ 1.00 ", done.stdout), done.stdout
        assert sheet.read_text(encoding="utf-8-sig") == text, "the sheet that people have stays as it is"

    files = [f"runs/{name}/eval/judgements.endpoint.cpsycoune.jsonl" for name in names]
    done = launch("eval", "agreement", files[0])
    assert done.returncode == 0 and re.search(r"strict │ kind +│ comprehensiveness", done.stdout), done.stderr
    done = launch("eval", "agreement", *files)
    assert done.returncode == 2 and "has rated cpsycoun/Sex/0#1 on comprehensiveness already" in done.stderr
    done = launch("eval", "compare", names[0], names[2])
    assert done.returncode == 0 and re.search(r"professionalism +│ 9 .*worse", done.stdout), done.stdout


def test_judges_that_are_one_and_a_dry_run_are_told_before_anything_is_asked(dialogues):
    nowhere = "http://127.0.0.1:9/v1"
    told = [*words("test-judged-none-weak", nowhere, f"sets.cpsycoune.path={dialogues}"), "judge_repeats=3"]
    done = launch("eval", *told, f"judges.other.base_url={nowhere}", "judges.other.model=m-strict")
    assert done.returncode == 2 and "judges.other: strict is a judge already, of the same model or name" in done.stderr
    done = launch("eval", *told, "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "CC BY 4.0" in done.stdout and "cpsycoune: 9 items, 9 requests to each model" in done.stdout
    assert "for each model at most 108 requests to each judge (strict, kind)" in done.stdout
    assert not Path("runs/test-judged-none-weak").exists()


@pytest.mark.slow
def test_2400_judgements_through_faults_and_six_kills_are_those_of_a_run_that_nothing_troubles(names, tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"id": str(n), "text": f"我撑不住了，第{n}次。"}) + "\n" for n in range(240)))
    one = f"sets.psycrisis={{benchmark: rubric, path: {posts}, options: {{rubric: psycrisis, source: posts}}}}"
    seen = Counter()

    def fault(body: dict) -> Answer | None:
        if '"evidence"' not in body["messages"][-1]["content"]:
            return None
        key = json.dumps(body, sort_keys=True)
        seen[key] += 1
        draw = digest(key, seen[key]) % 100
        if draw < 24:
            return Answer(status=500) if draw < 10 else Answer(drop=True) if draw < 18 else Answer(completion(""))
        return None

    folder = Path("runs", names[0], "eval")
    shutil.rmtree(folder.parent, ignore_errors=True)
    with World().server as server:
        done = launch("eval", *words(names[0], server.url, one), timeout=1800)
        assert done.returncode == 0, done.stderr
    whole = {
        file: (folder / file).read_bytes()
        for file in ("report.md", "report.html", "judgements.endpoint.psycrisis.jsonl")
    }
    assert len(whole["judgements.endpoint.psycrisis.jsonl"].splitlines()) == 2400
    shutil.rmtree(folder.parent)

    world = World(fault, latency=0.02)
    with world.server as server:
        command = [sys.executable, "-m", "launch.eval", *words(names[0], server.url, one)]
        for kill in range(1, 7):
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            while sum(world.paid.values()) < 350 * kill and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, f"it ended before kill {kill}"
        done = launch("eval", *words(names[0], server.url, one), timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(world.paid) == 2400, "none is lost"
    assert sum(times - 1 for times in world.paid.values()) <= 6 * 32, "twice are those on their way at a kill alone"
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        calls = ledger.execute("SELECT COUNT(*), COUNT(DISTINCT key) FROM calls WHERE finish != 'failed'").fetchone()
    assert calls == (2640, 2640), "what was on disk was not asked again"
    for file, content in whole.items():
        assert (folder / file).read_bytes() == content, file
