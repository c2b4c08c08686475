"""YAML that people bring, as data: no tag makes an object, and no file makes more of itself than it is."""

import re
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.errors import BadInput

MOST = 1 << 18  # characters; ours. A recipe has some thousand
DEEPEST = 100  # brackets in brackets; ours
NODES = 100_000  # with every alias (*name) written out; ours
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp")}
_PLAIN |= {"tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"}


def load_yaml(text: str, where: str | Path) -> Any:
    """Returns what the YAML says, in texts, numbers, dates, lists and dictionaries; raises BadInput with `where`, line
    and column for anything else.
    """
    if len(text) > MOST:
        raise BadInput(f"{where}: {len(text)} characters of YAML, and {MOST} are read at most")
    depth = 0
    for sign in re.findall(r"[\[{}\]]", text):  # counted first: the parser takes a second for each thousand
        depth = max(0, depth + (1 if sign in "[{" else -1))
        if depth > DEEPEST:
            raise BadInput(f"{where}: nested too deeply; {DEEPEST} brackets are read at most")
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _check(node, where)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        place = f" line {at.line + 1}, column {at.column + 1}" if at else ""
        raise BadInput(f"{where}{place}: not YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{where}: not YAML ({error})") from None
    except RecursionError:
        raise BadInput(f"{where}: nested too deeply for YAML of people") from None
    except ValueError as error:  # such as a date that there is not
        raise BadInput(f"{where}: {error}") from None


def load_yaml_file(file: Path) -> Any:
    """Returns what a file says, as `load_yaml`."""
    try:
        return load_yaml(file.read_text(encoding="utf-8"), file)
    except UnicodeDecodeError:
        raise BadInput(f"{file}: not UTF-8; save it as UTF-8") from None


def _check(node: yaml.Node, where: str | Path) -> None:
    sizes: dict[int, int] = {}

    def size(one: yaml.Node, above: tuple[int, ...]) -> int:
        at = f"{where} line {one.start_mark.line + 1}, column {one.start_mark.column + 1}"
        if one.tag not in _PLAIN:
            raise BadInput(
                f"{at}: the tag {one.tag} is not read; YAML holds texts, numbers, lists and dictionaries here"
            )
        if id(one) in above:
            raise BadInput(f"{at}: an alias of what it stands in")
        if id(one) not in sizes:
            inner = [*above, id(one)]
            parts = one.value if isinstance(one.value, list) else []
            pieces = [piece for part in parts for piece in (part if isinstance(part, tuple) else (part,))]
            sizes[id(one)] = 1 + sum(size(piece, tuple(inner)) for piece in pieces)
            if sizes[id(one)] > NODES:
                raise BadInput(f"{at}: more than {NODES} values once its aliases are written out")
        return sizes[id(one)]

    size(node, ())
