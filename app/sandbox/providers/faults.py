"""Knobs and faults, settable while the sandbox runs. Tests and client developers use them; nothing is on by default.

A fault names the place (``where``) and what goes wrong (``kind``); it strikes the next ``count`` calls, or each with
a ``probability``. Faults ``…_after`` strike when the call was accepted and charged already.
"""

from __future__ import annotations

import asyncio
import hmac
import random
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from app.config import SandboxSettings
from app.sandbox.providers.store import Store

Where = Literal["openai", "tripo.submit", "tripo.task", "tripo.poll", "tripo.upload", "tripo.download", "tripo.account"]


class Fault(BaseModel):
    """Kinds by place.

    ``openai`` and ``tripo.submit``: reset_before, status_before, html_before, reset_after, stall_after, status_after,
    truncated_after, empty_after, no_id_after; ``openai`` also moderation, quota, fewer_images, broken_image,
    jpeg_for_png, no_usage. ``tripo.task`` (the task that is submitted next): stays_queued, stays_at_99, failed,
    banned, expired, cancelled, unknown, no_output, wrong_format, huge. ``tripo.poll``: missed, null_progress, status,
    code_200, reset. ``tripo.upload``: status. ``tripo.download``: expired, missing, slow, cut, html, redirect.
    ``tripo.account``: status, empty_usage.
    """

    where: Where
    kind: str
    count: int | None = Field(1, ge=1, description="how many calls; all when null")
    probability: float = Field(1.0, ge=0, le=1)
    status: int = 500
    body: dict[str, Any] | None = None
    seconds: float = 600.0
    headers: dict[str, str] = {}


class Knobs(BaseModel):
    """Speeds, sizes and limits. ``work_seconds`` is the time of one piece of work."""

    work_seconds: float = Field(2.0, ge=0)
    submit_seconds: float = Field(0.0, ge=0)
    link_seconds: float = Field(300.0, gt=0)
    usage_delay_seconds: float = Field(0.0, ge=0)
    creations_per_minute: int = Field(2000, ge=1)
    uploads_per_minute: int = Field(600, ge=1)
    pools: dict[str, int] = Field(default_factory=lambda: {"h": 10, "p": 5, "image": 1, "texture": 5, "import": 20})
    list_shape: Literal["dict", "list"] = "dict"
    usage_shape: Literal["items", "list"] = "items"


class Balance(BaseModel):
    key: str = Field(description="the API key whose account is set")
    balance: str


@dataclass
class Script:
    """What is armed now."""

    knobs: Knobs
    armed: list[Fault] = field(default_factory=list[Fault])
    hits: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, where: Where, *, after: bool | None = None) -> Fault | None:
        """The fault that strikes this call. ``after`` selects faults that strike after, or before, acceptance."""
        for fault in self.armed:
            if fault.where != where or (after is not None and fault.kind.endswith("_after") is not after):
                continue
            if random.random() >= fault.probability:
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.armed.remove(fault)
            name = f"{where}:{fault.kind}"
            self.hits[name] = self.hits.get(name, 0) + 1
            return fault
        return None


def abort(request: Request) -> None:
    """Cut the connection under the request, without an answer."""
    owner = getattr(request.receive, "__self__", None)
    transport = getattr(owner, "transport", None)
    if transport is None:
        raise ConnectionResetError("the sandbox cut this connection on request")
    transport.abort()


async def strike(fault: Fault, request: Request) -> Response | None:
    """Carry out a transport fault: the answer to send instead; None when the fault is of another sort."""
    match fault.kind:
        case "reset_before" | "reset_after" | "reset":
            abort(request)
            return Response(status_code=499)
        case "stall_after":
            await asyncio.sleep(fault.seconds)
            return Response(status_code=504)
        case "html_before":
            return Response("<html><h1>502 Bad Gateway</h1></html>", 502, media_type="text/html")
        case "status_before" | "status_after" | "status":
            if fault.body is None:
                return Response("upstream error", fault.status, fault.headers, media_type="text/plain")
            from starlette.responses import JSONResponse

            return JSONResponse(fault.body, fault.status, fault.headers)
        case "empty_after":
            return Response(b"", 200, media_type="application/json")
        case "truncated_after":
            return Response(b'{"code":0,"data":{"task', 200, media_type="application/json")
        case "no_id_after":
            return Response(b'{"code":0,"status":"success","data":{}}', 200, media_type="application/json")
        case _:
            return None


def mount_admin(app: FastAPI, settings: SandboxSettings, script: Script, store: Store, account_of: Any) -> None:  # noqa: ANN401
    """``/admin``: ledger, knobs, faults and balances, behind the admin key."""

    def check(key: str) -> None:
        if not hmac.compare_digest(key.encode(), settings.admin_key.get_secret_value().encode()):
            raise HTTPException(403)

    @app.get("/admin/ledger")
    async def ledger(x_admin_key: str = Header("")) -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        return await asyncio.to_thread(store.ledger)

    @app.get("/admin/knobs")
    async def read_knobs(x_admin_key: str = Header("")) -> Knobs:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        return script.knobs

    @app.post("/admin/knobs")
    async def set_knobs(changes: dict[str, Any], x_admin_key: str = Header("")) -> Knobs:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        script.knobs = Knobs.model_validate(script.knobs.model_dump() | changes)
        return script.knobs

    @app.get("/admin/faults")
    async def read_faults(x_admin_key: str = Header("")) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        return {"armed": script.armed, "hits": script.hits}

    @app.post("/admin/faults", status_code=201)
    async def arm(fault: Fault, x_admin_key: str = Header("")) -> Fault:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        script.armed.append(fault)
        return fault

    @app.delete("/admin/faults", status_code=204)
    async def clear(x_admin_key: str = Header("")) -> None:  # pyright: ignore[reportUnusedFunction]
        check(x_admin_key)
        script.armed.clear()
        script.hits.clear()

    @app.post("/admin/balance", status_code=204)
    async def set_balance(wanted: Balance, x_admin_key: str = Header("")) -> None:  # pyright: ignore[reportUnusedFunction]
        from decimal import Decimal

        check(x_admin_key)
        await asyncio.to_thread(store.set_balance, account_of(wanted.key), Decimal(wanted.balance))
