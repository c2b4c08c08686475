"""What a step's output depends on, as one hash: input, settings, prompts, models, and the code that the step imports.

Of the code it is the syntax tree without comments and docstrings, of the step's file and of every module of this
repository that it imports, and theirs; beside these the data files and prompts that they name. A step is given whom it
asks and imports no client, so that a change to the client makes no step run again.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from data_pipeline.steps import Step, StepSettings

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = REPOSITORY / "data_pipeline" / "prompts"


def step_key(name: str, step: Step, settings: StepSettings, records: list[Path], asked: object) -> str:
    """Returns the hash of all that the step's output depends on; `records` are the files that it reads.

    `asked` says who is asked, in what JSON can hold; where a step asks nobody it does not count.
    """
    digest = hashlib.sha256()
    for path in records:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode())
    for path in getattr(settings, step.people) if step.people else ():
        digest.update(Path(path).read_bytes() if Path(path).is_file() else b"")
    digest.update(code_hash(f"data_pipeline.steps.{name}").encode())
    if step.asks:
        digest.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def code_hash(module: str) -> str:
    """Returns the hash of a module's own code, that of all it imports from this repository, and of what they name."""
    return hashlib.sha256(b"".join(_module(name)[1] for name in sorted(closure(module)))).hexdigest()


def closure(module: str) -> set[str]:
    """Returns the module and every module of this repository that it imports, directly or through others."""
    seen, open_ends = set(), [module]
    while open_ends:
        name = open_ends.pop()
        if name not in seen:
            seen.add(name)
            open_ends += _module(name)[0]
    return seen


@cache
def _module(name: str) -> tuple[list[str], bytes]:
    """Returns (the modules of this repository that it imports, the hash of its code and of the files that it names)."""
    file = file_of(name)
    tree = _without_docstrings(ast.parse(file.read_text(encoding="utf-8")))
    digest = hashlib.sha256(f"{name}\n{_written(tree)}\n".encode())
    for named in sorted(_named_files(tree, file.parent)):
        digest.update(named.read_bytes())
    return _imports(tree), digest.digest()


def file_of(module: str) -> Path:
    path = REPOSITORY.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if file_of(name).is_file() else node.module for name in full]
    return [name for name in names if name.split(".")[0] in ("data_pipeline", "reward") and file_of(name).is_file()]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _written(node: object) -> str:
    """Returns a syntax tree as text. `ast.unparse` and `ast.dump` write the same tree otherwise in each Python."""
    if isinstance(node, list):
        return f"[{' '.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    parts = [f"{name}={_written(value)}" for name, value in ast.iter_fields(node) if value not in ([], None)]
    return f"{type(node).__name__}({' '.join(parts)})"


def _named_files(tree: ast.Module, folder: Path) -> set[Path]:
    """Returns the data files beside a module, and the prompts, that a text in it names: "x.yaml", "plan_dialogue"."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    plain = {text.rstrip(".") for text in texts if text and "/" not in text and len(text) < 80}
    beside = {folder / text for text in plain if "." in text and not text.endswith(".py") and (folder / text).is_file()}
    return beside | {file for file in PROMPTS.glob("*.jinja") if {file.stem, file.stem.split(".")[0]} & plain}


def prompt_bytes(name: str) -> int:
    """Returns the size of the step's own prompt file, 0 where it has none of its name."""
    return max((file.stat().st_size for file in PROMPTS.glob(f"{name}*.jinja")), default=0)
