"""Answers ``GET /tasks/{id}/status`` before the framework and most middlewares are asked: from the cache of ready-made
answers, else from one query. Whatever is not a plain poll of a known caller goes on to the framework, and so do
refusals and failures: they are told in one place.

An answer is the same as the route's, header by header.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.container import ApiContainer
from app.domain.principal import Principal
from app.domain.task_ids import is_task_id
from app.middleware import SAFE_HEADERS, Begun, describe_span, place_of, request_id_of
from app.observability import POLLS, REQUEST_SECONDS, REQUESTS
from app.routers.tasks import etags_of, headers_of
from app.server import answer_at_once
from app.services.poll_cache import Head, PollAnswer
from app.services.task_status import StatusDocument
from app.tracing import Kind, Place, span

log = structlog.get_logger(__name__)

ROUTE = "/tasks/{id}/status"
LOGGED_OF = 100  # of so many polls one has a log line
_SLOW_SECONDS = 1.0  # a poll that takes longer has one, too
_METHODS = ("GET", "HEAD")
_PREFIX, _SUFFIX = "/tasks/", "/status"
_ONLY_SERVICE = re.compile(rb"service=[^&;]*")
_SAFE = Head.of((name.lower().encode(), value.encode()) for name, value in SAFE_HEADERS.items())
_NOTHING = Head.of(())
_SECONDS = {method: REQUEST_SECONDS.labels(method, ROUTE) for method in _METHODS}
_COUNTS = {(method, code): REQUESTS.labels(method, ROUTE, str(code)) for method in _METHODS for code in (200, 304)}
_FROM_CACHE, _FROM_DATABASE = POLLS.labels("cache"), POLLS.labels("database")


@dataclass(slots=True)
class _Poll:
    """One request for a status. ``headers`` are the first of each name."""

    id: str
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    begun: float

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class Polls:
    """The outermost layer; ``services`` are there once a request comes. ``cors`` makes the middleware for other
    origins, where there is one; ``origins`` are those that it allows."""

    def __init__(
        self,
        app: ASGIApp,
        services: Callable[[], ApiContainer],
        *,
        cors: Callable[[ASGIApp], ASGIApp] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._services = services
        self._cors = None if cors is None else cors(_bare_answer)
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)
        self._cors_headers: dict[bytes | None, Head] = {}
        self._unlogged = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        poll = _poll(scope)
        if poll is None:
            await self._app(scope, receive, send)
            return
        services = self._services()
        caller = services.verifier.known(poll.headers)
        if caller is None:
            await self._app(scope, receive, send)
            return
        if not tracing.is_recording():
            await self._serve(poll, caller, services, None, None, scope, receive, send)
            return
        place = place_of(poll.header(b"traceparent"))
        with span("request", Kind.SERVER, place=place) as current:
            await self._serve(poll, caller, services, place, current, scope, receive, send)

    async def _serve(
        self,
        poll: _Poll,
        caller: Principal,
        services: ApiContainer,
        place: Place | None,
        current: span | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        answer = services.polls.find(caller.user_id, poll.id)
        source = _FROM_CACHE
        if answer is None:
            source = _FROM_DATABASE
            try:
                answer = await _read(poll.id, caller.user_id, services)
            except Exception as error:  # noqa: BLE001 - the route raises it, where each kind has its answer
                place = place or place_of(poll.header(b"traceparent"))
                state = scope.setdefault("state", {})
                state.update(poll_failure=error, begun=Begun(poll.begun, place, current))
                await self._app(scope, receive, send)
                return
        source.inc()
        request_id = request_id_of(poll.header(b"x-request-id"))
        if _is_known(poll.headers.get(b"if-none-match"), answer):
            status, head, body = 304, answer.unchanged, b""
        else:
            status, head, body = 200, answer.head, answer.body if poll.method == "GET" else b""
        extra = _NOTHING if self._cors is None else await self._headers_for_origin(scope, poll.headers.get(b"origin"))
        raw_id = request_id.encode("latin-1")
        lines = b"%b%bx-request-id: %b\r\n%b" % (head.lines, extra.lines, raw_id, _SAFE.lines)
        if not answer_at_once(send, status, lines, body):
            headers = [*head.headers, *extra.headers, (b"x-request-id", raw_id), *_SAFE.headers]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        if current is not None:
            describe_span(current, poll.method, ROUTE, status)
        self._record(poll, caller, status, request_id, place)

    def _record(self, poll: _Poll, caller: Principal, status: int, request_id: str, place: Place | None) -> None:
        seconds = time.perf_counter() - poll.begun
        _COUNTS[poll.method, status].inc()
        _SECONDS[poll.method].observe(seconds)
        self._unlogged += 1
        if self._unlogged < LOGGED_OF and seconds < _SLOW_SECONDS:
            return
        log.info(
            "request",
            http_request_id=request_id,
            trace_id=None if place is None else place.trace_id,
            user_id=str(caller.user_id),
            method=poll.method,
            path=poll.path,
            route=ROUTE,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            polls=self._unlogged,
        )
        self._unlogged = 0

    async def _headers_for_origin(self, scope: Scope, origin: bytes | None) -> Head:
        """What the middleware for other origins adds to an answer."""
        known = self._cors_headers.get(origin)
        if known is not None:
            return known
        added: list[tuple[bytes, bytes]] = []

        async def keep(message: Message) -> None:
            added.extend(message["headers"])

        assert self._cors is not None  # noqa: S101 - asked by the only caller
        await self._cors(scope, _nothing, keep)
        head = Head.of(added)
        if origin is None or origin in self._origins:
            self._cors_headers[origin] = head
        return head


def _poll(scope: Scope) -> _Poll | None:
    """None where it is anything else than a plain poll."""
    if scope["type"] != "http" or scope["method"] not in _METHODS or scope.get("root_path"):
        return None
    path: str = scope["path"].removesuffix("/")
    if not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
        return None
    id_ = path[len(_PREFIX) : -len(_SUFFIX)]
    query: bytes = scope["query_string"]
    if not is_task_id(id_) or (query and not _ONLY_SERVICE.fullmatch(query)):
        return None
    headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of a name counts, as everywhere
    if b"prefer" in headers or b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        return None
    return _Poll(id_, scope["method"], path, headers, time.perf_counter())


async def _read(id_: str, user_id: UUID, services: ApiContainer) -> PollAnswer:
    reading = services.polls.begin()
    document = await services.status.document(id_, user_id)
    answer = _ready(document)
    if not document.status.is_final:
        services.polls.store(reading, user_id, id_, task_id=document.task_id, answer=answer, size=len(document.body))
    return answer


def _ready(document: StatusDocument) -> PollAnswer:
    unchanged = Head.of((name.lower().encode(), value.encode()) for name, value in headers_of(document).items())
    length = str(len(document.body)).encode()
    head = Head.of((*unchanged.headers, (b"content-length", length), (b"content-type", b"application/json")))
    return PollAnswer(document.etag, f'"{document.etag}"'.encode(), document.body, head, unchanged)


def _is_known(if_none_match: bytes | None, answer: PollAnswer) -> bool:
    if if_none_match is None or if_none_match == answer.quoted_etag:
        return if_none_match is not None
    known = etags_of(if_none_match.decode("latin-1"))
    return answer.etag in known or "*" in known


async def _bare_answer(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
