"""Which file of a recipe says what a message complains about."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipeline.errors import BadInput
from data_pipeline.safety.safe_yaml import load_yaml_file
from launch.cli.arguments import RECIPES, REPOSITORY, Command


@contextmanager
def named(command: Command, stage: str) -> Iterator[None]:
    """Adds the recipe's file to a message that begins with a key which stands there, and not on the command line."""
    try:
        yield
    except BadInput as error:
        key = re.match(r"\w+(\.\w+)*(?=[=:])", str(error))
        file = key and not _given(key[0], command) and _file_of(key[0].split("."), command.words["recipe"], stage)
        raise BadInput(f"{error} ({file})" if file else str(error)) from None


def _given(key: str, command: Command) -> bool:
    """Returns whether the command line gives the key, something in it, or something that it is in."""
    given = (override.split("=", 1)[0].lstrip("+~") for override in command.overrides)
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in given)


def _file_of(key: list[str], recipe: str, stage: str) -> str:
    """Returns the file of the recipe, or of one that it builds on, in which the key stands; "" if it is in none."""
    file = RECIPES / recipe / f"{stage}.yaml"
    content = (load_yaml_file(file) or {}) if file.is_file() else {}
    there = content
    for name in key:
        there = there.get(name) if isinstance(there, dict) else None
    if there is not None:
        return str(file.relative_to(REPOSITORY))
    parents = [pair for entry in content.get("defaults", ()) if isinstance(entry, dict) for pair in entry.items()]
    files = (_file_of(key, group.strip("/").split("@")[0], str(name)) for group, name in parents)
    return next(filter(None, files), "")
