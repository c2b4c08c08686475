"""Prompts, one Jinja file each. A variable that the file does not get is an error, never an empty string.

The two system prompts follow the intent of Psyche-R1's released ones (run.py: expert, step by step, reasoning inside
the tags, answer after them; one for case questions, one for general psychology), in our own words.
"""

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jinja2

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts.answers import answer_text
from data_pipeline.records import LETTERS, Question

PROMPTS = Path(__file__).parent
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PROMPTS),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
_JINJA.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # `tojson` leaves Chinese as it is
_PLACE = re.compile(r"</(?!think>)([^<>/]+)>")  # the end of a place for foreign text


@cache
def _template(name: str) -> jinja2.Template:
    return _template_of(PROMPTS / f"{name}.jinja")


@cache
def _template_of(file: Path) -> jinja2.Template:
    source = file.read_text(encoding="utf-8")
    names = sorted(set(_PLACE.findall(source)))
    template = _JINJA.overlay(finalize=_quoting(names)).from_string(source)
    template.globals = dict(template.globals)  # Jinja's own is a chain of maps, walked for every text: half of the time
    return template


def _quoting(names: list[str]) -> Callable[[object], object] | None:
    """Returns what a text becomes in a prompt with these places: none of them is opened or closed by it."""
    if not names:
        return None
    tag = re.compile(rf"<(\s*/?\s*(?:{'|'.join(map(re.escape, names))})\s*)>", re.IGNORECASE)
    return lambda value: tag.sub(r"＜\1＞", value) if isinstance(value, str) else value


def render(name: str, **variables) -> str:
    """Returns the text of `<name>.jinja`, without blanks at its ends.

    Raises BadInput, naming the file, for a template that cannot be read or uses a variable that it does not get.
    """
    return _rendered(f"{name}.jinja", lambda: _template(name), variables)


def render_file(file: Path, /, **variables) -> str:
    """Returns the text of a prompt that stands elsewhere, such as beside the benchmark that asks it, as `render`."""
    return _rendered(file.name, lambda: _template_of(file), variables)


def _rendered(name: str, template: Callable[[], jinja2.Template], variables: dict) -> str:
    try:
        return template().render(**variables).strip()
    except jinja2.TemplateSyntaxError as error:
        raise BadInput(f"prompt {name} line {error.lineno}: {error.message}") from None
    except jinja2.UndefinedError as error:
        known = ", ".join(variables) or "none"
        raise BadInput(f"prompt {name}: {error.message}; the variables it gets are {known}") from None


@cache
def prompt_hash(name: str) -> str:
    """Returns the first 12 digits of the sha256 of `<name>.jinja`, which provenance records beside every call."""
    return hashlib.sha256((PROMPTS / f"{name}.jinja").read_bytes()).hexdigest()[:12]


@cache
def _system(name: str) -> str:
    return render(name)


def question_messages(question: Question, shots: tuple[Question, ...] = ()) -> list[dict[str, str]]:
    """Returns [system, user] messages that ask `question`. Nothing of its key, reference or rationale is in them.

    `shots` are answered examples, each a user and an assistant turn before the question: answered as training teaches
    (`answer_text`).
    """
    is_case = bool(question.context) or question.meta.get("family") == "analyse"
    system = "system_open" if question.kind == "open" else "system_case" if is_case else "system_general"
    messages = [{"role": "system", "content": _system(system)}]
    for shot in shots:
        messages += [{"role": "user", "content": _asked(shot)}, {"role": "assistant", "content": answer_text(shot)}]
    return [*messages, {"role": "user", "content": _asked(question)}]


def _asked(question: Question) -> str:
    return render(
        "question",
        context=question.context,
        kind=question.kind,
        stem=question.stem,
        options=list(zip(LETTERS, question.options, strict=False)),
    )


def prompt_text(given: str | None, key: str) -> str:
    """Returns the prompt of that name, or the text itself, "" for None; raises BadInput for a name without a file."""
    if given is None:
        return ""
    if not re.fullmatch(r"[\w.]+", str(given), re.ASCII):
        return str(given)
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.jinja"))
    if given not in names:
        raise BadInput(f"{key}={given}: no prompt of this name in data_pipeline/prompts{did_you_mean(given, names)}")
    return render(given)
