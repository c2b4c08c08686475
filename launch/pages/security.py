"""Who may ask for a page: whoever has the token, from this machine's own address, in a tab that we opened.

A page of another site that is open in the same browser can neither read nor write: it does not know the token, the
cookie is not sent along with its requests (SameSite=Strict), a foreign Host (DNS rebinding), Origin or Sec-Fetch-Site
is refused, and whatever changes something takes JSON alone, which no foreign form can send.
"""

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 4 * 2**20  # bytes of a request; ours
TOKEN = "token"  # in the address
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
NO_TOKEN = (
    "This address needs the token: open the address that python -m launch.web has printed.\n"
    "请打开 launch.web 打印出的完整地址。"
)


@dataclass(frozen=True)
class Door:
    """What has to be right: the token, and the address under which this server was started."""

    token: str
    host: str
    port: int

    @property
    def cookie(self) -> str:
        return f"psyforge-{self.port}"  # cookies of all ports of a host lie in one jar

    def address_of(self, path: str) -> str:
        """Returns the address of a page, with the token."""
        host = f"[{self.host}]" if ":" in self.host else "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.port}{quote(path)}?{urlencode({TOKEN: self.token})}"

    def knows(self, host: str) -> bool:
        """Returns whether a Host header names this server: a name of the machine, or a bare address where it is open
        to others, and the port.
        """
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.port or parts.netloc != host or "@" in host:
            return False
        if is_loopback(self.host):
            return is_loopback(name)
        return name in (self.host.lower(), "localhost", socket.gethostname().lower()) or _is_address(name)

    def lets_in(self, given: str) -> bool:
        return bool(given) and hmac.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Returns whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


class Guard:
    """Stands before the application: refuses what `Door` does not know, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there is no other door

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        answer = self._answer(scope, Headers(scope=scope))
        await (answer or self.app)(scope, receive, with_headers)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """Returns what is answered in the application's place; None lets the request in."""
        door = self.door
        if not door.knows(headers.get("host", "")):
            return PlainTextResponse("This server is not known under that name.", 421)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return PlainTextResponse("Pages of other sites may not ask here.", 403)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["method"] == "GET" and TOKEN in query:
            if not door.lets_in(query.pop(TOKEN)):
                return PlainTextResponse(NO_TOKEN, 401)
            answer = RedirectResponse(quote(scope["path"]) + (f"?{urlencode(query)}" if query else ""), 303)
            answer.set_cookie(door.cookie, door.token, path="/", httponly=True, samesite="strict")
            return answer
        if not door.lets_in(_cookie(headers.get("cookie", ""), door.cookie)):
            return PlainTextResponse(NO_TOKEN, 401)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin") != f"http://{headers['host']}":
            return PlainTextResponse("Pages of other sites may change nothing here.", 403)
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return PlainTextResponse("JSON alone is taken.", 415)
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > MOST_BODY:
            return PlainTextResponse("Too much, or of no stated length.", 413)
        return None


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""
