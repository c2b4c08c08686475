"""Whoever has no token, and any other site that is open in the same browser, can read and write nothing."""

import http.client
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from data_pipeline.errors import BadInput
from launch import web
from launch.pages import texts
from launch.pages.app import _within
from launch.pages.security import Door
from tests.conftest import REPOSITORY, launch, refused
from tests.launch.pages.browser import KEY, Served, opened, serving

ATTEMPTS = """async ([origin, run]) => {
  const said = [], to = origin + "/runs/" + run + "/review", own = {credentials: "include"};
  const posts = {...own, method: "POST", body: "{}"}, json = {headers: {"content-type": "application/json"}};
  for (const options of [{}, own, {...own, mode: "no-cors"}, {...posts, mode: "no-cors"}, {...posts, ...json}]) {
    try {
      const answer = await fetch(to, options);
      said.push(answer.type + (await answer.text()).length);
    } catch (error) { said.push("refused"); }
  }
  const frame = document.createElement("iframe");
  frame.src = origin + "/";
  document.body.append(frame);
  await new Promise((done) => setTimeout(done, 800));
  try { said.push(frame.contentDocument && frame.contentDocument.body.innerText ? "framed" : "refused"); }
  catch (error) { said.push("refused"); }
  const script = document.createElement("script");
  script.src = origin + "/runs/" + run + "/state";
  said.push(await new Promise((done) => {
    script.onload = () => done("loaded");
    script.onerror = () => done("refused");
    document.body.append(script);
  }));
  return said;
}"""


def ask(
    served: Served, method: str = "GET", path: str = "/", body: str | None = None, **headers: str
) -> tuple[int, dict, str]:
    parts = urlsplit(served.origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    given = {"Host": parts.netloc, **{name.replace("_", "-"): value for name, value in headers.items() if value}}
    connection.request(method, path, body, {name: value for name, value in given.items() if value != "none"})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def cookie(served: Served) -> str:
    return f"psyforge-{urlsplit(served.origin).port}={served.token}"


def test_only_the_token_from_this_address_lets_in(served, run):
    mine, body = (
        cookie(served),
        json.dumps({"kind": "question", "table": "x", "size": 1, "overlap": 0, "reviewers": "li"}),
    )
    assert ask(served)[0] == 401 and ask(served, cookie=mine[:-1])[0] == 401
    assert ask(served, path="/?token=wrong")[0] == 401 and ask(served, path="/?token=", cookie=mine)[0] == 401
    status, headers, _ = ask(served, path=f"/runs/{run}?token={served.token}")
    assert status == 303 and headers["location"] == f"/runs/{run}" and served.token not in headers["location"]
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=strict" in headers["set-cookie"]
    assert ask(served, cookie=mine)[0] == 200
    for host in ("evil.example", f"evil.example:{urlsplit(served.origin).port}", "127.0.0.1:1", ""):
        assert ask(served, cookie=mine, Host=host or "x")[0] == 421  # a name that was bound to this address
    for site in ("cross-site", "same-site"):
        assert ask(served, cookie=mine, Sec_Fetch_Site=site)[0] == 403
    to = f"/runs/{run}/review"
    good = {"cookie": mine, "origin": served.origin, "content_type": "application/json"}
    assert ask(served, "POST", to, body, **good)[0] == 400  # it is let in: the file is none
    for bad in (
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"origin": ""},
    ):
        assert ask(served, "POST", to, body, **good | bad)[0] == 403, bad
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(served, "POST", to, body, **good | {"content_type": kind})[0] == 415
    assert ask(served, "POST", to, body, **good | {"cookie": ""})[0] == 401
    assert ask(served, "POST", to, "x" * (5 * 2**20), **good)[0] == 413


def test_every_answer_has_its_headers_and_no_file_beyond_the_runs_is_shown(served, run):
    mine = cookie(served)
    for path in (
        "/",
        "/nothing",
        "/style.css",
        f"/runs/{run}/rows?table=../../../../etc/passwd",
        "/runs/..%2f..%2fetc",
    ):
        status, headers, text = ask(served, path=path, cookie=mine)
        assert status in (200, 400, 404) and "root:" not in text
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers and "server" not in headers
    assert ask(served, path="/openapi.json", cookie=mine)[0] == ask(served, path="/docs", cookie=mine)[0] == 404


@pytest.mark.parametrize("back", ["//evil.example", "http://evil.example", "/\\evil.example", "javascript:0", "x"])
def test_nobody_is_sent_away(back):
    assert _within(back) == "/"


@pytest.mark.slow
def test_another_site_in_the_same_browser_can_read_and_write_nothing(browser, served, run):
    told: list[str] = []

    class Site(BaseHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            body = b"<!doctype html><title>x</title><h1>another site</h1>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    page = opened(browser, served)  # the cookie is there now
    context = page.context
    try:
        for host in ("127.0.0.1", "localhost"):  # the same site with another port, and another site
            other = context.new_page()
            other.goto(f"http://{host}:{site.server_address[1]}/")
            told += other.evaluate(
                ATTEMPTS,
                [served.origin, run],
            )
    finally:
        site.shutdown()
    assert set(told) <= {"refused", "opaque0"} and told.count("refused") >= 10, told


def test_it_starts_without_torch_and_says_what_is_wrong_with_its_words(run_name, monkeypatch):
    heavy = ("torch", "ray", "verl", "llamafactory", "transformers", "vllm", "matplotlib", "datasets")
    code = f"import sys, launch.web; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
    for words, told in ((["run=no-such-run"], "no such run"), (["host=0.0.0.0"], "key_env=VARIABLE"),
                        (["port=x"], "port=x"), (["run=a/b"], "plain name"), (["prot=1"], "Did you mean port?"),
                        (["open=yes"], "true or false"), (["chat.temprature=1"], "Did you mean temperature?"),
                        (["other.temperature=1"], "which model?")):  # fmt: skip
        with pytest.raises(BadInput, match=told):
            web.serve(words)
    monkeypatch.setenv("SHORT", "abc")
    with pytest.raises(BadInput, match="fewer than 16"):
        web.key_of("SHORT", "0.0.0.0")
    assert web.key_of(None, "127.0.0.1") != web.key_of(None, "::1")


def test_a_port_in_use_and_a_key_for_others():
    with serving("port=0", "host=0.0.0.0", "key_env=KEY_OF_TESTS") as served:
        port = urlsplit(served.address).port
        refused(launch("web", f"port={port}", "open=false"), "Address already in use", "another port=")
        assert served.token == KEY
        own = Served(served.process, f"http://127.0.0.1:{port}/?token={KEY}", served.log)
        assert ask(own, cookie=cookie(own))[0] == 200 and ask(own)[0] == 401


def test_a_host_header_is_known_by_name_and_port():
    door = Door("t" * 20, "::1", 80)
    assert door.knows("[::1]") and door.knows("localhost") and door.knows("[::1]:80") and not door.knows("[::1]:81")
    assert not Door("t" * 20, "127.0.0.1", 7700).knows("127.0.0.1.evil.example:7700")


def test_all_that_pages_say_has_a_translation_and_none_is_dead():
    folder = REPOSITORY / "launch/pages"
    files = [*(folder / "templates").glob("*.jinja"), REPOSITORY / "eval/charts.html.jinja"]
    said = "".join(file.read_text(encoding="utf-8") for file in files)
    literal = set(re.findall(r'\bt\(\s*"([^"]+)"\)', said)) | set(re.findall(r"\bt\(\s*'([^']+)'\)", said))
    assert {text for text in literal if text not in texts.chinese()} == set()
    assert all(isinstance(key, str) and value for key, value in texts.chinese().items())
