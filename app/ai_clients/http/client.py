"""HTTP for provider clients: paid, free and guarded.

A paid client is made for one call and keeps no connection alive: a stale pooled connection would turn a harmless reset
into an outcome nobody knows. Free clients (upload, poll, download) keep connections. Neither follows redirects, keeps
cookies of its own accord between hosts, reads proxy settings from the environment, or asks for compressed bodies: the
length that is declared is the length that is received. A client for links that somebody else chose connects to public
addresses only.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpcore
import httpx

from app.ai_clients.base import BeforeFirstByte
from app.ai_clients.http.connect import PublicAddresses

_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 1_000
_MAX_KEEPALIVE = 50
_FREE = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_KEEPALIVE)
_ERROR_BODY_BYTES = 256 * 1024

# a coding inside a coding makes gigabytes of a few bytes; such a body stays as it is, and is then not what was asked
_CODINGS = frozenset({"", "identity", "gzip", "deflate"})


def shared_ssl_context() -> ssl.SSLContext:
    """One TLS context for all clients of a process; building one costs tens of milliseconds."""
    return httpx.create_ssl_context(trust_env=False)


class _BoundedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Bounded(httpx.AsyncHTTPTransport):
    """Cuts the body of an error reply: whoever reads it for a code reads it whole, whatever its size. Leaves bodies
    packed that would unpack without bound."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "").strip().lower() not in _CODINGS:
            del response.headers["content-encoding"]
        if response.is_error and isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _BoundedStream(response.stream, _ERROR_BODY_BYTES)
        return response


class _Guarded(_Bounded):
    """Connects to addresses in the internet only, whatever a name resolves to."""

    def __init__(self, context: ssl.SSLContext, limits: httpx.Limits, *, loopback_too: bool) -> None:
        super().__init__(verify=context, limits=limits, retries=0, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            network_backend=PublicAddresses(loopback_too=loopback_too),
        )


class _Paid(_Bounded):
    """Awaits ``before_first_byte`` once, between an open connection and the first byte of the request."""

    def __init__(self, context: ssl.SSLContext, before_first_byte: BeforeFirstByte) -> None:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
        super().__init__(verify=context, limits=limits, retries=0, trust_env=False)
        self._before_first_byte = before_first_byte
        self._sent = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "trace": self._trace}
        response = await super().handle_async_request(request)
        await self._send()  # it has left, whatever the transport told
        return response

    async def _trace(self, event: str, _: Mapping[str, Any]) -> None:
        if event.endswith(".send_request_headers.started"):
            await self._send()

    async def _send(self) -> None:
        if not self._sent:
            await self._before_first_byte()
            self._sent = True


def paid_client(
    context: ssl.SSLContext, *, timeout_seconds: float, before_first_byte: BeforeFirstByte
) -> httpx.AsyncClient:
    """A client for one paid POST, sent once on a connection of its own."""
    return _client(_Paid(context, before_first_byte), timeout_seconds, {"Connection": "close"})


def free_client(context: ssl.SSLContext, *, timeout_seconds: float) -> httpx.AsyncClient:
    """A client for requests that cost nothing and may be repeated."""
    return _client(_Bounded(verify=context, limits=_FREE, retries=0, trust_env=False), timeout_seconds, {})


def guarded_client(context: ssl.SSLContext, *, timeout_seconds: float, loopback_too: bool) -> httpx.AsyncClient:
    """A client for links that somebody else chose: names may lead to public addresses only, and to this machine where
    ``loopback_too`` says that the provider is a stand-in on it."""
    return _client(_Guarded(context, _FREE, loopback_too=loopback_too), timeout_seconds, {})


def _client(
    transport: httpx.AsyncBaseTransport, timeout_seconds: float, headers: Mapping[str, str]
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds)),
        headers={"Accept-Encoding": "identity", **headers},
        follow_redirects=False,
        trust_env=False,
    )
