"""What a refusal does to the connection when the body of its request is not read.

Measured on Storage v1.70.6. Once an upload's body is begun, a refusal (the key exists, no right, a key of foreign
letters; for a form also its type) leaves the rest unread and says ``connection: keep-alive``. Up to 130 kB are read
all the same, from 400 kB on the next request on that connection gets no answer, between them chance decides. A client
that is still sending several megabytes does not even see the refusal. With ``Connection: close`` on the request the
answer comes at once and the connection ends. What is refused before the body is begun (no such bucket, and of a raw
body its type and declared size) is thrown away as it arrives, and the connection goes on.

uvicorn throws every body away. So the connection is told to read no more, and is closed in the end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ_ALL_THE_SAME = 128 * 1024
_HELD_SECONDS = 61.0  # measured: then the server closes an idle connection
_BEGUN = "storage_body_begun"


def begin_body(request: Request) -> None:
    """From here on a refusal leaves the body of the request unread."""
    request.scope["state"][_BEGUN] = True


class UnreadBodies:
    """ASGI middleware; it needs uvicorn's own connection, so nothing outside it may wrap ``receive``."""

    def __init__(self, app: ASGIApp, held_seconds: float = _HELD_SECONDS) -> None:
        self._app = app
        self._held_seconds = held_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Any = getattr(receive, "__self__", None)  # uvicorn hands out the method of an object
        if scope["type"] != "http" or not hasattr(exchange, "more_body") or not _is_large(scope):
            await self._app(scope, receive, send)
            return

        state = scope.setdefault("state", {})

        async def held(message: Message) -> None:
            is_unread = exchange.more_body and exchange.keep_alive and _BEGUN in state
            if is_unread and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "keep-alive"
            await send(message)
            if is_unread and exchange.response_complete:
                self._hold(exchange)

        await self._app(scope, receive, held)

    def _hold(self, exchange: Any) -> None:  # noqa: ANN401 - uvicorn exports no type for it
        transport: asyncio.Transport = exchange.transport
        if transport.is_closing():
            return
        exchange.flow.pause_reading()
        timer: asyncio.TimerHandle | None = getattr(transport.get_protocol(), "timeout_keep_alive_task", None)
        if timer is not None:
            timer.cancel()  # it would end the connection after seconds
        asyncio.get_running_loop().call_later(self._held_seconds, transport.close)


def _is_large(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) > _READ_ALL_THE_SAME
        if name == b"transfer-encoding":
            return True
    return False


__all__ = ["UnreadBodies", "begin_body"]
