"""What storage was asked and what it answered, for suites that count."""

from __future__ import annotations

import hmac
from collections import deque
from dataclasses import asdict, dataclass

from fastapi import FastAPI, Header, HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.sandbox_settings import SandboxSettings

_KEPT = 1000


@dataclass
class StorageCall:
    """``received`` are the bytes of its body that were read; ``status`` is None until an answer was begun."""

    method: str
    path: str
    received: int = 0
    status: int | None = None
    is_over: bool = False


class StorageCalls:
    """ASGI middleware around the storage routes; the last calls are kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.kept: deque[StorageCall] = deque(maxlen=_KEPT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = StorageCall(scope["method"], scope["path"])
        self.kept.append(call)

        async def received() -> Message:
            message = await receive()
            call.received += len(message.get("body", b""))
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            call.is_over = True


def mount_storage_calls(app: FastAPI, calls: StorageCalls, settings: SandboxSettings) -> None:
    """``GET /admin/storage-calls?path_contains=…`` (header ``X-Admin-Key``): the last calls, oldest first."""

    @app.get("/admin/storage-calls")
    async def read(path_contains: str = "", x_admin_key: str = Header("")) -> list[dict[str, object]]:  # pyright: ignore[reportUnusedFunction]
        if not hmac.compare_digest(x_admin_key.encode(), settings.admin_key.get_secret_value().encode()):
            raise HTTPException(403)
        return [asdict(call) for call in calls.kept if path_contains in call.path]


__all__ = ["StorageCall", "StorageCalls", "mount_storage_calls"]
