"""Webhooks as Tripo sends them, and the signatures of Tripo's and OpenAI's schemes.

One address per account, registered by hand (``POST /admin/webhook``). What is not answered with 2xx within five
seconds is sent again a few times. A process that dies forgets what it had not delivered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx

from app.sandbox.providers.faults import KINDS, Fault, Script
from app.sandbox.providers.knobs import KnobBoard
from app.sandbox.providers.links import Links, told_output, told_time
from app.sandbox.providers.store import Store
from app.sandbox.providers.tripo_tasks import Task

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_FIRST_PAUSE = 0.5  # seconds, doubled after each attempt
_ANSWER_WITHIN = 5.0  # seconds
_OLD = 3600  # seconds
_ON_SENDING = KINDS["webhook"] - {"before_reply"}


def tripo_signature(secret: str, timestamp: int, body: bytes) -> str:
    """Lowercase hex; the key is the whole secret text, its ``whsec_`` included."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def openai_headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Standard Webhooks: the key is what is base64 behind ``whsec_``. Raises ValueError for another secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    digest = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class Webhooks:
    def __init__(self, store: Store, script: Script, board: KnobBoard, links: Links) -> None:
        self._store = store
        self._script = script
        self._board = board
        self._links = links
        self._client: httpx.AsyncClient | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._held: list[tuple[str, dict[str, Any], Fault | None]] = []

    def open(self) -> None:
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_ANSWER_WITHIN)

    async def close(self) -> None:
        for sending in list(self._sending):
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def register(self, account: str, url: str | None, secret: str) -> None:
        """Where an account's events go from now on; nowhere without a URL."""
        with self._store.transaction() as db:
            db.execute("delete from webhooks where account = ?", (account,))
            if url is not None:
                db.execute("insert into webhooks values (?, ?, ?)", (account, url, secret))

    # --- events ---------------------------------------------------------------------------------------------

    def task_ended(self, task: Task) -> None:
        knobs = self._board.of(task.account)
        fault = self._script.take("webhook", among=_ON_SENDING)
        data: dict[str, Any] = {"task_id": task.id, "type": task.kind.replace("-", "_")}
        if task.status == "success":
            name = "task.completed"
            data |= {"status": "success", "output": told_output(task, knobs, self._links)}
        else:
            name = "task.failed"
            data["status"] = task.status
            message = task.error_message or "The task was cancelled"
            if fault is not None and fault.kind == "error_fields":
                data |= {"error_code": task.error_code, "error_message": message}
            else:
                data["error"] = {"code": "task_failed", "message": message}
        if fault is not None and fault.kind == "unknown_type":
            name = "task.sparkled"
        event = {"id": f"{task.id}:{name}", "type": name, "created_at": told_time(time.time(), knobs), "data": data}
        self._send(task.account, event, fault)

    def balance_low(self, task: Task, left: Decimal, threshold: Decimal) -> None:
        """Names the task that took the credits, as was seen, though the event is not about it."""
        data = {"task_id": task.id, "balance": float(left), "threshold": float(threshold)}
        told = told_time(time.time(), self._board.of(task.account))
        event = {"id": str(uuid4()), "type": "balance.low", "created_at": told, "data": data}
        self._send(task.account, event, self._script.take("webhook", among=_ON_SENDING))

    async def sent(self) -> None:
        """Wait until everything that is being sent has arrived or was given up."""
        if self._sending:
            await asyncio.wait(list(self._sending))

    def _send(self, account: str, event: dict[str, Any], fault: Fault | None) -> None:
        kind = "" if fault is None else fault.kind
        if kind == "lost":
            return
        if kind == "out_of_order":
            self._held.append((account, event, None))
            return
        if kind == "late" and fault is not None:
            self._background(self._late(account, event, fault.seconds))
        else:
            self._background(self._deliver(account, event, fault))
            if kind == "duplicate":
                self._background(self._deliver(account, event, fault))
        held, self._held = self._held, []
        for earlier in held:
            self._background(self._deliver(*earlier))

    async def _late(self, account: str, event: dict[str, Any], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._deliver(account, event, None)

    def _background(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, account: str, event: dict[str, Any], fault: Fault | None) -> None:
        body = json.dumps(event, separators=(",", ":")).encode()
        for attempt in range(_ATTEMPTS):
            row = self._store.row("select url, secret from webhooks where account = ?", (account,))
            if row is None:
                return
            if await self.post(row["url"], _headers(event, body, row["secret"], fault), body):
                return
            await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
        log.warning("a sandbox webhook was given up after %d attempts", _ATTEMPTS)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> bool:
        """Whether the receiver said 2xx in time."""
        if self._client is None:
            raise RuntimeError("the sandbox's webhook sender is not open")
        try:
            answer = await self._client.post(url, headers=headers, content=body)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return answer.is_success


def _headers(event: dict[str, Any], body: bytes, secret: str, fault: Fault | None) -> dict[str, str]:
    kind = "" if fault is None else fault.kind
    timestamp = int(time.time()) - (_OLD if kind == "old_signature" else 0)
    good, bad = tripo_signature(secret, timestamp, body), tripo_signature(f"{secret}!", timestamp, body)
    signatures = {"bad_signature": [bad], "two_signatures": [bad, good]}.get(kind, [good])
    return {
        "Content-Type": "application/json",
        "Tripo-Webhook-Id": str(event["id"]),
        "Tripo-Webhook-Delivery": hashlib.sha256(str(event["id"]).encode()).hexdigest()[:32],
        "Tripo-Webhook-Event": str(event["type"]),
        "Tripo-Webhook-Signature": ",".join([f"t={timestamp}", *(f"v1={one}" for one in signatures)]),
        "X-MakeIt3D-Sandbox": "sandbox",
    }
