"""A collector of traces on a port of its own: OTLP over HTTP, as the gateway's processes send it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Received:
    """A span as a collector sees it; ids as hex digits, ``parent_id`` empty for the first of a trace."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    error: bool


class Collector:
    def __init__(self, port: int = 0) -> None:
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._spans: list[Received] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector.take(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Received]:
        with self._lock:
            return list(self._spans)

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            Received(
                service=_attributes(part.resource.attributes)["service.name"],
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                attributes=_attributes(span.attributes),
                error=span.status.code == span.status.STATUS_CODE_ERROR,
            )
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found
            self.headers.append(headers)

    @contextmanager
    def serving(self) -> Generator[None]:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """From now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()


def _attributes(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - protobuf's repeated field
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
