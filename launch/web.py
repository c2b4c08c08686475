"""Pages in a browser: where people look at runs, rows and responses, judge them, and talk to models.

    python -m launch.web
    python -m launch.web run=NAME [port=7700]
    python -m launch.web chat.endpoint.base_url=http://127.0.0.1:8000/v1 [chat.temperature=0.3]    models to talk to
    python -m launch.web chat.base_model=PATH other.endpoint.base_url=URL                          two, side by side
    python -m launch.web host=0.0.0.0 key_env=VARIABLE      for others too: the variable holds the key, their token

It serves on this machine alone, prints the address with its token and opens a browser where there is one (open=false:
not). Whoever has the address may look, judge and talk. chat.KEY=VALUE and other.KEY=VALUE are settings of launch.chat;
without them the models of the runs answer. With key_env= the token is the key in that variable, and the same at
every start. Ctrl-C ends it; nothing is lost.
"""

import os
import secrets
import socket
import sys
import webbrowser

from data_pipeline.errors import BadInput, did_you_mean
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.pages import chatting
from launch.pages.app import application
from launch.pages.security import Door, is_loopback
from launch.running import overview

PORT = 7700  # ours
SHORTEST = 16  # characters of a key


def main(argv: list[str]) -> int:
    """Serves until it is ended; returns the exit code."""
    return run_command(serve, __doc__, argv)


def serve(argv: list[str]) -> int:
    given = parse_words(argv, "web", ("run", "host", "port", "open", "key_env"), ("chat", "other"))
    words, run, host = given.values, given.values.get("run", ""), given.values.get("host", "127.0.0.1")
    if run:
        arguments.check_run_name(run)
        if not overview.read_run(run).stages:
            near = did_you_mean(run, [one.name for one in overview.all_runs()])
            raise BadInput(f"run={run}: there is no such run{near or '; leave run= out to see those that are there'}")
    if words.get("open", "true") not in ("true", "false"):
        raise BadInput(f"open={words['open']}: true or false")
    for stage, settings in given.stages.items():
        chatting.check(stage, settings)
    token = key_of(words.get("key_env"), host)
    listener = listen(host, words.get("port"))
    port = listener.getsockname()[1]
    door = Door(token, host, port)
    address = door.address_of(f"/runs/{run}" if run else "/")
    console.print(f"open {address}")
    if not is_loopback(host):
        console.print("others reach it by this machine's name or address; what they read goes over the net unencrypted")
    if words.get("open", "true") == "true" and (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    ):
        webbrowser.open(address)
    import uvicorn

    pages = application(door, given.stages, run)
    how = uvicorn.Config(pages, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
    uvicorn.Server(how).run(sockets=[listener])
    return 0


def key_of(variable: str | None, host: str) -> str:
    """Returns the token: the key in the variable, else a new one; raises BadInput for none where others may ask."""
    if variable is None:
        if not is_loopback(host):
            raise BadInput(
                f"host={host} opens the pages to others: name the variable that holds a key, key_env=VARIABLE"
            )
        return secrets.token_urlsafe(24)
    key = os.environ.get(variable, "").strip()
    if len(key) < SHORTEST:
        what = "is not set" if not key else f"holds fewer than {SHORTEST} characters"
        raise BadInput(f"key_env={variable}: the variable {what}; put a long random key into it")
    return key


def listen(host: str, given: str | None) -> socket.socket:
    """Returns a socket bound to the port that is given, else to PORT or a free one; raises BadInput without one."""
    if given is not None and not (given.isdigit() and int(given) < 65536):
        raise BadInput(f"port={given}: a number up to 65535")
    ports = [int(given)] if given is not None else [PORT, 0]
    for port in ports:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if port == ports[-1]:
                raise BadInput(f"host={host} port={port}: {error.strerror or error}; say another port=") from None
    raise AssertionError("a port was tried")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
