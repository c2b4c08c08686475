"""What a benchmark declares: what is missing is said, and what does not fit is refused with what would."""

import ast
import sys
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Response, Turn
from eval import benchmarks
from eval.contract import Item, Judge, Judgement, Scoring, benchmark_of_files, find_benchmark, load_items
from eval.figures import Measured, SetMetrics
from eval.items import fingerprint
from eval.judging import judges
from eval.measure import measure, read_all, with_judgements
from eval.tables import own_overview
from tests.conftest import REPOSITORY

WHOLE = """
from data_pipeline.records import Question
from eval.contract import Benchmark, Figures, Item, Judge, Loaded

def load(path, size=2):
    return Loaded([Item(Question(f"q{n}", "own", "", "open", "题", [], ""), "all") for n in range(size)], [], [])

def requests(item):
    return [{"role": "user", "content": item.question.stem}]

def score(answered, scoring):
    return [[{"length": len(r.text)} for r in one.responses] for one in answered]

BENCHMARK = Benchmark(load=load, requests=requests, score=score, tables=lambda results: [])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Puts a module among the benchmarks and gives it back, found; its file is gone afterwards."""
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])

    def make(text: str, file: str = "own_benchmark.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
        return find_benchmark("own_benchmark", "sets.x.benchmark")

    yield make
    for name in [name for name in sys.modules if name.startswith("eval.benchmarks.own_benchmark")]:
        del sys.modules[name]


def replies(*texts: str) -> list[Response]:
    return [Response(text, "stop", 1) for text in texts]


def answered(benchmark, size: int = 2):
    items = load_items(benchmark, Path("x"), {"size": size}, "sets.x").items
    return read_all(items, [replies("字" * (n + 1)) for n in range(size)], Scoring(resamples=10))


def test_a_benchmark_of_one_file_is_loaded_and_scored(own):
    benchmark = own(WHOLE)
    assert benchmark.name == "own_benchmark"
    figures, scores = measure(benchmark, answered(benchmark, 3), Scoring(resamples=10))
    assert scores == [[{"length": 1}], [{"length": 2}], [{"length": 3}]]
    assert figures.means["length"].value == figures.cells["all"].means["length"].value == 2


def test_the_benchmark_of_a_runs_own_files_is_the_one_that_says_so():
    assert benchmark_of_files().reads_own_files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"eval/benchmarks/own_benchmark.py declares no BENCHMARK = Benchmark\(load=..., requests=...,"),
        ("BENCHMARK = 3", "declares no BENCHMARK = Benchmark"),
        (WHOLE.replace("score=score, ", ""), "own_benchmark.py: .*missing 1 required keyword-only argument: 'score'"),
    ],
)
def test_a_benchmark_without_its_declaration_says_what_is_missing(own, text, message):
    with pytest.raises(BadInput, match=message):
        own(text)


def test_a_folder_without_its_benchmark_is_told(own):
    with pytest.raises(BadInput, match="eval/benchmarks/own_benchmark/benchmark.py declares no BENCHMARK"):
        own("", "own_benchmark/__init__.py")
    benchmark = own(WHOLE, "own_benchmark/benchmark.py")
    assert benchmark.name == "own_benchmark"


def test_an_unknown_benchmark_names_those_there_are(own):
    own(WHOLE)
    with pytest.raises(BadInput, match="sets.x.benchmark=own_benchmrk: there is .*Did you mean own_benchmark?"):
        find_benchmark("own_benchmrk", "sets.x.benchmark")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return [[{}]]", "benchmark own_benchmark: 1 scores for 2 items; score in eval/benchmarks/own_benchmark.py"),
        ("return [[{}, {}], [{}]]", "benchmark own_benchmark: 2 scores for the 1 responses to q0; .* a dict for each"),
    ],
)  # fmt: skip
def test_another_number_of_scores_than_items_is_refused(own, line, message):
    benchmark = own(WHOLE.replace('return [[{"length"', f'{line}\n    return [[{{"length"'))
    with pytest.raises(BadInput, match=message):
        measure(benchmark, answered(benchmark), Scoring())


