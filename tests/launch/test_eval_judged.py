"""Open questions beside multiple-choice ones: asked, read, judged, what is missing told and asked again; and every
figure recomputed here from what a scripted server was asked and said.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.figures import Measured
from eval.responses import read_rows
from eval.text_metrics import NAMES
from launch.eval import write_results
from tests.conftest import REPOSITORY, launch
from tests.eval.test_text_metrics import counted, peers
from tests.model_server import Answer, ModelServer, completion

LETTERS = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
CELLS = [f"{section}_{kind}" for section in ("case", "moral", "theory") for kind in ("single", "multi")]
SETS = ("~sets.heldout", "~sets.cpsyexam_five_shot", "hardware=cpu", "think_prefilled=true", "endpoint.attempts=1",
        "sets.pceb.samples=3", "sets.cpsyexam_qa.samples=2")  # fmt: skip


def digest(*values: object) -> int:
    return int(hashlib.sha256(repr(values).encode()).hexdigest()[:8], 16)


def row(stem: str, key: str) -> dict:
    return {"question": stem, "options": LETTERS, "answer": key}


def write(file: Path, rows: list) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


class Exam:
    """Keys of all questions by their stem; the folder that they are read from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, {}
        of_cell = {cell: [self.new(cell, n) for n in range(8)] for cell in CELLS}
        named = {"single": "单选：", "multi": "多选："}
        mixed = [row(named[kind] + stem, self.keys[stem]) for kind in named for stem in of_cell[f"case_{kind}"]]
        write(
            folder / "pceb/cases/mix/second/a.json",
            [{"case_introduction": "求助者，女。", "questions_and_answers": mixed}],
        )
        essays = [{"question": f"论述题{n}，请分析。", "answer": f"考试焦虑，建议放松训练{n}。"} for n in range(3)]
        write(
            folder / "pceb/cases/essay/second/b.json",
            [{"case_introduction": "求助者。", "questions_and_answers": essays}],
        )
        for section, cells in {"moral": CELLS[2:4], "theory": CELLS[4:]}.items():
            for form, cell in zip(("single", "multiple"), cells, strict=True):
                write(folder / "pceb" / section / form / "second/c.json", [row(s, self.keys[s]) for s in of_cell[cell]])
        withheld = [
            {"question_type": "single", "question": f"保密题{n}", "options": LETTERS, "id": n} for n in range(12)
        ]
        self.keys |= {f"保密题{n}": "A" for n in range(12)}  # what the model always says
        write(folder / "exam/test/KG-x-单项选择题.json", withheld)
        qa = [
            {"question_type": kind, "question": f"{kind}问{n}。", "answer": f"标准{n}", "subject_name": "心理学"}
            for kind in ("QA_Knowledge", "QA_Analyse") for n in range(10)
        ]  # fmt: skip
        write(folder / "exam/test/cpsyexam_qa.json", qa)

    def new(self, cell: str, n: int) -> str:
        stem = f"{cell}第{n}题"
        self.keys[stem] = "ABCD"[n % 4] if "single" in cell else ("AB", "ACD")[n % 2]
        return stem

    def words(self) -> list[str]:
        return [f"sets.pceb.path={self.folder}/pceb", f"sets.cpsyexam.path={self.folder}/exam",
                f"sets.cpsyexam_qa.path={self.folder}/exam"]  # fmt: skip


class Script:
    """Answers models and judge by a hash of what is asked, and keeps what it said."""

    def __init__(self, exam: Exam, salt: str, broken: bool = False) -> None:
        self.exam, self.salt, self.broken = exam, salt, broken
        self.said: dict[tuple[str, int], str | None] = {}  # (stem, sample) -> answer part; None: failed
        self.judged: dict[str, float | None] = {}  # answer part -> score
        self.judge_texts: list[str] = []
        self.server = ModelServer(plan=self)

    def get(self, text: str, _: list[Answer], /) -> list[Answer]:
        body = self.server.calls[-1].body
        if "阅卷人" in text:
            return [self.judge(text)]
        stem = re.search(r"(?:单选题|多选题|问答题)：(.*)", text)
        assert stem is not None
        place = stem[1], body["seed"] - 42
        chance = digest(self.salt, *place)
        if self.broken and chance % 9 == 0:
            self.said[place] = None
            return [Answer(status=500)]
        key = self.exam.keys.get(stem[1])
        if key is None:
            said = "" if chance % 7 == 0 else f"建议{'放松' * (chance % 3)}训练，考试{chance}"
        else:
            said = ("答案：" + key, f"答案：{key[0]}", "不知道")[
                min(chance % 5, 2) if len(key) > 1 else 2 * (chance % 4 == 3)
            ]
        self.said[place] = said
        return [Answer(completion(f"因为……\n</think>\n\n{said}"))]

    def judge(self, text: str) -> Answer:
        self.judge_texts.append(text)
        said = re.search(r"<考生答案>\n(.*)\n</考生答案>", text)
        assert said is not None
        if self.broken and digest(said[1]) % 2:
            self.judged[said[1]] = None
            return Answer(status=500)
        score = None if digest(said[1]) % 11 == 0 else float(digest(said[1]) % 101)
        self.judged[said[1]] = score
        return Answer(completion("答得不错" if score is None else f"理由。\n分数：{score:g}"))


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> Exam:
    return Exam(tmp_path_factory.mktemp("exam"))


