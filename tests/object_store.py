"""An S3 server on loopback, moto's: `PYTHONPATH=.venv/s3 python -m tests.object_store PORT`

It stands in a folder of its own, for its botocore asks for an older python-dateutil than the lock has. It knows one
bucket, `open`; of `closed` it says that nobody may. Any key is taken.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / ".venv" / "s3"
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def serve(port: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app  # pyright: ignore[reportMissingImports]
    from werkzeug.serving import run_simple

    moto = DomainDispatcherApplication(create_backend_app)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/closed"):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [DENIED]
        if environ["REQUEST_METHOD"] != "POST":
            return moto(environ, start_response)
        said = []
        body = b"".join(moto(environ, lambda *given: said.extend(given)))
        # moto 5.2 calls this element by another name than S3 does, and Arrow takes that for an error
        body = body.replace(b"CompleteMultipartUploadResponse", b"CompleteMultipartUploadResult")
        status, headers = said[:2]
        start_response(status, [pair for pair in headers if pair[0].lower() != "content-length"])
        return [body]

    run_simple("127.0.0.1", port, app, threaded=True)


@contextmanager
def object_store(port: int) -> Iterator[dict[str, str]]:
    """Gives the environment of whoever uses the server; the test is skipped where moto is not installed."""
    if not FOLDER.is_dir():
        pytest.skip(f"no S3 server: pip install --target {FOLDER.relative_to(REPOSITORY)} 'moto[s3]' flask flask-cors")
    line = [sys.executable, "-m", "tests.object_store", str(port)]
    env = {**os.environ, "PYTHONPATH": str(FOLDER)}
    server = subprocess.Popen(line, cwd=REPOSITORY, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/open", method="PUT"), timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                time.sleep(0.25)
        yield KEYS | {"AWS_ENDPOINT_URL": url}
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
