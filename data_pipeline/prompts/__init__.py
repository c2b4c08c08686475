"""Prompts, one Jinja file each. A variable that the file does not get is an error, never an empty string.

The two system prompts follow the intent of Psyche-R1's released ones (run.py: expert, step by step, reasoning inside
the tags, answer after them; one for case questions, one for general psychology), in our own words.
"""

from functools import cache
from pathlib import Path

import jinja2

from data_pipeline.records import LETTERS, Question

_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)


@cache
def _template(name: str) -> jinja2.Template:
    return _JINJA.get_template(f"{name}.jinja")


def render(name: str, **variables) -> str:
    """Returns the text of `<name>.jinja`, without blanks at its ends."""
    return _template(name).render(**variables).strip()


@cache
def _system(name: str) -> str:
    return render(name)


def question_messages(question: Question) -> list[dict[str, str]]:
    """Returns [system, user] messages that ask `question`. Nothing of its key or rationale is in them."""
    is_case = bool(question.context) or question.meta.get("family") == "analyse"
    text = render(
        "question",
        context=question.context,
        kind=question.kind,
        stem=question.stem,
        options=list(zip(LETTERS, question.options, strict=False)),
    )
    return [
        {"role": "system", "content": _system("system_case" if is_case else "system_general")},
        {"role": "user", "content": text},
    ]


def answer_text(question: Question) -> str:
    """Returns the response that training teaches: the rationale inside <think></think>, then the answer."""
    return f"<think>\n{question.rationale}\n</think>\n\n答案：{question.answer}"
