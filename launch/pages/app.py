"""The pages as one application: who may ask (security.py), and where each page is made."""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from data_pipeline.errors import BadInput
from launch.pages import chatting, comparing, judging, reading, rendering, texts
from launch.pages.rendering import page
from launch.pages.security import Door, Guard

FILES = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}


def application(door: Door, chat: dict[str, list[str]], run: str = "") -> ASGIApp:
    """Returns the application behind its guard; `chat` and `run` as `chatting.router` takes them."""
    api = FastAPI(title="PsyForge", docs_url=None, redoc_url=None, openapi_url=None)
    for part in (reading, judging, comparing):
        api.include_router(part.router)
    api.include_router(chatting.router(chat, run))

    for name, kind in FILES.items():
        api.add_api_route(f"/{name}", _file(name, kind), methods=["GET"])

    @api.get("/language")
    def language(to: str = "en", back: str = "/") -> Response:
        answer = RedirectResponse(_within(back), 303)
        answer.set_cookie(rendering.LANGUAGE, to if to in texts.LANGUAGES else "en", path="/", samesite="strict")
        return answer

    @api.exception_handler(BadInput)
    def wrong(request: Request, error: BadInput) -> Response:
        return _told(request, 400, "That cannot be done", str(error))

    @api.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        heading = "There is no such page" if error.status_code == 404 else "That cannot be done"
        return _told(request, error.status_code, heading, "" if error.detail == "Not Found" else str(error.detail))

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _told(request, 400, "That cannot be done", f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    return Guard(api, door)


def _told(request: Request, status: int, heading: str, said: str) -> Response:
    if request.method != "GET" or "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": said or heading}, status)
    return page(request, "message.html.jinja", status, heading=heading, said=said, command="")


def _file(name: str, kind: str):
    def serve() -> FileResponse:
        return FileResponse(Path(__file__).parent / name, media_type=kind)

    return serve


def _within(back: str) -> str:
    """Returns the address without another host's name: nobody is sent away from here."""
    parts = urlsplit(back)
    local = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not back.startswith(("//", "/\\"))
    return back if local else "/"
