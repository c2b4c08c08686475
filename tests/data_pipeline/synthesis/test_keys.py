"""What makes a step run again, and what does not: code by its meaning, prompts and rules by their bytes."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from data_pipeline import llm, prompts
from data_pipeline.steps import find_step, step_names
from data_pipeline.synthesis import keys, run
from data_pipeline.synthesis.configuration import configuration
from data_pipeline.synthesis.models import Models
from tests.conftest import REPOSITORY
from tests.data_pipeline.synthesis.recipes import PSYLLM, demo

STEPS = step_names()
READ_ANSWERS = {"select_challenging", "write_rationales"}
WITH_CRISIS = {"clean", "plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue", "rewrite_empathy"}
WITH_GUIDANCE = WITH_CRISIS - {"clean"}
WITH_CRISIS |= {"write_rationales"}  # rationales pass the cleaning, which leaves what speaks of a crisis
ASKING = {name for name in STEPS if find_step(name, "the test").asks}
CHECKED = {"clean", "plan_dialogue", "reason_reply", "rewrite_empathy", "write_dialogue", "write_rationales"}
CLEANING = (
    "safety/clean_rules.yaml",
    "safety/personal_data.yaml",
    "safety/page_furniture.yaml",
    "safety/advertisement_signs.txt",
    "safety/advertisement_weights.tsv",
)
RULES = {
    **dict.fromkeys(CLEANING, CHECKED),
    "safety/reply_rules.yaml": {"reason_reply", "rewrite_empathy"},
    "safety/crisis_rules.yaml": WITH_CRISIS,
    "safety/helplines.yaml": WITH_CRISIS,
    "safety/crisis_words.yaml": WITH_CRISIS,
    "safety/crisis_model.npz": WITH_CRISIS,
}
OF_A_STEP = {
    "check_empathy": {"rewrite_empathy"},
    "compare_rationales": {"write_rationales"},
    "optimise_prompt": {"write_rationales"},
    "rationale_prompt": {"write_rationales"},
    # What a module renders for several steps counts for all that import the module.
    "crisis_guidance": WITH_GUIDANCE,
    "repair_json": ASKING - {"select_challenging"},
    **dict.fromkeys(("system_case", "system_general", "system_open"), ASKING),
    "question": ASKING | {"review"},  # which names a kind of record so, and asks nobody: once too often is cheap
}


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the code that `keys` reads in place of the repository."""
    for room in ("data_pipeline", "reward"):
        left_out = shutil.ignore_patterns("samples", "__pycache__")
        shutil.copytree(REPOSITORY / room, tmp_path / room, ignore=left_out)
    monkeypatch.setattr(keys, "REPOSITORY", tmp_path)
    monkeypatch.setattr(keys, "PROMPTS", tmp_path / "data_pipeline" / "prompts")
    yield tmp_path
    keys._module.cache_clear()


def hashes() -> dict[str, str]:
    keys._module.cache_clear()
    return {name: keys.code_hash(f"data_pipeline.steps.{name}") for name in STEPS}


def changed_by(file: Path, more: str) -> set[str]:
    """Returns the steps whose hash is another while `more` stands at the end of the file."""
    before, text = of_the_repository(), file.read_bytes()
    file.write_bytes(text + more.encode())
    after = hashes()
    file.write_bytes(text)
    return {name for name in STEPS if before[name] != after[name]}


@cache
def of_the_repository() -> dict[str, str]:
    return hashes()  # before anything is changed in a copy of it


