"""A stand-in of the provider that ``tests/unit/extension/easel.py`` talks to."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from PIL import Image

KEY = "easel-test-key"


@dataclass
class Studio:
    """``asked`` are the bodies of accepted calls. Each painting is wet when it is first looked at."""

    url: str = ""
    asked: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    looked_at: set[str] = field(default_factory=set[str])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def paint(self, body: dict[str, object]) -> str:
        with self.lock:
            self.asked.append(body)
            return f"painting-{len(self.asked)}"

    def painting(self, name: str) -> dict[str, object]:
        with self.lock:
            dry = name in self.looked_at
            self.looked_at.add(name)
        if not dry:
            return {"id": name, "state": "wet", "progress": 40}
        return {"id": name, "state": "dry", "urls": [f"{self.url}/pictures/{name}.png"]}


def _png() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "PNG")
    return out.getvalue()


def _handler(studio: Studio) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = urlsplit(self.path)
            if where.path.startswith("/pictures/"):
                self._answer(200, _png(), "image/png")
            elif self.headers["Authorization"] != f"Bearer {KEY}":
                self._json(401, {})
            elif where.path == "/paintings":
                names = ",".join(parse_qs(where.query).get("ids", [""])).split(",")
                self._json(200, {"paintings": [studio.painting(name) for name in names if name]})
            else:
                self._json(200, {"account": "well"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._json(201, {"id": studio.paint(body)})

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the class above
            del format, args

        def _json(self, status: int, body: object) -> None:
            self._answer(status, json.dumps(body).encode(), "application/json")

        def _answer(self, status: int, content: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextlib.contextmanager
def running_studio() -> Generator[Studio]:
    studio = Studio()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(studio)) as server:
        studio.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield studio
        finally:
            server.shutdown()
            thread.join()
