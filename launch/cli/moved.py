"""Names that were moved with version 0.2, and where they are now: for messages only."""

import ast
import re
from pathlib import Path

from data_pipeline.errors import BadInput

KEYS = {"lines": "pipelines", "psyforge.processes": "cards", "psyforge.nodes": "nodes"}
MODULES = {
    "data_pipeline": {
        "ahead": "synthesis.apply", "asking": "llm.transport", "budget": "llm.budget",
        "contacts": "safety.personal_data",
        "counselling": "safety.guidance", "crisis": "safety.crisis", "diagnosis": "safety.reply_rules",
        "forbidden": "safety.reply_rules", "helplines": "safety.helplines", "ledger": "llm.ledger",
        "processes": "parallel", "recorded": "llm.recorded", "server": "llm.server", "structured": "llm.structured",
    },
    "eval.benchmarks": {"own": "heldout"},
    "launch": {
        "arguments": "cli.arguments", "batch_plan": "preflight.batch_plan", "checkpoints": "running.checkpoints",
        "configuration": "cli.configuration", "datacard": "reports.datacard", "demo_report": "reports.demo",
        "estimate": "preflight.memory", "gate": "conversation.crisis_gate", "generate": "models.local",
        "llama_factory": "frameworks.llama_factory", "local_server": "models.openai_api", "random_model": "models.tiny",
        "remote": "models.remote", "resolved": "frameworks.values", "runs": "running.folder",
        "screen": "conversation.terminal", "stage": "cli.entry", "streaming": "models.local",
        "talk": "conversation.session", "thought": "models.reasoning",
    },
}  # fmt: skip
_MODULE = re.compile(r"(?:pkg://)?((?:data_pipeline|eval\.benchmarks|launch)(?:\.\w+)+)")


def new_key(key: str) -> str | None:
    """Returns the key as it is spelled now, None for one that was not renamed."""
    first, dot, rest = key.partition(".")
    return KEYS.get(key) or (KEYS[first] + dot + rest if first in KEYS else None)


def new_module(name: str) -> str | None:
    """Returns the module's name now, None for one that was not moved."""
    for package, moved in MODULES.items():
        first = name.removeprefix(f"{package}.").split(".")[0]
        if name.startswith(f"{package}.") and first in moved:
            return f"{package}.{moved[first]}"
    return None


def check_value(key: str, value: object) -> None:
    """Raises BadInput for a value that names a module by its old name, such as `pkg://launch.runs`."""
    named = _MODULE.fullmatch(value) if isinstance(value, str) else None
    if named and (new := new_module(named[1])):
        raise BadInput(f"{key}={value}: the module {named[1]} was moved; it is {new} now")


def check_imports(file: Path, key: str) -> None:
    """Raises BadInput for a user's Python file that imports a module of ours by its old name; else as `python_tree`."""
    for node in ast.walk(python_tree(file, key)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if new := new_module(name):
                raise BadInput(f"{key}={file} line {node.lineno}: the module {name} was moved; it is {new} now")


def python_tree(file: Path, key: str) -> ast.Module:
    """Returns the syntax tree of a user's Python file; raises BadInput for one that is not there or no Python."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{key}={file}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{key}={file}: not a Python file ({error})") from None
