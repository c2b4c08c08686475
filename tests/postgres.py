"""A real Postgres for tests: a cluster of its own on loopback with a password, which ends with the tests.

Debian: apt-get install postgresql. Where there is none, the tests that need it are skipped and say so.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

USER = "psyforge"


def programs() -> Path | None:
    """Returns the folder of Postgres' programs, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    return found[-1].parent if found[-1].name else None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Gives postgresql://USER@127.0.0.1:PORT; its password is in PGPASSWORD meanwhile."""
    where, password = programs(), secrets.token_hex(16)
    assert where, "Postgres is not installed"
    # Postgres does not run as root, which tests in containers are
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        secret = Path(folder, "password")
        secret.write_text(password)
        if as_user:
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        data = f"{folder}/data"
        words = [where / "initdb", "-D", data, "-U", USER, "-E", "UTF8", "--locale=C", "--auth=scram-sha-256"]
        subprocess.run([*words, f"--pwfile={secret}", "--no-sync"], check=True, capture_output=True, **as_user, cwd="/")
        settings = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "max_connections=200"]
        server = subprocess.Popen(
            [where / "postgres", "-D", data, *settings], stderr=subprocess.DEVNULL, cwd="/", **as_user
        )
        before = os.environ.get("PGPASSWORD")
        os.environ["PGPASSWORD"] = password
        address = f"postgresql://{USER}@127.0.0.1:{port}"
        try:
            ready = [where / "pg_isready", "-q", "-d", f"{address}/postgres"]
            while subprocess.run(ready).returncode:
                assert server.poll() is None, "Postgres does not start"
                time.sleep(0.1)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # which throws its clients out
            server.wait(60)
            os.environ.pop("PGPASSWORD")
            if before is not None:
                os.environ["PGPASSWORD"] = before


def create(address: str, name: str) -> str:
    """Makes an empty database; returns its address."""
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{address}/{name}"


def query(address: str, text: str) -> list[tuple]:
    import psycopg

    with psycopg.connect(address, autocommit=True) as db:
        return db.execute(text).fetchall()  # pyright: ignore[reportArgumentType, reportCallIssue]