@pytest.fixture(scope="module")
def names() -> Iterator[list[str]]:
    """Names of two runs; their folders are deleted afterwards."""
    made = [f"test-{uuid.uuid4().hex[:8]}-{end}" for end in ("a", "b")]
    yield made
    for name in made:
        shutil.rmtree(REPOSITORY / "runs" / name, ignore_errors=True)


def evaluate(exam: Exam, name: str, url: str):
    servers = [f"{who}.{k}" for who in ("endpoint", "judge") for k in (f"base_url={url}", "model=tiny")]
    words = ("recipe=psyche_r1", f"run={name}", *SETS, "judge.attempts=1", *exam.words(), *servers)
    return launch("eval", *words)


def finish(exam: Exam, name: str, url: str) -> None:
    """Repeats the command until it is done: judgements that cannot be read are asked once more."""
    for _ in range(3):
        done = evaluate(exam, name, url)
        if done.returncode == 0:
            return
        assert done.returncode == 1 and "judgements cannot be read and are missing" in done.stderr, done.stderr
    raise AssertionError(done.stderr)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def metrics(name: str) -> dict[str, dict]:
    sets = json.loads(Path("runs", name, "eval/metrics.json").read_text())["sets"]
    return {name: results["endpoint"] for name, results in sets.items()}


def essay_scores(said: str | None, number: int) -> dict[str, float]:
    """What the packages that the papers used, and ROUGE by its definition, give an essay; nothing said scores 0."""
    reference = f"考试焦虑，建议放松训练{number}。"
    return {**peers(said, reference), **counted(said, reference)} if said else dict.fromkeys(NAMES, 0.0)


def check_figures(script: Script, figures: dict[str, dict]) -> None:
    """Recomputes what metrics.json says from what the server said."""
    exam, pceb, qa = script.exam, figures["pceb"], figures["cpsyexam_qa"]

    def credit(stem: str, sample: int, elastic: bool) -> float:
        said, key = script.said[stem, sample], exam.keys[stem]
        letters = set(said.removeprefix("答案：")) if said and said.startswith("答案") else set()
        wrong = letters - set(key)
        return float(not wrong and len(letters) / len(key)) if elastic else float(letters == set(key))

    strict, mixed = [], []
    for cell in CELLS:
        stems = [stem for stem in exam.keys if stem.startswith(cell)]
        for elastic, key in ((False, "accuracy"), (True, "elastic")):
            value = mean([mean([credit(stem, k, elastic) for k in range(3)]) for stem in stems])
            assert pceb["cells"][cell][key] == pytest.approx(value), (cell, key)
            if key == "accuracy":
                strict.append(value)
            if elastic == cell.endswith("multi"):
                mixed.append(value)
        assert pceb["cells"][cell]["items"] == 8
    assert pceb["average_strict"] == pytest.approx(mean(strict))
    assert pceb["average_elastic"] == pytest.approx(mean(mixed))
    assert pceb["failed"] == sum(
        v is None for (stem, _), v in script.said.items() if re.match("case|moral|theory|论述", stem)
    )
    assert pceb["cells"]["case_essay"]["items"] == 3
    scores = [[essay_scores(script.said[f"论述题{n}，请分析。", k], n) for k in range(3)] for n in range(3)]
    for name in NAMES:
        value = mean([mean([of_sample[name] for of_sample in of_item]) for of_item in scores])
        assert pceb["cells"]["case_essay"][name] == pytest.approx(value, abs=1e-6), name
    assert pceb["judge"] is pceb["judge_missing"] is None, "essays are not judged"

    missing = failed = 0
    for cell, kind in {"QA_knowledge": "QA_Knowledge", "QA_analyse": "QA_Analyse"}.items():
        of_items = []
        for n in range(10):
            said = [script.said[f"{kind}问{n}。", k] for k in range(2)]
            scores = [script.judged[text] if text else 0.0 for text in said]
            missing += sum(score is None for score in scores)
            if known := [score for score in scores if score is not None]:
                of_items.append(mean(known))
        assert qa["cells"][cell]["judge_score"] == pytest.approx(mean(of_items)), cell
    failed = sum(digest(said) % 2 for said in script.judged) if script.broken else 0
    assert (qa["judge_missing"], qa["judge_failed"], qa["judge"]) == (missing, failed, "tiny")


