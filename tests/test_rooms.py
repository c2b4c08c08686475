"""The shape of the house: who may import whom, no circles, and modules and functions of a size that can be read."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("data_pipeline", "reward", "eval", "launch")
LIGHT = ROOMS[:3]
HEAVY = ("torch", "ray", "verl", "llamafactory", "transformers", "vllm")
MAY_IMPORT = {  # prefixes of modules; its own room always
    "reward": set(),
    "reward.judge": {"data_pipeline.llm"},
    "data_pipeline": {"reward.answer", "reward.thought"},
    "eval": {
        "reward",
        *(f"data_pipeline.{n}" for n in ("records", "errors", "llm", "sources", "safety", "prompts", "dialogues")),
    },
    "launch": {"data_pipeline", "reward", "eval"},
}
FLOORS = (
    {"frameworks", "cpu"},
    {"cli"},
    {"running"},
    {"models"},
    {"preflight", "conversation"},
    {"reports", "pages", "executors"},
)
FRAMEWORKS = {"launch.frameworks", "launch.cpu", "launch.template_check"}  # the only ones that import the two
TAKES_WHAT_A_FRAMEWORK_GIVES = {"compute_score"}  # verl's signature, and the settings of a recipe


@cache
def modules() -> dict[str, Path]:
    """Returns {module: file} of all rooms."""
    files = [file for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")]
    names = (".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imports(name: str) -> Iterator[str]:
    """Yields what a module imports, in functions too, but for types alone; a module of ours by its full name."""
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    typing_only = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{name}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (full if full in modules() else node.module for full in inner)


def ours(name: str) -> set[str]:
    return {imported for imported in imports(name) if imported in modules() and imported != name}


def under(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def floor(name: str) -> int:
    """Returns the floor of a module of launch, from 0; a command stands above all."""
    parts = name.split(".")
    if len(parts) == 2 and modules()[name].name != "__init__.py":
        return len(FLOORS)
    return next(number for number, rooms in enumerate(FLOORS) if parts[1] in rooms)


def commands() -> list[str]:
    return [f"launch.{file.stem}" for file in (REPOSITORY / "launch").glob("*.py") if file.stem != "__init__"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room):
    for name in modules():
        if name.split(".")[0] == room:
            allowed = {room} | MAY_IMPORT[room] | MAY_IMPORT.get(name, set())
            assert {i for i in ours(name) if not under(i, allowed)} == set(), name


def test_in_launch_imports_go_down_only_and_no_command_imports_another():
    wrong = {}
    for name in modules():
        if name.startswith("launch."):
            below = {i for i in ours(name) if i.startswith("launch.") and i.split(".")[1] != name.split(".")[1]}
            if up := {i for i in below if floor(i) >= floor(name)}:
                wrong[name] = up
    assert wrong == {}


def test_a_file_directly_in_launch_is_a_command():
    assert 0 < len(commands()) <= 16
    for name in commands():
        tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
        assert isinstance(tree.body[-1], ast.If) and ast.unparse(tree.body[-1].test) == "__name__ == '__main__'", name
        told = ast.get_docstring(tree) or ""
        assert f"python -m {name}" in told or f"launch/{name[7:]}.sh" in told


def test_there_is_no_circle_between_modules():
    try:
        TopologicalSorter({name: ours(name) for name in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_package_imports_nothing_of_another_room_when_it_is_imported():
    for name, file in modules().items():
        if file.name == "__init__.py":
            assert {i for i in ours(name) if i.split(".")[0] != name.split(".")[0]} == set(), name


def test_only_their_own_rooms_import_the_frameworks():
    for name in modules():
        used = {i.split(".")[0] for i in imports(name)} & {"verl", "llamafactory"}
        assert not used or under(name, FRAMEWORKS), name


def test_the_light_rooms_import_without_any_framework():
    names = [name for name in modules() if name.split(".")[0] in LIGHT]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_modules_and_signatures_are_short():
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules().items()}
    assert {name: n for name, n in lengths.items() if n > 350} == {}
    assert median(n for name, n in lengths.items() if n) <= 150
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                taken = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg]
                taken = [arg for arg in taken if arg not in ("self", "cls")]
                assert len(taken) <= 7 or node.name in TAKES_WHAT_A_FRAMEWORK_GIVES, f"{name}.{node.name}"