def rewritten(source: str) -> str:
    """Returns the source with other docstrings and more comments."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno - 1, node.body[0].end_lineno
                lines[first:last] = [" " * node.body[0].col_offset + '"""Others."""\n'] + [""] * (
                    len(lines[first:last]) - 1
                )
            elif not isinstance(node, ast.Module):
                place = node.body[0].lineno - 1
                if not lines[place][: node.body[0].col_offset].strip():  # a body on a line of its own
                    lines[place] = " " * node.body[0].col_offset + f'"""New."""\n\n{lines[place]}'
    return f"# a comment\n{''.join(lines)}\n# another\n"


def test_comments_docstrings_and_layout_are_no_change(copy):
    before, files = hashes(), [*copy.rglob("*.py")]
    for file in files:
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
    style = ["--isolated", "--line-length", "60", "--config", "format.quote-style='single'"]
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", *style, str(copy)], check=True)
    clean = "data_pipeline/steps/clean.py"
    text, original = ((root / clean).read_text(encoding="utf-8") for root in (copy, REPOSITORY))
    assert '"""Others."""' in text and "Taken out: emoji" not in text
    assert text.count("\n") > 1.2 * original.count("\n")
    assert hashes() == before


@pytest.mark.parametrize("file", ["llm/ledger.py", "llm/client.py", "llm/transport.py", "synthesis/run.py"])
def test_a_step_is_given_whom_it_asks(copy, file):
    assert changed_by(copy / "data_pipeline" / file, "\nmore = 1\n") == set()


def test_no_step_depends_on_the_launcher():
    rooms = {module.split(".")[0] for name in STEPS for module in keys.closure(f"data_pipeline.steps.{name}")}
    assert rooms == {"data_pipeline", "reward"}


def test_a_statement_changes_the_steps_that_import_it(copy):
    sources = {name: keys.file_of(f"data_pipeline.steps.{name}").read_text(encoding="utf-8") for name in STEPS}
    assert {name for name, source in sources.items() if "from reward.answer import" in source} == READ_ANSWERS
    assert changed_by(copy / "reward/answer.py", "\nmore = 1\n") == READ_ANSWERS
    assert changed_by(copy / "reward/wording.py", "\nmore = 1\n") == READ_ANSWERS, "answer.py imports it"
    assert changed_by(copy / "data_pipeline/records.py", "\nmore = 1\n") == set(STEPS)
    assert {name: changed_by(copy / f"data_pipeline/steps/{name}.py", "\nmore = 1\n") for name in STEPS} == {
        name: {name} for name in STEPS
    }, "no step imports another"


def test_a_prompt_changes_the_steps_that_render_it(copy):
    for file in sorted((copy / "data_pipeline/prompts").glob("*.jinja")):
        name = file.name.split(".")[0]
        assert changed_by(file, "more") == OF_A_STEP.get(name, {name} & set(STEPS)), file.name


def test_rules_change_the_steps_that_read_them(copy):
    assert {path: changed_by(copy / "data_pipeline" / path, "\n") for path in RULES} == RULES
    files = {*copy.glob("data_pipeline/steps/*"), *copy.glob("data_pipeline/safety/*")}
    data = {str(file.relative_to(copy / "data_pipeline")) for file in files if file.is_file() and file.suffix != ".py"}
    assert data == set(RULES), "a data file that this table does not know"


def test_every_prompt_that_a_step_renders_is_in_its_hash(tmp_path, monkeypatch):
    """Both demos, their replies recorded: who renders what is seen as it happens."""
    rendered, now, template = defaultdict(set), set(), prompts._template

    def seen(name: str):
        now.add(name)
        return template(name)

    def say(text: str) -> None:  # a step has ended
        rendered[text.split(": ")[1]] |= now
        now.clear()

    monkeypatch.setattr(prompts, "_template", seen)
    monkeypatch.setattr(prompts, "_system", prompts._system.__wrapped__)  # a cached one is rendered once for all steps
    run.run(demo(), tmp_path / "psyche", say)
    run.run(configuration(PSYLLM), tmp_path / "psyllm", say)
    assert set(rendered) == set(STEPS)
    assert {name for name in STEPS if rendered[name]} == ASKING
    for name, names in rendered.items():
        assert {f"{one}.jinja" for one in names} <= prompts_of(name), name


def prompts_of(name: str) -> set[str]:
    """Returns the file names of the prompts in a step's hash."""
    found = set()
    for module in keys.closure(f"data_pipeline.steps.{name}"):
        file = keys.file_of(module)
        found |= keys._named_files(ast.parse(file.read_text(encoding="utf-8")), file.parent)
    return {file.name for file in found if file.suffix == ".jinja"}


