"""The words of a command that is no stage: `python -m launch.NAME [WORD ...] [KEY=VALUE ...] [STAGE.KEY=VALUE ...]`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from data_pipeline.errors import BadInput, did_you_mean


@dataclass
class Words:
    """What was given, in the order of the command line."""

    positional: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # KEY=VALUE
    stages: dict[str, list[str]] = field(default_factory=dict)  # STAGE.KEY=VALUE: each stage's KEY=VALUE


def parse_words(
    argv: list[str], command: str, keys: Iterable[str], stages: Iterable[str] = (), positional: int = 0
) -> Words:
    """Returns the words; raises BadInput, with what `command` takes, for one that it does not: another key, a flag, a
    stage that it has not, a word too many, a key that stands twice.
    """
    words, keys = Words(stages={stage: [] for stage in stages}), list(keys)
    for word in argv:
        key, separator, value = word.partition("=")
        stage, dot, rest = key.partition(".")
        if separator and key in keys:
            if key in words.values:
                raise BadInput(f"{key}= stands twice: {words.values[key]!r} and {value!r}")
            words.values[key] = value
        elif separator and dot and rest and stage in words.stages:
            words.stages[stage].append(f"{rest}={value}")
        elif not separator and not word.startswith("-") and len(words.positional) < positional:
            words.positional.append(word)
        else:
            takes = [f"{positional} words without '='"] if positional else []
            takes += [f"{key}=" for key in keys]
            takes += [f"STAGE.KEY=VALUE (stages: {', '.join(words.stages)})"] if words.stages else []
            raise BadInput(f"{word!r}: {command} takes {', '.join(takes)}{did_you_mean(key, keys)}")
    return words