def test_what_fails_is_told_left_out_and_asked_again_and_every_figure_is_right(exam, names):
    script = Script(exam, "first", broken=True)
    folder = Path("runs", names[0], "eval")
    with script.server as server:
        done = evaluate(exam, names[0], server.url)
        assert done.returncode == 1, done.stdout + done.stderr
        lost = sum(said is None for said in script.said.values())
        unjudged = sum(digest(said) % 2 for said in script.judged)
        unread = sum(digest(said) % 2 == 0 and digest(said) % 11 == 0 for said in script.judged)
        assert unread and f"{unread} judgements cannot be read" in done.stderr
        assert f"{lost} requests failed and count as wrong, {unjudged} requests to the judge failed" in done.stderr
        check_figures(script, metrics(names[0]))
        assert f"({unjudged} requests failed" in (folder / "report.md").read_text()
        assert f"({unjudged} requests failed" in done.stdout
        script.broken, calls = False, len(server.calls)
        answered = {place for place, said in script.said.items() if said is not None}
        done = evaluate(exam, names[0], server.url)
        again = server.calls[calls:]
        assert sum("阅卷人" not in call.text for call in again) == lost
        new = {said for (stem, k), said in script.said.items() if stem.startswith("QA_") and (stem, k) not in answered}
        assert sum("阅卷人" in call.text for call in again) == unjudged + unread + len(new - {""})
        finish(exam, names[0], server.url)
    check_figures(script, metrics(names[0]))
    assert not any("论述题" in text for text in script.judge_texts), "essays of an exam without a judge"
    rows = read_rows(folder / "responses.endpoint.cpsyexam_qa.jsonl")
    assert all(
        r.scores["judge_score"] == (script.judged[r.response.split("\n")[-1]] if r.readable else 0) for r in rows
    )


def test_a_thought_that_the_template_opened_is_one_for_submission_and_judge(names):
    folder = Path("runs", names[0], "eval")
    submitted = json.loads((folder / "submission.endpoint.cpsyexam.json").read_text())
    predictions = [row["prediction"] for row in submitted["zero_shot"]["KG-x-单项选择题"]]
    assert predictions == [r.read or "" for r in read_rows(folder / "responses.endpoint.cpsyexam.jsonl")]
    assert set(predictions) == {"A", ""} and predictions.count("A") > 4

    done = launch("eval", "rescore", f"run={names[0]}")  # the server is gone, its judgements stand in the ledger
    assert done.returncode == 0, done.stdout + done.stderr
    again = {
        name: r["endpoint"] for name, r in json.loads((folder / "rescored/metrics.json").read_text())["sets"].items()
    }
    assert again == metrics(names[0])
    done = launch("eval", "rescore", f"run={names[0]}", "think_prefilled=false")
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = json.loads((folder / "rescored/submission.endpoint.cpsyexam.json").read_text())
    assert {row["prediction"] for row in submitted["zero_shot"]["KG-x-单项选择题"]} == {""}


def test_compare_tells_open_questions_too_by_the_reports_figures_and_whole_names(exam, names, tmp_path):
    script = Script(exam, "second")
    with script.server as server:
        finish(exam, names[1], server.url)
    done = launch("eval", "compare", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f" {cell} " in done.stdout for cell in (*CELLS, "QA_knowledge", "case_essay")), done.stdout
    assert "judge_score" in done.stdout and "rouge_l_count" in done.stdout and "…" not in done.stdout
    assert f"{names[0]}/endpoint" in done.stdout

    files = [Path("runs", name, "eval") for name in names]
    both = [Measured.read(folder / "metrics.json") for folder in files]
    sets = {name: {"a": both[0].sets[name]["endpoint"], "b": both[1].sets[name]["endpoint"]} for name in both[0].sets}
    rows = {
        (word, name): read_rows(folder / f"responses.endpoint.{name}.jsonl")
        for word, folder in zip("ab", files, strict=True) for name in sets
    }  # fmt: skip
    write_results(tmp_path, "a and b", Measured(sets, {}, {}), rows)
    told = Measured.read(tmp_path / "metrics.json").differences
    for name, score in (("pceb", "accuracy"), ("cpsyexam_qa", "judge_score")):
        (d,) = (d for d in told[name]["a -> b"] if d.score == score)
        low, high = (f"{bound:+.1%}" if score == "accuracy" else f"{bound:+.2f}" for bound in (d.ci_low, d.ci_high))
        line = next(line for line in done.stdout.splitlines() if f" {name} " in line and f" {score} " in line)
        assert f"{low} to {high}" in line, "report and compare have one interval"
        assert d.after - d.before == pytest.approx(d.gain)
    assert not any(d.score == "accuracy" for d in told["cpsyexam_qa"]["a -> b"])

    asked = files[1] / "asked.json"
    asked.write_text(asked.read_text().replace('"judge": "tiny"', '"judge": "other"'))
    done = launch("eval", "compare", *names)
    assert done.returncode == 0 and "cpsyexam_qa: judged by tiny and by other" in done.stdout
    assert "judge_score" not in done.stdout


def test_runs_without_a_common_score_are_not_an_empty_table(exam, names):
    for name in names:
        asked = Path("runs", name, "eval/asked.json")
        only = {file: about for file, about in json.loads(asked.read_text()).items() if about["set"] == "cpsyexam"}
        asked.write_text(json.dumps(only))
    done = launch("eval", "compare", *names)
    assert done.returncode == 2 and "cannot be compared; cpsyexam: no score that both have" in done.stderr