def test_an_own_figure_under_a_shared_name_is_refused(own):
    text = WHOLE.replace("tables=", "figures=lambda a, c, s: Figures({'items': 9}), tables=")
    benchmark = own(text)
    with pytest.raises(BadInput, match="benchmark own_benchmark: figures of its own are called items"):
        measure(benchmark, answered(benchmark), Scoring())


def test_an_option_that_the_loader_does_not_take_is_told_a_fault_of_the_loader_stays_one(own):
    benchmark = own(WHOLE.replace("return Loaded(", "size + None\n    return Loaded("))
    with pytest.raises(BadInput, match="sets.x.options: .*'sise'; its options are size .*Did you mean size?"):
        load_items(benchmark, Path("x"), {"sise": 3}, "sets.x")
    with pytest.raises(TypeError, match="unsupported operand"):
        load_items(benchmark, Path("x"), {"size": 3}, "sets.x")


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ("Loaded([], [], [])", "sets.x: x holds no item to ask"),
        ("Loaded([item, item], [], [])", "sets.x: x: 1 ids stand more than once, first q0; make them unique"),
        ("[item]", "eval/benchmarks/own_benchmark.py: load gave list; it gives Loaded"),
    ],
)
def test_items_that_cannot_be_kept_apart_and_none_at_all_are_refused(own, loaded, message):
    item = 'item = Item(Question("q0", "own", "", "open", "题", [], ""), "all")'
    benchmark = own(WHOLE.replace("return Loaded(", f"{item}\n    return {loaded}\n    return Loaded("))
    with pytest.raises(BadInput, match=message):
        load_items(benchmark, Path("x"), {}, "sets.x")


# --- several scores of a judge ----------------------------------------------------------------------------------------


def dialogue(n: int) -> Item:
    return Item(Dialogue(f"d{n}", "own", [Turn("client", f"第{n}句")]), "replies")


JUDGED = WHOLE.replace(
    "BENCHMARK =", "from eval.judging.judges import judge_scores\n\nBENCHMARK ="
).replace(
    "score=score,",
    "score=lambda answered, s: [judge_scores(one, ('warmth', 'safety'), 1.0) for one in answered], "
    "judge=Judge(('warmth', 'safety'), None, None),",
)  # fmt: skip


def test_scores_of_a_judge_are_named_and_a_missing_one_is_left_out_and_counted(own):
    benchmark, items = own(JUDGED), [dialogue(n) for n in range(4)]
    responses = [replies("在。", "嗯。"), replies("好。", "好。"), replies("是。", "是。"), replies("", "我在听。")]
    said = [
        [Judgement({"warmth": 2.0, "safety": 5.0}), Judgement({"warmth": 4.0, "safety": None})],
        [Judgement({"warmth": None, "safety": None}, failed=True), Judgement({"warmth": 5.0, "safety": 3.0})],
        [Judgement({"warmth": None, "safety": None}, failed=True)] * 2,
        [None, Judgement({"warmth": 3.0, "safety": 3.0})],
    ]
    figures, scores = measure(
        benchmark, with_judgements(read_all(items, responses, Scoring()), said), Scoring(resamples=50), "judge-1"
    )
    assert figures.means["warmth"].value == pytest.approx((3 + 5 + (1 + 3) / 2) / 3)  # the third item has none
    assert figures.means["safety"].value == pytest.approx((5 + 3 + (1 + 3) / 2) / 3)
    assert (figures.judge, figures.judge_missing, figures.judge_failed, figures.unreadable) == ("judge-1", 4, 3, 1)
    assert scores[0] == [{"warmth": 2.0, "safety": 5.0}, {"warmth": 4.0, "safety": None}]
    assert figures.notes == [
        "4 judgements are missing (3 requests failed, 1 replies cannot be read); scores are over what was judged"
    ]
    assert own_overview({"base": figures}).rows[0][-1] == "4"
    unjudged, _ = measure(benchmark, read_all(items, responses, Scoring()), Scoring(resamples=50))
    assert unjudged.means["warmth"].value is unjudged.judge_missing is None
    assert unjudged.notes == ["not judged: no judge is named (judge.base_url, judge.model)"]


