"""The settings of a YAML file, a class or a function, each with its default and with what is written beside it."""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic.fields import FieldInfo

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # pydantic's names of them
_NONE = inspect.Parameter.empty  # where there is no default


@dataclass(frozen=True)
class Setting:
    key: str
    default: str  # as YAML writes it; "" without one, and for a dictionary whose keys follow
    comment: str  # what it does, its unit, its source


def of_yaml(file: Path) -> list[Setting]:
    """Returns the settings of a YAML file, dotted keys in its order. A comment stands above a key or behind its value.

    The lines that open the file are about the file, and `defaults` is Hydra's list. A dictionary that is written out
    with a comment is a setting before its keys; one that repeats another by its anchor is one setting.
    """
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return [one for one in _of_mapping(node, "", text, {}) if one.key != "defaults"]


def _of_mapping(node: yaml.MappingNode, prefix: str, text: str, seen: dict[int, str]) -> Iterator[Setting]:
    lines = text.splitlines()
    for key_node, value in node.value:
        key, at = f"{prefix}{key_node.value}", key_node.start_mark
        above, behind = _above(lines, at.line, at.column), lines[at.line][key_node.end_mark.column :]
        if id(value) in seen:
            yield Setting(key, "", f"{_joined(above, behind)}; its keys are those of {seen[id(value)]}")
        elif isinstance(value, yaml.MappingNode) and not value.flow_style:
            seen[id(value)] = key
            if comment := _joined(above, behind):
                yield Setting(key, "", comment)
            yield from _of_mapping(value, f"{key}.", text, seen)
        else:
            start, end = value.start_mark, value.end_mark
            default = text[start.index : end.index]
            yield Setting(key, "" if default == "???" else default, _joined(above, lines[end.line][end.column :]))


def _above(lines: list[str], line: int, column: int) -> list[str]:
    """Returns the comment lines directly above, as far in as the key; [] for those that open the file."""
    first = line
    while first and re.match(rf" {{{column}}}#", lines[first - 1]):
        first -= 1
    return [text.strip().lstrip("# ") for text in lines[first:line]] if first else []


def _joined(above: list[str], behind: str) -> str:
    return " ".join(filter(None, [*above, behind.partition("# ")[2].strip()]))


def of_class(kind: type) -> list[Setting]:
    """Returns the settings of a pydantic model or a dataclass: its fields, the comment above or behind each, bounds."""
    source = inspect.cleandoc("\n" + inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    settings = []
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = _above(source.splitlines(), node.lineno - 1, node.col_offset)
            behind = (comments.get(line, "") for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
            default, bounds = _field(kind, node.target.id)
            comment = _joined(above, "".join(behind))
            comment = f"{comment} ({bounds})" if comment and bounds else comment
            settings.append(Setting(node.target.id, written(default), comment))
    return settings


def _field(kind: type, name: str) -> tuple[object, str]:
    """Returns (default of a field, its bounds in words)."""
    checked: dict[str, FieldInfo] | None = getattr(kind, "__pydantic_fields__", None)  # of a pydantic dataclass too
    if checked is None:
        field = next(field for field in dataclasses.fields(kind) if field.name == name)
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        return (_NONE if made is dataclasses.MISSING else made), ""
    field = checked[name]
    there = ((word, getattr(bound, at, None)) for bound in field.metadata for at, word in BOUNDS.items())
    bounds = [f"{word} {value:g}" for word, value in there if value is not None]
    if typing.get_origin(field.annotation) is typing.Literal:
        bounds.append(" or ".join(map(str, typing.get_args(field.annotation))))
    default = _NONE if field.is_required() else field.get_default(call_default_factory=True)
    return default, ", ".join(bounds)


def of_function(function: Callable, *given: str) -> list[Setting]:
    """Returns the settings of a function: its parameters but for the `given` ones. What each does is the sentence of
    the docstring that opens with its name in backticks, or the part of one after a semicolon.
    """
    doc = " ".join((inspect.getdoc(function) or "").split())
    told = dict(re.findall(r"(?:^|(?<=[.;:] ))`(\w+)` (.+?)[.;](?= [A-Z`]|$)", doc))
    return [
        Setting(name, written(parameter.default), told.get(name, "").removeprefix("is "))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given and parameter.kind is not parameter.VAR_KEYWORD
    ]


def written(value: object) -> str:
    """Returns a default as YAML writes it in one line, of records the names, "" where there is none."""
    if value is _NONE:
        return ""
    if isinstance(value, tuple):
        value = [getattr(one, "name", one) for one in value]
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()