# --- the key ----------------------------------------------------------------------------------------------------------


def key(name: str, records: list[Path], asked: object = None, **settings) -> str:
    step = find_step(name, "the test")
    config = configuration({"run": "x", "pipelines": {}, "synthesis": {name: settings}})
    return keys.step_key(name, step, config.settings(name, step), records, asked)


@pytest.fixture
def rows(tmp_path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    return file


def test_records_and_settings_change_the_key_and_the_order_of_settings_does_not(rows, tmp_path):
    first = key("plan_dialogue", [rows], min_rounds=1, params={"temperature": 1.0, "top_p": 0.9})
    assert key("plan_dialogue", [rows], params={"top_p": 0.9, "temperature": 1.0}, min_rounds=1) == first
    assert key("plan_dialogue", [rows], params={"top_p": 0.9, "temperature": 1.0}) == first, "1 is the default"
    assert key("plan_dialogue", [rows], min_rounds=2, params={"temperature": 1.0, "top_p": 0.9}) != first
    assert key("plan_dialogue", [rows], min_rounds=1, params={"temperature": 1.0, "top_p": 0.8}) != first
    other = tmp_path / "others.jsonl"
    other.write_text("{}\n")
    assert key("clean", [rows]) == key("clean", [other]), "their content counts, not where they stand"
    other.write_text('{"id": 1}\n')
    assert key("clean", [rows]) != key("clean", [other])
    assert key("filter_quality", [rows, other]) != key("filter_quality", [rows]), "passages that it needs"


def test_a_file_of_verdicts_changes_the_key(rows, tmp_path):
    verdicts = tmp_path / "li.csv"
    before = key("review", [rows], verdicts=[str(verdicts)])
    verdicts.write_text("id,verdict\nq,accepted\n")
    filled = key("review", [rows], verdicts=[str(verdicts)])
    verdicts.write_text("id,verdict\nq,rejected\n")
    assert len({before, filled, key("review", [rows], verdicts=[str(verdicts)]), key("review", [rows])}) == 4


def test_another_model_changes_the_key_and_another_server_of_it_does_not(rows):
    def of(name: str, **servers: llm.Server) -> str:
        models = Models(servers["main"], servers, {}, None, Path(), None)
        return key(name, [rows], models.described(name, find_step(name, "the test")))

    main = llm.Server("http://a", "m")
    first = of("plan_dialogue", main=main)
    assert of("plan_dialogue", main=replace(main, base_url="http://b", concurrency=99)) == first
    assert of("plan_dialogue", main=replace(main, model="n")) != first
    assert of("plan_dialogue", main=replace(main, extra_body={"thinking": True})) != first
    assert of("select_challenging", main=main) != of("select_challenging", main=main, second=main)
    assert of("clean", main=main) == of("clean", main=replace(main, model="n")), "it asks nobody"
    replies = [Models(None, {}, {}, lambda requests: [], Path(), None, text) for text in ("one", "two")]
    step = find_step("plan_dialogue", "the test")
    assert len({key("plan_dialogue", [rows], one.described("plan_dialogue", step)) for one in replies}) == 2


IN_ANOTHER_PYTHON = """
import json, sys, types
steps = types.ModuleType("data_pipeline.steps")  # in place of the one that needs pydantic
steps.Step = steps.StepSettings = object
sys.modules["data_pipeline.steps"] = steps
from data_pipeline.synthesis import keys
print(json.dumps({name: keys.code_hash("data_pipeline.steps." + name) for name in sys.argv[1:]}))
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_hashes_alike(version):
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    python = next((str(path) for path in [*installed, shutil.which(f"python{version}")] if path and works(path)), None)
    if python is None:
        pytest.skip(f"no python{version} is installed")
    line, env = [python, "-c", IN_ANOTHER_PYTHON, *STEPS], os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, env=env)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == hashes()


def works(python: str | Path) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
