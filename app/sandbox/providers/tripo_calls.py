"""What all Tripo routes share: the key, the envelope, the rate headers, and faults that strike any call."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.sandbox.providers.accounts import Account, KeyRing
from app.sandbox.providers.faults import Fault, Script, Where
from app.sandbox.providers.knobs import KnobBoard, Knobs
from app.sandbox.providers.rates import Rates
from app.sandbox.providers.strikes import TRIPO_RUBBISH, strike
from app.sandbox.providers.tripo_refusals import TripoRefusal, bad_key, refusal_of, too_many

_MAX_JSON_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that came in with a good key."""

    request: Request
    account: Account
    knobs: Knobs

    def success(self, data: object) -> Response:
        status = {"status": "success"} if self.knobs.envelope_status else {}
        return JSONResponse({"code": 0, **status, "data": data})

    async def json(self) -> tuple[dict[str, Any], bytes]:
        """The body, and its bytes. Raises TripoRefusal."""
        if self.request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise TripoRefusal(415, 1003, "The content type must be application/json")
        raw = bytearray()
        async for block in self.request.stream():
            raw += block
            if len(raw) > _MAX_JSON_BYTES:
                raise TripoRefusal(413, 1003, "The body is too large")
        try:
            value: object = json.loads(raw)
        except (ValueError, RecursionError):
            raise TripoRefusal(400, 1003, "The body is not JSON") from None
        if not isinstance(value, dict):
            raise TripoRefusal(400, 1003, "The body is not an object")
        return cast("dict[str, Any]", value), bytes(raw)


Handler = Callable[[Asked], Awaitable[Response]]


class TripoCalls:
    def __init__(self, keys: KeyRing, board: KnobBoard, script: Script) -> None:
        self._keys = keys
        self._board = board
        self._script = script
        self._rates = Rates()

    def answering(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            account = self._keys.account(request.headers.get("authorization"))
            knobs = self._board.of(account.id if account else None)
            try:
                if account is None:
                    raise bad_key()
                asked = Asked(request, account, knobs)
                response = await self.struck(asked, self.take(asked, "tripo")) or await handler(asked)
            except TripoRefusal as refusal:
                response = refusal.response()
            headers = response.headers
            headers["X-Tripo-Trace-ID"] = request.headers.get("x-tripo-trace-id", str(uuid4()))
            limit = knobs.creations_per_minute
            used = self._rates.used("create", account.id) if account else 0
            headers.setdefault("X-RateLimit-Limit", str(limit))
            headers.setdefault("X-RateLimit-Remaining", str(max(0, limit - used)))
            headers.setdefault("X-RateLimit-Reset", "60")
            return response

        return answer

    def take(
        self, asked: Asked, where: Where, among: frozenset[str] | None = None, *, prompt: object = ""
    ) -> Fault | None:
        path = asked.request.url.path
        return self._script.take(where, path=path, prompt=str(prompt), account=asked.account, among=among)

    async def struck(self, asked: Asked, fault: Fault | None) -> Response | None:
        """The answer that a fault puts in place of the true one; None when there is none. Raises TripoRefusal."""
        if fault is None:
            return None
        refusal = refusal_of(fault)
        if refusal is not None:
            raise refusal
        return await strike(fault, asked.request, TRIPO_RUBBISH)

    def enter(self, asked: Asked, what: str, per_minute: int) -> None:
        """Count a call against its rate. Raises TripoRefusal."""
        wait = self._rates.enter(what, asked.account.id, per_minute)
        if wait is not None:
            raise too_many(math.ceil(wait))

    async def pause(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
