"""What every reply of the sandbox bears, and what its routes need to know of the connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-MakeIt3D-Sandbox"


class Marks:
    """ASGI middleware: the header that says ``sandbox``, and the Date of a clock that can be set wrong."""

    def __init__(self, app: ASGIApp, skew: Callable[[], float]) -> None:
        self._app = app
        self._skew = skew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # uvicorn hands out the method of an object that knows the connection; faults act on that
        exchange: Any = getattr(receive, "__self__", None)
        scope["state"] = {**scope.get("state", {}), "sandbox_transport": getattr(exchange, "transport", None)}

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = "sandbox"
                if skew := self._skew():
                    own = getattr(exchange, "default_headers", [])
                    exchange.default_headers = [(name, value) for name, value in own if name != b"date"]
                    headers["Date"] = formatdate(time.time() + skew, usegmt=True)
            await send(message)

        await self._app(scope, receive, marked)
