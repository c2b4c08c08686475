"""Foreign text (people's, models', servers') as it is shown to somebody: as text, never as commands or markup.

A terminal obeys control characters, and a page those that turn the direction of writing: both are shown as their codes,
in messages, tables, progress bars and reports. Training files hold none: cleaning takes them out, and a row that
has one all the same is rejected.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import TextColumn

# All control characters but tab and line feed; marks of direction; separators of lines and paragraphs; half characters
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0001-\U000e007f]"
)
# What no text of a training file holds: of the above, what writers never mean
NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
One = TypeVar("One")


def shown(text: str) -> str:
    """Returns the text with the code (\\u001b) in the place of each character that steers what shows it."""
    return STEERING.sub(lambda sign: _code(ord(sign[0])), text)


def _code(number: int) -> str:
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def text_column(template: str) -> "TextColumn":
    """Returns the column of a progress bar that shows what is filled into `template` as it stands."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)


def tracked(steps: Iterable[One], title: str, total: int) -> Iterator[One]:
    """Yields the steps, of which there are `total`, with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = text_column("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(shown(title), total=total)
        for step in steps:
            yield step
            progress.update(task, advance=1)
