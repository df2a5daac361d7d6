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

from app.sandbox.supabase.errors import database_unavailable
from app.sandbox_settings import SandboxSettings

FaultKind = Literal["error_before", "slow", "truncate", "drop_reply", "database_timeout", "slow_upload"]


class StorageFault(BaseModel):
    """What goes wrong, and for which calls.

    ``error_before`` and ``database_timeout`` do nothing and answer an error; ``slow`` and ``truncate`` spoil
    the reply's body; ``drop_reply`` does the work, then cuts the connection before the answer is told;
    ``slow_upload`` reads the request's body slowly.
    """

    kind: FaultKind
    count: int | None = Field(None, ge=1, description="how many calls; all when absent")
    probability: float = Field(1.0, ge=0, le=1)
    method: str | None = Field(None, description="GET, POST, …; any when absent")
    path_contains: str = ""
    status: int = Field(503, ge=500, le=599, description="of error_before, as a proxy in front would say it")
    bytes_per_second: int = Field(50_000, ge=1, description="of slow and slow_upload")


@dataclass
class FaultScript:
    """What is armed. ``hits`` counts the calls that were spoiled."""

    dice: random.Random
    armed: list[StorageFault] = field(default_factory=list[StorageFault])
    hits: int = 0

    def take(self, method: str, path: str) -> StorageFault | None:
        for fault in self.armed:
            if fault.method not in (None, method) or fault.path_contains not in path:
                continue
            if self.dice.random() >= fault.probability:
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._script.take(scope["method"], scope["path"]) if scope["type"] == "http" else None
        match fault:
            case None:
                await self._app(scope, receive, send)
            case StorageFault(kind="error_before"):
                page = Response("<html>sandbox fault</html>", fault.status, media_type="text/html")
                await page(scope, receive, send)
            case StorageFault(kind="database_timeout"):
                await database_unavailable().response()(scope, receive, send)
            case StorageFault(kind="slow"):
                await self._app(scope, receive, _slowed(send, fault.bytes_per_second))
            case StorageFault(kind="slow_upload"):
                await self._app(scope, _read_slowly(receive, fault.bytes_per_second), send)
            case StorageFault(kind="truncate"):
                await self._app(scope, receive, _truncated(send))
            case _:
                await self._app(scope, receive, _unsent)
                # the least that makes a server cut the connection: a body announced and never sent
                headers = [(b"content-length", b"1")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})


def _read_slowly(receive: Receive, bytes_per_second: int) -> Receive:
    async def slowed() -> Message:
        message = await receive()
        await asyncio.sleep(len(message.get("body", b"")) / bytes_per_second)
        return message

    return slowed


def _slowed(send: Send, bytes_per_second: int) -> Send:
    step = max(1, bytes_per_second // 10)

    async def slowed(message: Message) -> None:
        body = message.get("body", b"")
        for at in range(0, len(body) - step, step):
            await send({**message, "body": body[at : at + step], "more_body": True})
            await asyncio.sleep(step / bytes_per_second)
        if body:
            last = (len(body) - 1) // step * step
            await asyncio.sleep((len(body) - last) / bytes_per_second)
            message = {**message, "body": body[last:]}
        await send(message)

    return slowed


def _truncated(send: Send) -> Send:
    """Half of the first block, and no end: the server cuts the connection."""
    cut = False

    async def truncated(message: Message) -> None:
        nonlocal cut
        if cut:
            return
        body = message.get("body", b"")
        if body:
            cut = True
        if message["type"] == "http.response.body":
            message = {**message, "body": body[: len(body) // 2], "more_body": True}
        await send(message)

    return truncated


async def _unsent(message: Message) -> None:
    del message


def mount_storage_faults(app: FastAPI, settings: SandboxSettings) -> FaultScript:
    """``/admin/storage-faults`` (header ``X-Admin-Key``): read, arm and clear."""
    script = FaultScript(random.Random(settings.seed))

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
        return fault.model_copy()

    @app.delete("/admin/storage-faults", status_code=204)
    async def clear(x_admin_key: str = Header("")) -> None:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        script.armed.clear()
        script.hits = 0

    return script


__all__ = ["FaultScript", "StorageFault", "StorageFaults", "mount_storage_faults"]
