"""What is promised of the whole source tree (SECURITY.md), read off it: each promise is kept in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_rooms import commands, modules

UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOADERS = {"from_pretrained", "load_dataset"}
TAKES_A_LOADED_MODEL = {"PeftModel"}  # its weights are safetensors, or read with weights_only


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Yields (call, name of what is called, what stands before its dot)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                yield node, called.attr, getattr(called.value, "id", getattr(called.value, "attr", "."))
            elif isinstance(called, ast.Name):
                yield node, called.id, ""


def keyword(call: ast.Call, name: str) -> object:
    return next((getattr(k.value, "value", k.value) for k in call.keywords if k.arg == name), None)


def everywhere() -> Iterator[tuple[str, ast.Call, str, str]]:
    for module, file in modules().items():
        for call, name, before in calls(ast.parse(file.read_text(encoding="utf-8"))):
            yield module, call, name, before


def where(module: str, call: ast.Call) -> str:
    return f"{module} line {call.lineno}"


def test_no_model_tokenizer_or_data_set_may_bring_code():
    found = [
        where(module, call)
        for module, call, name, before in everywhere()
        if name in LOADERS and before not in TAKES_A_LOADED_MODEL and keyword(call, "trust_remote_code") is not False
    ]
    assert found == []


def test_nothing_is_unpickled_but_weights():
    for module, call, name, before in everywhere():
        assert (before, name) != ("torch", "load") or keyword(call, "weights_only") is True, where(module, call)
        assert keyword(call, "allow_pickle") in (None, False), where(module, call)
        assert name not in ("read_pickle", "read_hdf"), where(module, call)
    for module, file in modules().items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        named = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        named |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        assert not named & UNPICKLING, module


def test_no_text_is_run():
    for module, call, name, before in everywhere():
        assert before or name not in ("eval", "exec", "compile", "__import__"), where(module, call)
        assert keyword(call, "shell") is not True and (before, name) != ("os", "system"), where(module, call)


def test_yaml_is_read_as_data():
    for module, call, name, before in everywhere():
        if before == "yaml" and name.endswith(("load", "load_all")):
            loader = ast.unparse(call)
            assert name == "safe_load" or (name == "load" and "SafeLoader" in loader), where(module, call)


def test_archives_are_opened_in_one_place():
    for module, call, name, _ in everywhere():
        assert name != "ZipFile" or module == "data_pipeline.archives", where(module, call)
        assert name not in ("extractall", "unpack_archive", "TarFile"), where(module, call)


def test_what_is_printed_is_no_markup():
    consoles = {"launch.cli.entry", "launch.cli.help", "launch.conversation.terminal"}
    for module, call, name, before in everywhere():
        assert name != "TextColumn" or module == "data_pipeline.safety.shown", where(module, call)
        assert name != "Console" or module in consoles, where(module, call)
        assert (before, name) not in (("Text", "from_markup"), ("", "track")), where(module, call)


def test_pages_and_prompts_escape():
    for module, call, name, _ in everywhere():
        if name == "Environment" and module.startswith(("eval", "launch")):
            assert keyword(call, "autoescape") is True and keyword(call, "finalize") is not None, where(module, call)


@pytest.mark.parametrize("command", commands())
def test_every_command_goes_through_the_one_entry(command):
    """It keeps files private, and keys out of what is written and printed."""
    text = modules()[command].read_text(encoding="utf-8")
    assert "run_stage(" in text or "run_command(" in text


def test_recipes_and_hardware_files_read_listed_variables_alone():
    from launch.cli.environment import READABLE

    for file in Path().glob("recipes/**/*.yaml"):
        for part in file.read_text(encoding="utf-8").split("${oc.env:")[1:]:
            assert part.split(",")[0].split("}")[0] in READABLE, file
