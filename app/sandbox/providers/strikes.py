"""Carrying out transport faults: connections that break, stall, lie about their length or answer with rubbish."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.sandbox.providers.faults import Fault

_HANG_UP_NOW = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close sends RST


@dataclass(frozen=True, slots=True)
class Rubbish:
    """Bodies that look like the provider's and are of no use."""

    truncated: bytes
    without_result: bytes


OPENAI_RUBBISH = Rubbish(b'{"created":1795200000,"data":[{"b64_json":"iVBORw0KGgoAAAANSUhE', b'{"created":1795200000}')
TRIPO_RUBBISH = Rubbish(b'{"code":0,"status":"success","data":{"task', b'{"code":0,"status":"success","data":{}}')


def reset(scope: Scope) -> None:
    """Cut the connection under a request with a TCP reset, without an answer."""
    transport = scope["state"]["sandbox_transport"]
    found = transport.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(found.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP_NOW)
    transport.abort()


def hang_up(scope: Scope) -> None:
    """Close the connection in good order, whatever was promised."""
    scope["state"]["sandbox_transport"].close()


async def strike(fault: Fault, request: Request, rubbish: Rubbish) -> Response | None:
    """The answer to send instead; None when the true answer follows (``late``) or the fault is of another sort."""
    match fault.kind.removesuffix("_before").removesuffix("_after"):
        case "reset":
            reset(request.scope)
            return Silence()
        case "stall":
            await asyncio.sleep(fault.seconds)
            reset(request.scope)
            return Silence()
        case "late":
            await asyncio.sleep(fault.seconds)
            return None
        case "html":
            page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
            status = fault.status if "status" in fault.model_fields_set else 502
            return Response(page, status, fault.headers, media_type="text/html")
        case "status":
            if fault.body is None:
                return Response("upstream error", fault.status, fault.headers, media_type="text/plain")
            return JSONResponse(fault.body, fault.status, fault.headers)
        case "empty":
            return Response(b"", 200, media_type="application/json")
        case "truncated":
            return Response(rubbish.truncated, 200, media_type="application/json")
        case "no_id":
            return Response(rubbish.without_result, 200, media_type="application/json")
        case _:
            return None


class Silence(Response):
    """Nothing is sent: the connection is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send


class CutShort(Response):
    """The first half of a body whose whole length was announced; then the connection is reset."""

    def __init__(self, whole: Response) -> None:
        super().__init__(b"", whole.status_code, dict(whole.headers))
        self._whole = bytes(whole.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send(
            {"type": "http.response.body", "body": self._whole[: max(1, len(self._whole) // 2)], "more_body": True}
        )
        await asyncio.sleep(0.05)  # a reset overtakes bytes that wait in the socket
        reset(scope)


class Streamed(Response):
    """A body from an iterator, sent as it comes; the iterator may cut the connection and end."""

    def __init__(self, blocks: AsyncIterator[bytes], *, headers: dict[str, str], status: int = 200) -> None:
        super().__init__(b"", status)
        self.init_headers(headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for block in self._blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        transport: Any = scope["state"]["sandbox_transport"]
        if not transport.is_closing():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
