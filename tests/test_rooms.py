"""Who may import whom, and that the three light rooms stay light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("data_pipeline", "reward", "eval")
HEAVY = ("torch", "ray", "verl", "llamafactory", "transformers", "vllm")
MAY_IMPORT = {
    "reward": {"reward"},
    "data_pipeline": {"data_pipeline", "reward.answer"},
    "eval": {
        "eval",
        "reward",
        "data_pipeline.records",
        "data_pipeline.llm",
        "data_pipeline.sources",
        "data_pipeline.crisis",
    },
}


def modules(room: str) -> list[str]:
    files = sorted((REPOSITORY / room).rglob("*.py"))
    return [".".join(f.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for f in files]


def test_the_light_rooms_import_without_any_framework_and_fast():
    names = [name for room in ROOMS for name in modules(room)]
    code = (
        "import importlib, json, sys, time; start = time.perf_counter()\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([time.perf_counter() - start, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    runs = []
    for _ in range(3):  # the best of three: the first one may read from a cold disk
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
        runs.append(json.loads(done.stdout))
    assert all(heavy == [] for _, heavy in runs)
    assert min(seconds for seconds, _ in runs) < 1.5


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room):
    for file in (REPOSITORY / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module] if node.module.count(".") else [f"{node.module}.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            for name in names:
                if name.split(".")[0] not in (*ROOMS, "launch"):
                    continue
                allowed = any(name == ok or name.startswith(f"{ok}.") for ok in MAY_IMPORT[room])
                allowed |= file.name == "judge.py" and room == "reward" and name.startswith("data_pipeline.llm")
                assert allowed, f"{file.relative_to(REPOSITORY)} imports {name}"


def test_no_module_is_longer_than_350_lines():
    lengths = {
        f: len(f.read_text(encoding="utf-8").splitlines())
        for room in (*ROOMS, "launch")
        for f in (REPOSITORY / room).rglob("*.py")
    }
    assert {f.name: n for f, n in lengths.items() if n > 350} == {}