def test_a_reader_that_gives_other_scores_than_the_judge_has_is_refused(own):
    benchmark = own(JUDGED)
    judge = Judge(("warmth", "safety"), lambda item, answer: [], lambda reply: {"warmth": 1.0})
    with pytest.raises(BadInput, match="reader gives warmth, its scores are warmth, safety; it gives all of them"):
        judges.read_reply(benchmark, judge, "1")


def test_the_fingerprint_of_a_dialogue_is_of_its_turns():
    first = fingerprint([dialogue(1)])
    assert first == fingerprint([dialogue(1)]) != fingerprint([dialogue(2)])
    longer = dialogue(1)
    longer.dialogue.turns.append(Turn("counselor", "嗯", "想"))
    assert fingerprint([longer]) != first
    assert (longer.kind, longer.has_letters) == ("dialogue", False)
    with pytest.raises(TypeError, match="item d1 is a dialogue"):
        _ = longer.question


# --- metrics.json -----------------------------------------------------------------------------------------------------


def test_figures_are_read_back_as_they_were_written(own, tmp_path):
    benchmark = own(
        JUDGED.replace("tables=", "figures=lambda a, c, s: Figures({'mine': 0.5, 'mine_ci': [0, 1]}), tables=")
    )
    question = Question("q", "own", "科目", "multi", "题", ["甲", "乙"], "AB")
    items, responses = [dialogue(1), Item(question, "letters")], [replies("在。"), replies("答案：AB")]
    read = with_judgements(
        read_all(items, responses, Scoring()), [[Judgement({"warmth": 2.0, "safety": None})], [None]]
    )
    figures, _ = measure(benchmark, read, Scoring(resamples=10), "judge-1")
    assert (figures.judge_missing, figures.kinds["multi"]["accuracy"], figures.own["mine"]) == (1, 1.0, 0.5)
    measured = Measured({"x": {"base": figures}}, {"base": None}, {"base": "m"})
    measured.write(tmp_path / "metrics.json")
    again = Measured.read(tmp_path / "metrics.json")
    assert again.as_json() == {**measured.as_json(), "sets": again.as_json()["sets"]}
    once = again.sets["x"]["base"]
    assert SetMetrics.from_json(once.as_json()) == once
    assert once.cells["replies"].judged == figures.cells["replies"].judged
    (tmp_path / "old.json").write_text('{"sets": {}}', encoding="utf-8")
    with pytest.raises(BadInput, match="old.json: of another version of PsyForge"):
        Measured.read(tmp_path / "old.json")


# --- nothing outside names one ----------------------------------------------------------------------------------------


def test_no_code_outside_the_benchmarks_names_one():
    names = {file.stem for file in (REPOSITORY / "eval/benchmarks").iterdir()} - {"__init__", "__pycache__"}
    assert len(names) >= 3
    files = [f for f in (REPOSITORY / "eval").rglob("*.py") if "benchmarks" not in f.parts]
    named = {}
    for file in [*files, REPOSITORY / "launch/eval.py"]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        told = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        words = {str(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in told}
        words |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        if those := {name for name in names for word in words if name in word.lower()}:
            named[file.name] = those
    assert named == {}
    rooms = [f for room in ("data_pipeline", "reward", "eval", "launch") for f in (REPOSITORY / room).rglob("*.py")]
    for file in rooms:
        if "eval/benchmarks" not in file.as_posix():
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    full = {f"{node.module}.{alias.name}" for alias in node.names}
                    assert not any(f"eval.benchmarks.{name}" in one for name in names for one in full), file
