"""docs/settings.md, out of the comments beside the settings: `python -m launch.cli.settings_page` writes it.

A setting without a comment is a fault. The comment stands above the key or behind its value in launch/conf/STAGE.yaml
and in the settings of a step; an option of a source, benchmark or reward is told by the sentence of the docstring that
opens with its name in backticks.
"""

import re
from collections.abc import Iterator

from launch.cli import reference
from launch.cli.arguments import REPOSITORY
from launch.cli.comments import Setting

PAGE = REPOSITORY / "docs" / "settings.md"
BAR = r"\|"  # a bar within a cell
_TAG = re.compile(r"(`[^`]*`)|<")
OPENING = """# Settings

Written by `python -m launch.cli.settings_page` out of the comments beside the settings: edit those. `--help` of each
command shows the same.

A number is *published* or *released code* (by the papers), *derived*, a *default* of a framework, or *ours*. What a
recipe sets stands in `recipes/`, each number with its source; `--cfg job` prints the values that a command would use.
"""


def page() -> str:
    """Returns the page: a section for every command, with a table for every place where settings stand."""
    return "\n".join([OPENING, *_lines()]).rstrip() + "\n"


def _lines() -> Iterator[str]:
    stages = reference.stages()
    for command in reference.commands():
        yield f"## `python -m launch.{command}`\n\n{_text(reference.about(command))}\n"
        for section in reference.sections(stages[command]) if command in stages else ():
            yield f"### {section.title}\n"
            if section.about:
                yield f"{_text(section.about)}\n"
            if section.settings:
                yield "| key | default | what it does |\n|---|---|---|"
                yield "\n".join(map(_row, section.settings)) + "\n"
            else:
                yield "It has no settings.\n"
        if command in reference.THEIR_KEYS:
            yield f"{_text(reference.THEIR_KEYS[command])}\n"


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    cells = (f"`{setting.key}`", default, _text(setting.comment))
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _text(text: str) -> str:
    """Returns the text with no markup that a page would hide: what stands in backticks, or is indented, is code."""
    lines = text.split("\n")
    return "\n".join(s if s.startswith("    ") else _TAG.sub(lambda tag: tag[1] or "&lt;", s) for s in lines)


def without_comment() -> list[str]:
    """Returns the settings that nothing is written beside, each with its command."""
    stages = reference.stages().values()
    sections = ((stage, section) for stage in stages for section in reference.sections(stage))
    return [
        f"{stage.name}: {section.title}: {setting.key}"
        for stage, section in sections
        for setting in section.settings
        if not setting.comment
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
