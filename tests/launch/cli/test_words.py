"""The words of the commands that are no stage: a table of command lines and outcomes."""

import pytest

from data_pipeline.errors import BadInput
from launch.cli.words import Words, parse_words


def parse(line: str, positional: int = 0) -> Words:
    return parse_words(line.split(), "the check", ("run", "recipe"), ("sft", "grpo"), positional)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Words([], {}, {"sft": [], "grpo": []})),
        ("run=a recipe=b=c", Words([], {"run": "a", "recipe": "b=c"}, {"sft": [], "grpo": []})),
        ("run= sft.a.b=1 sft.c=", Words([], {"run": ""}, {"sft": ["a.b=1", "c="], "grpo": []})),
        ("one run=a two", Words(["one", "two"], {"run": "a"}, {"sft": [], "grpo": []})),
    ],
)
def test_words_are_told_apart(line, expected):
    assert parse(line, positional=2) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rnu=a", "'rnu=a': the check takes run=, recipe=, STAGE.KEY=VALUE (stages: sft, grpo). Did you mean run?"),
        ("run=a run=b", "run= stands twice: 'a' and 'b'"),
        ("one", "'one': the check takes run="),
        ("eval.a=1", "'eval.a=1': the check takes run="),
        ("sft.=1", "'sft.=1'"),
        ("--run=a", "'--run=a'"),
        ("-x", "'-x'"),
        ("=a", "'=a'"),
    ],
)
def test_a_wrong_word_is_refused_with_what_is_taken(line, message):
    with pytest.raises(BadInput) as error:
        parse(line)
    assert message in str(error.value)


def test_a_word_too_many_is_refused():
    with pytest.raises(BadInput, match="'c': the check takes 2 words without '=', run="):
        parse("a b c", positional=2)
    with pytest.raises(BadInput, match="'-': the check"):
        parse("-", positional=1)
