"""Around every request: an id, a log line, metrics, safe headers, a cap on the body, and an answer whatever happens.
No body is read before its sender is known. A trailing slash is served, and HEAD where GET is.

Plain ASGI: nothing here buffers or copies a body.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.errors import AppError, ErrorCode
from app.observability import REQUEST_SECONDS, REQUESTS
from app.tracing import Kind, Place, span

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PROCESS, _REQUESTS = str(uuid4())[:24], count(1)
# W3C trace context: version, trace id, parent id, flags; ids of zeros are none
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_QUIET_PATHS = frozenset({"/health/live", "/health/ready", "/metrics"})
_WORTH_READING_BYTES = 256 * 1024
_READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods without a body
_CLIENT_GONE = 499  # nothing was answered, as proxies log it
_DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net;"
    " style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https://fastapi.tiangolo.com;"
    " connect-src 'self'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # content links carry a key
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@dataclass(frozen=True, slots=True)
class Begun:
    """What a layer further out knows of a request that it hands on, in ``scope["state"]["begun"]``."""

    at: float  # by time.perf_counter
    place: Place
    span: span | None = None  # its owner ends it


class RequestContext:
    """Gives a request its id, log line, metrics and safe headers. Only polls are answered further out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent, state = Headers(scope=scope), scope.setdefault("state", {})
        request_id = state["request_id"] = request_id_of(sent.get("x-request-id", ""))
        status = 0
        earlier: Begun | None = state.get("begun")
        begun = earlier or Begun(time.perf_counter(), place_of(sent.get("traceparent", "")))

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"] == "/docs":
                    headers["Content-Security-Policy"] = _DOCS_POLICY
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(
                http_request_id=request_id, trace_id=begun.place.trace_id, user_id=None
            ),
            _request_span(scope, begun) as current,
        ):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                log.info("client_gone", path=scope["path"])
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # the answer has begun: only the connection's end can say that it is broken
                problem = problems.response(Request(scope), AppError(ErrorCode.INTERNAL_ERROR))
                await problem(scope, receive, send_with_headers)
            finally:
                _record(scope, status or _CLIENT_GONE, time.perf_counter() - begun.at, current)


class BodyLimit:
    """Refuses bodies over a number of bytes: ``limits`` by exact path, else ``limit``."""

    def __init__(self, app: ASGIApp, *, limit: int, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._limit)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or int(declared) > limit:
            problem = problems.response(Request(scope), _too_large(limit), headers={"Connection": "close"})
            await problem(scope, receive, send)
            return
        # of a body in chunks, nobody knows how much is still to come
        to_come = limit if "transfer-encoding" in headers else int(declared)
        received = 0

        async def counted() -> Message:
            nonlocal received, to_come
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    to_come = received
            return message

        async def send_or_close(message: Message) -> None:
            # the server would read on to the end of a refused body; a short one is worth the connection
            if message["type"] == "http.response.start" and to_come - received > _WORTH_READING_BYTES:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, counted, send_or_close)


class BodyTime:
    """A body must be there within ``seconds``, but for those of the paths in ``unhurried``, which keep a pace of their
    own."""

    def __init__(self, app: ASGIApp, *, seconds: float, unhurried: Collection[str]) -> None:
        self._app = app
        self._seconds = seconds
        self._unhurried = unhurried

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unhurried:
            await self._app(scope, receive, send)
            return
        deadline: float | None = asyncio.get_running_loop().time() + self._seconds  # None: nothing to wait for
        late = False

        async def in_time() -> Message:
            nonlocal deadline, late
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                if deadline is not None:
                    late = True
                    detail = f"It must be there within {self._seconds:g} seconds."
                    raise AppError(ErrorCode.UPLOAD_TOO_SLOW, detail) from None
                message = await receive()  # answered meanwhile: the caller waits for the client's end
            if not message.get("more_body", False):
                deadline = None
            return message

        async def send_and_close(message: Message) -> None:
            nonlocal deadline
            if message["type"] == "http.response.start":
                if late:
                    MutableHeaders(scope=message)["Connection"] = "close"  # the rest may never come
                deadline = None
            await send(message)

        await self._app(scope, in_time, send_and_close)


class AuthenticatedBodies:
    """Before the first byte of a body is read, ``authenticate`` says who sends it, or raises AppError: the framework
    would read the whole body first."""

    def __init__(self, app: ASGIApp, *, authenticate: Callable[[Scope], Awaitable[object]]) -> None:
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        known = False

        async def receive_of_a_known_sender() -> Message:
            nonlocal known
            if not known:
                await self._authenticate(scope)
                known = True
            return await receive()

        await self._app(scope, receive_of_a_known_sender, send)


class TrailingSlash:
    """A path with a trailing slash is the path without: a redirect would lead to the host that the client names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        await self._app(scope, receive, send)


class HeadAsGet:
    """HEAD is answered as GET is, without the body. An endless body is ended: to the application the client is gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        answered = asyncio.Event()

        async def receive_until_answered() -> Message:
            message, end = asyncio.ensure_future(receive()), asyncio.ensure_future(answered.wait())
            try:
                await asyncio.wait({message, end}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()
                end.cancel()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
                answered.set()

        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive_until_answered, send_head)
        finally:
            scope["route"] = as_get.get("route")  # for the log and the metrics


def _too_large(limit: int) -> AppError:
    return AppError(ErrorCode.REQUEST_TOO_LARGE, f"At most {limit} bytes are accepted.")


def request_id_of(sent: str) -> str:
    """The id that the client gave, or a new one: a UUID whose end counts the requests of this process."""
    return sent if sent and _REQUEST_ID.fullmatch(sent) else f"{_PROCESS}{next(_REQUESTS):012x}"


def place_of(traceparent: str) -> Place:
    """In the caller's trace, or in a new one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return Place(found[1], found[2]) if found else Place(uuid4().hex)


def _request_span(scope: Scope, begun: Begun) -> AbstractContextManager[span | None]:
    if begun.span is not None or scope["path"] in _QUIET_PATHS:
        return nullcontext(begun.span)
    return span("request", Kind.SERVER, place=begun.place)


def describe_span(current: span, method: str, route: str, status: int) -> None:
    current.rename(f"{method} {route}")
    current.set(**{"http.request.method": method, "http.route": route, "http.response.status_code": status})


def _record(scope: Scope, status: int, seconds: float, current: span | None) -> None:
    route = getattr(scope.get("route"), "path", None) or "(none)"
    method = scope["method"] if route != "(none)" else "(any)"  # made-up methods would be endless labels
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(method, route).observe(seconds)
    if current is not None:
        describe_span(current, method, route, status)
    write = log.debug if scope["path"] in _QUIET_PATHS else log.info
    write(
        "request",
        method=scope["method"],
        path=scope["path"],
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
    )
