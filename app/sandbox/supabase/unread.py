"""What an answer does to the connection when the body of its request is not read.

Measured on Storage v1.70.6: a refusal that comes before the body (the key exists, no such bucket, a type or size that
the bucket does not take, no right) leaves a body over about 64 kB unread and says ``connection: keep-alive``. The next
request on that connection gets no answer. A client that is still sending several megabytes does not even see this
one. With ``Connection: close`` on the request the answer comes at once and the connection ends.

uvicorn would read on and throw the rest away. So the connection is told to read no more, and is closed in the end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ_ALL_THE_SAME = 64 * 1024
_HELD_SECONDS = 300.0  # as long as the real server waits for a request to become whole


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

        async def held(message: Message) -> None:
            if message["type"] == "http.response.start" and exchange.more_body and exchange.keep_alive:
                MutableHeaders(scope=message)["connection"] = "keep-alive"
            await send(message)
            if exchange.response_complete and exchange.more_body:
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


__all__ = ["UnreadBodies"]
