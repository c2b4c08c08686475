"""A real HTTP server that streams chat completions as a test plans them, and keeps what it was asked."""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Told:
    """An answer: pieces of content, or (field, text); what ends it; seconds between pieces."""

    pieces: list = field(default_factory=list)
    finish: str | None = "stop"
    dies: bool = False  # the connection is cut after the pieces
    status: int = 200
    wait: float = 0.0
    raw: bytes = b""  # sent instead of pieces


class StreamServer:
    """Between `with` and its end it listens at `url`; `plan` by last message, "*" for any other; `asked`: bodies.

    It lists `models`, or answers as `listing` where that is set.
    """

    def __init__(self, plan: dict[str, Told] | None = None, models=("tiny",)) -> None:
        self.plan, self.models, self.asked = plan or {}, models, []
        self.listing: Told | None = None

    def __enter__(self) -> "StreamServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_GET(self) -> None:
                if outer.listing:
                    return self._send(outer.listing.status, outer.listing.raw or b"planned")
                listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in outer.models]}
                self._send(200, json.dumps(listed).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                said = body["messages"][-1]["content"]
                told = outer.plan.get(said) or outer.plan.get("*") or Told([f"答：{said}"])
                if told.status != 200:
                    return self._send(told.status, b'{"error": {"message": "planned"}}')
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for piece in told.pieces:
                        name, text = piece if isinstance(piece, tuple) else ("content", piece)
                        self._event({"delta": {name: text}, "finish_reason": None})
                        time.sleep(told.wait)
                    if told.raw:
                        self._chunk(told.raw)
                    if told.dies:
                        time.sleep(0.2)  # a reset takes along what the client has not read yet
                        self.connection.close()
                        self.close_connection = True
                        return
                    self._event({"delta": {}, "finish_reason": told.finish})
                    self._chunk(b"data: [DONE]\n\n")
                    self._chunk(b"")
                except OSError:
                    pass  # the client has hung up

            def _event(self, choice: dict) -> None:
                chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
                data = json.dumps(chunk | {"choices": [{"index": 0, **choice}]}, ensure_ascii=False)
                self._chunk(f"data: {data}\n\n".encode())

            def _chunk(self, content: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
                self.wfile.flush()

            def _send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
