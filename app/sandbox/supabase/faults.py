"""Storage that misbehaves on request: the next N calls, or a share of them."""

from __future__ import annotations

import asyncio
import hmac
import random
from dataclasses import dataclass, field
from typing import Literal

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import SandboxSettings

FaultKind = Literal["error_before", "slow", "truncate", "drop_reply", "database_timeout"]


class StorageFault(BaseModel):
    """``drop_reply`` does the work and then closes the connection without an answer."""

    kind: FaultKind
    count: int | None = Field(None, ge=1, description="how many calls; all when absent")
    probability: float = Field(1.0, ge=0, le=1)
    method: str | None = None
    path_contains: str | None = None
    status: int = Field(503, ge=500, le=599)
    bytes_per_second: int = Field(50_000, ge=1)


@dataclass
class FaultScript:
    """What is armed. ``hits`` counts the calls that were spoiled."""

    armed: list[StorageFault] = field(default_factory=list[StorageFault])
    hits: int = 0

    def take(self, method: str, path: str) -> StorageFault | None:
        for fault in self.armed:
            if fault.method not in (None, method) or (fault.path_contains or "") not in path:
                continue
            if random.random() >= fault.probability:
                continue
            self.hits += 1
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.armed.remove(fault)
            return fault
        return None


class StorageFaults:
    """ASGI middleware around the storage routes."""

    def __init__(self, app: ASGIApp, script: FaultScript) -> None:
        self._app = app
        self._script = script

    @staticmethod
    def mount_admin(app: FastAPI, settings: SandboxSettings) -> None:
        """``/admin/storage-faults``: read, arm and clear."""
        script = FaultScript()
        app.state.storage_faults = script

        def check(key: str) -> None:
            if not hmac.compare_digest(key.encode(), settings.admin_key.get_secret_value().encode()):
                raise HTTPException(403)

        @app.get("/admin/storage-faults")
        async def read(x_admin_key: str = Header("")) -> dict[str, object]:  # pyright: ignore[reportUnusedFunction]
            check(x_admin_key)
            return {"armed": script.armed, "hits": script.hits}

        @app.post("/admin/storage-faults", status_code=201)
        async def arm(fault: StorageFault, x_admin_key: str = Header("")) -> StorageFault:  # pyright: ignore[reportUnusedFunction]
            check(x_admin_key)
            script.armed.append(fault)
            return fault

        @app.delete("/admin/storage-faults", status_code=204)
        async def clear(x_admin_key: str = Header("")) -> None:  # pyright: ignore[reportUnusedFunction]
            check(x_admin_key)
            script.armed.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._script.take(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        match fault.kind:
            case "error_before":
                await Response("<html>bad gateway</html>", fault.status, media_type="text/html")(scope, receive, send)
            case "database_timeout":
                body = '{"statusCode":"544","error":"DatabaseTimeout","message":"timeout","code":"DatabaseTimeout"}'
                await Response(body, 544, media_type="application/json")(scope, receive, send)
            case _:
                await self._spoil(fault, scope, receive, send)

    async def _spoil(self, fault: StorageFault, scope: Scope, receive: Receive, send: Send) -> None:
        sent = 0

        async def spoiled(message: Message) -> None:
            nonlocal sent
            if fault.kind == "drop_reply":
                return
            if message["type"] == "http.response.body":
                body = message.get("body", b"")
                if fault.kind == "slow":
                    await asyncio.sleep(len(body) / fault.bytes_per_second)
                elif fault.kind == "truncate":
                    if sent:
                        return
                    message = {**message, "body": body[: len(body) // 2], "more_body": True}
                sent += len(body)
            await send(message)

        await self._app(scope, receive, spoiled)
        if fault.kind in ("drop_reply", "truncate"):
            raise ConnectionResetError("the sandbox cut this reply on request")
