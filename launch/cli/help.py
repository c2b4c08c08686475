"""`python -m launch.STAGE --help`: what it does, examples, and every key of ours with its default and comment."""

import textwrap

from rich.console import Console
from rich.text import Text

from launch.cli import reference
from launch.cli.arguments import Stage

COLUMN = 30  # where comments begin
HYDRA = (
    "Every KEY=VALUE is an override of Hydra's. --cfg job prints all keys with the values of recipe and command line, "
    "--multirun KEY=A,B runs every combination. The same as a page: docs/settings.md"
)


def show(stage: Stage) -> None:
    """Prints the help of a stage, as wide as the terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(reference.about(stage.name), soft_wrap=True)
    for section in reference.sections(stage):
        if section.settings:
            console.print(f"\n{section.title}", style="bold")
            console.print(textwrap.fill(section.about, console.width - 1)) if section.about else None
            for setting in section.settings:
                console.print(_lines(setting, console.width - 1), soft_wrap=True)
    their_keys = reference.THEIR_KEYS.get(stage.name)
    for told in filter(None, (their_keys, HYDRA)):
        console.print("\n" + textwrap.fill(told, console.width - 1, break_long_words=False, break_on_hyphens=False))


def _lines(setting: reference.Setting, width: int) -> Text:
    """Returns `  key=default  comment`; the comment begins a line of its own where the key is long."""
    value = f"={setting.default}" if setting.default else ""
    comment = textwrap.wrap(setting.comment, max(30, width - COLUMN), break_on_hyphens=False)
    text = Text(f"  {setting.key}", style="bold").append(value, style="not bold")
    if len(text) + 2 <= COLUMN and comment:
        text.append(" " * (COLUMN - len(text)) + comment.pop(0), style="not bold")
    for line in comment:
        text.append("\n" + " " * COLUMN + line, style="not bold")
    return text
