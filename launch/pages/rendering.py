"""Renders templates: in the reader's language, everything escaped, nothing unseen in what others wrote."""

from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse

from eval import charts, tables
from launch.pages import texts

HERE = Path(__file__).parent
LANGUAGE = "psyforge-language"


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE / "templates", Path(charts.__file__).parent]),
        autoescape=True,
        finalize=texts.shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": texts.number, "age": texts.age, "duration": texts.duration, "plain": texts.plain}
    made.globals |= {"address": address, "legend": tables.legend}
    return made


def address(path: str, **query: Any) -> str:
    """Returns the address of a page; what is None or "" is left out of its query."""
    given = {key: value for key, value in query.items() if value not in (None, "")}
    return path + (f"?{urlencode(given)}" if given else "")


def language_of(request: Request) -> str:
    """Returns the language that the reader chose, else the first of the browser's that we speak."""
    chosen = request.cookies.get(LANGUAGE)
    if chosen in texts.LANGUAGES:
        return chosen
    for part in request.headers.get("accept-language", "").lower().split(","):
        if (word := part.split(";")[0].strip()[:2]) in texts.LANGUAGES:
            return word
    return "en"


def context(language: str, here: str, **more: Any) -> dict[str, Any]:
    """Returns what every template knows; `here` is the page's own address."""
    return {"t": partial(texts.translated, language=language), "language": language, "here": here, "run": None, **more}


def _of(request: Request, more: dict[str, Any]) -> dict[str, Any]:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return context(language_of(request), here, **more)


def page(request: Request, template: str, status: int = 200, **more: Any) -> HTMLResponse:
    return HTMLResponse(environment().get_template(template).render(_of(request, more)), status)


def streamed(request: Request, template: str, **more: Any) -> StreamingResponse:
    """Returns a page that is sent while it is made: what is slow to find stands below what is there at once."""
    stream = environment().get_template(template).stream(_of(request, more))
    stream.enable_buffering(20)
    return StreamingResponse((part.encode() for part in stream), media_type="text/html")
