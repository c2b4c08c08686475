"""The pages in a real browser: Debian's Chromium, driven by Playwright; a server of our own in a process apart."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.conftest import REPOSITORY

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
AXE = Path(os.environ.get("PSYFORGE_AXE", REPOSITORY / ".venv" / "axe")) / "node_modules" / "axe-core" / "axe.min.js"
# that the page of this heading is there, and listens to keys
READY = "text => document.readyState === 'complete' && document.querySelector('h1').innerText.includes(text)"
KEY = "a-key-of-the-tests-0123456789"


@dataclass
class Served:
    """A server of pages."""

    process: subprocess.Popen
    address: str  # with its token
    log: Path

    @property
    def origin(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def serve(*words: str, env: dict[str, str] | None = None) -> Served:
    """Starts `python -m launch.web` and returns it once it has said its address."""
    log = Path(tempfile.mkstemp(prefix="web-", suffix=".log")[1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.web", "open=false", *words], cwd=REPOSITORY, stdout=out, stderr=out,
            env={**os.environ, "KEY_OF_TESTS": KEY, **(env or {})},
        )  # fmt: skip
    wait_for(lambda: "open http" in log.read_text() or process.poll() is not None, 60)
    said = log.read_text()
    assert process.poll() is None, said
    return Served(process, said.partition("open ")[2].split()[0], log)


@contextmanager
def serving(*words: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    served = serve(*words, env=env)
    try:
        yield served
    finally:
        served.process.terminate()
        served.process.wait(10)
        served.log.unlink()


@dataclass
class Seen:
    """What a browser noticed that nobody should: dialogs, errors, requests to another host."""

    origin: str
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self, page) -> None:
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(url)

    def nothing(self) -> bool:
        return not (self.dialogs or self.errors or self.foreign)


@contextmanager
def chromium() -> Iterator:
    """Gives a browser; skips the test, saying why, where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: bash launch/install.sh cpu")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def opened(browser, served: Served, seen: Seen | None = None, **options):
    """Returns a page of a new context that has come in by the address with its token."""
    page = browser.new_context(**options).new_page()
    if seen:
        seen.watch(page)
    page.goto(served.address)
    return page


def violations(page) -> list[str]:
    """Returns axe-core's serious and critical findings; skips the test, saying why, where it is not installed."""
    if not AXE.is_file():
        pytest.skip(f"no axe-core: npm install --no-save --prefix {AXE.parents[2].relative_to(REPOSITORY)} axe-core")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:150]} {one['nodes'][0]['failureSummary'][:300]}" for one in found
            if one["impact"] in ("serious", "critical")]  # fmt: skip


def wait_for(check, seconds: float = 10) -> None:
    """Waits until check() is true."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.05)


def pages_of(run: str) -> dict[str, str]:
    """Returns {name: address} of every page of a run of tests/launch/pages/made.py."""
    of = f"/runs/{quote(run)}"
    return {
        "runs": "/", "side by side": f"/side-by-side?run={run}&run={run}", "run": of, "rows": f"{of}/rows",
        "rejects": f"{of}/rows?table=questions/1_generate_questions/rejects.jsonl",
        "search": f"{of}/rows?table=posts/1_rewrite_empathy/rows.jsonl&q=" + quote("辛苦3"),
        "question": f"{of}/row?id=q0", "dialogue": f"{of}/row?id=d0", "passage": f"{of}/row?id=p0",
        "responses": f"{of}/responses?set=heldout&checkpoint=sft", "wrong": f"{of}/responses?verdict=wrong",
        "response": f"{of}/response?set=heldout&id=q0", "review": f"{of}/review",
        "record": f"{of}/review/question/li", "judged record": f"{of}/review/question/li?at=0",
        "dialogue to judge": f"{of}/review/dialogue/" + quote("王"), "results": f"{of}/review/question/results",
        "all judged": f"{of}/review/question/li?at=99", "a break": f"{of}/review/stop", "compare": f"{of}/compare",
        "pair": f"{of}/compare/li", "ranking": f"{of}/compare/results", "chat": "/chat",
    }  # fmt: skip


def screenshots() -> Path | None:
    """Returns the folder that PSYFORGE_SCREENSHOTS names, for people who look at the pages."""
    given = os.environ.get("PSYFORGE_SCREENSHOTS")
    return Path(given) if given else None
