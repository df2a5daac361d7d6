"""HTTP for provider clients: two kinds of httpx client, bounded bodies, and what a broken connection means.

Paid clients keep no connection alive: a stale pooled connection would turn a harmless reset into an outcome nobody
knows. Free clients (upload, poll, download) keep connections. Neither follows redirects, keeps cookies of its own
accord between hosts, reads proxy settings from the environment, or asks for compressed bodies: the length that is
declared is the length that is received. A client for links that somebody else chose connects to public addresses only.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import math
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpcore
import httpx

from app.ai_clients.connect import PublicAddresses
from app.ai_clients.departure import leave
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.errors import ErrorCode

_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 1_000
_MAX_KEEPALIVE = 50
_FREE = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_KEEPALIVE)
_ERROR_BODY_BYTES = 256 * 1024
_WRITE_BYTES = 1024 * 1024

# raised before a byte of the request left; every other transport error may come after the provider took it
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

# a coding inside a coding makes gigabytes of a few bytes; such a body stays as it is, and is then not what was asked
_CODINGS = frozenset({"", "identity", "gzip", "deflate"})

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,64}")


class BodyUnusable(Exception):
    """A body can not be kept; what was written of it is gone."""


class BodyTooLarge(BodyUnusable):
    pass


class BodyEmpty(BodyUnusable):
    pass


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


class _Departing(_Bounded):
    """Tells the moment between an open connection and the first byte of a request."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "trace": _before_the_first_byte}
        response = await super().handle_async_request(request)
        await leave()  # it has left, whatever the transport told
        return response


async def _before_the_first_byte(event: str, _: Mapping[str, Any]) -> None:
    if event.endswith(".send_request_headers.started"):
        await leave()


def paid_client(context: ssl.SSLContext, *, timeout_seconds: float) -> httpx.AsyncClient:
    """A client for paid POSTs: every request on a fresh connection, sent once."""
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0)
    transport = _Departing(verify=context, limits=limits, retries=0, trust_env=False)
    return _client(transport, timeout_seconds, {"Connection": "close"})


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


# --- bodies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SavedBody:
    size: int  # bytes
    sha256: str
    head: bytes  # the first bytes, for sniffing


class _Part:
    """A file that grows in batches, written and hashed off the loop."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.size = 0
        self.head = b""

    async def add(self, chunk: bytes, *, head_bytes: int) -> None:
        self.size += len(chunk)
        if len(self.head) < head_bytes:
            self.head = (self.head + chunk)[:head_bytes]
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= _WRITE_BYTES:
            await asyncio.to_thread(self._flush, self._take())

    async def finish(self, *, durable: bool) -> SavedBody:
        await asyncio.to_thread(self._flush, self._take(), last=True, durable=durable)
        return SavedBody(self.size, self._digest.hexdigest(), self.head)

    def _take(self) -> list[bytes]:
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        return batch

    def _flush(self, batch: list[bytes], *, last: bool = False, durable: bool = False) -> None:
        for chunk in batch:
            self._file.write(chunk)
            self._digest.update(chunk)
        if last:
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())


async def save_body(
    chunks: AsyncIterator[bytes], target: Path, *, max_bytes: int, head_bytes: int, durable: bool
) -> SavedBody:
    """Stream a body to ``<target>.part`` and rename it to ``target`` when it is whole; memory stays near 1 MiB.

    ``durable`` syncs file and directory before returning. Nothing is left behind when it fails. Raises
    BodyTooLarge, BodyEmpty, OSError, and what ``chunks`` raises.
    """
    path = target.with_name(f"{target.name}.part")
    try:
        with path.open("wb") as file:
            part = _Part(file)
            async for chunk in chunks:
                if part.size + len(chunk) > max_bytes:
                    raise BodyTooLarge
                await part.add(chunk, head_bytes=head_bytes)
            if part.size == 0:
                raise BodyEmpty
            saved = await part.finish(durable=durable)
        await asyncio.to_thread(_rename, path, target, durable=durable)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return saved


def _rename(part: Path, target: Path, *, durable: bool) -> None:
    part.replace(target)
    if durable:
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


async def read_body(response: httpx.Response, *, max_bytes: int) -> bytes:
    """The body of a streamed response. Raises BodyTooLarge, httpx.TransportError."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge
    return bytes(body)


# --- what went wrong --------------------------------------------------------------------------------------------


def transport_failure(error: BaseException | None) -> ProviderError:
    """What a broken exchange of a paid call means: REFUSED when no request left, else UNKNOWN."""
    if isinstance(error, _NOT_SENT):
        return unreachable()
    kind = type(error).__name__ if isinstance(error, httpx.TransportError) else "interrupted"
    return OutcomeUnknown(
        ErrorCode.PROVIDER_OUTCOME_UNKNOWN,
        "The connection to the provider broke after the request was sent.",
        provider_code=kind,
    )


def unreachable(retry_after: float | None = None, http_status: int | None = None) -> Refused:
    """The provider did not take the request, or a free request failed; a later one may succeed."""
    return Refused(
        ErrorCode.PROVIDER_UNAVAILABLE,
        "The provider can not be reached just now.",
        http_status=http_status,
        advice=Advice.RETRY,
        retry_after=retry_after,
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks us to wait: ``retry-after-ms``, or ``retry-after`` as seconds or HTTP date."""
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _positive(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _positive(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def identifier(value: object, *, secret: str) -> str | None:
    """A provider's code or request id, if it looks like one and does not hold the key; free text never passes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value) or secret in value:
        return None
    return value
