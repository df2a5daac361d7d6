"""Apps: each asks, repeats until accepted, follows, sometimes cancels, and keeps what it was told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from tests.chaos.soak.plan import Order

FINAL = ("complete", "failed", "canceled")
_PATIENCE = 180.0  # seconds that a client goes on asking
_SOON = (408, 425, 429, 500, 502, 503, 504)


@dataclass
class Told:
    """What the gateway told a client about one order."""

    order: Order
    job_id: str
    canceled: bool = False  # a cancel was asked for
    status: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Crowd:
    """All clients of a soak and what they saw. ``lies`` are broken promises of the interface itself."""

    http: httpx.AsyncClient
    tokens: list[str]
    inputs: list[tuple[str, str]]  # URLs of a picture and a sketch, by user
    told: list[Told] = field(default_factory=list[Told])
    given_up: int = 0
    lies: list[str] = field(default_factory=list[str])
    answers: Counter[int] = field(default_factory=Counter[int])
    models: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    streams: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])

    def headers(self, user: int, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[user]}", **more}

    # --- one order ------------------------------------------------------------------------------------------

    async def follow(self, order: Order) -> None:
        """Ask until accepted, then read the status until it is final."""
        if order.operation == "refine-model" and not self.models.get(order.user):
            order = replace(order, operation="text-to-model")  # there is nothing yet to refine
        body = self._body(order)
        accepted = await self._accepted(order, body)
        if accepted is None:
            self.given_up += 1
            return
        told = Told(order, accepted["job_id"])
        self.told.append(told)
        async with asyncio.TaskGroup() as group:
            if order.cancel_after is not None:
                group.create_task(self._cancel(told, order.cancel_after))
            if order.repeat_after is not None:
                group.create_task(self._repeat(told, body, order.repeat_after))
            group.create_task(self._watch(told))

    def _body(self, order: Order) -> dict[str, Any]:
        body: dict[str, Any] = {"task_id": order.task_id, **order.fields}
        inputs = self.inputs[order.user]
        match order.operation:
            case "image-to-image":
                body["input_image_asset_url"] = inputs[0]
            case "image-to-model":
                body["input_image_asset_urls"] = [inputs[0]]
            case "sketch-to-model":
                body["input_sketch_asset_url"] = inputs[1]
            case "refine-model":
                body["input_model_asset_url"] = self.models[order.user][-1]
                body.setdefault("prompt", "polished brass")
            case _:
                pass
        return body

    async def _accepted(self, order: Order, body: Mapping[str, Any]) -> dict[str, Any] | None:
        headers = {"Idempotency-Key": order.key}
        answer = await self._asked(order.user, "POST", f"/generate/{order.operation}", json=body, headers=headers)
        if answer is None:
            return None
        if answer.status_code != 202:
            self.lies.append(f"{order.operation} was answered {answer.status_code}: {answer.text[:300]}")
            return None
        return answer.json()

    async def _repeat(self, told: Told, body: Mapping[str, Any], after: float) -> None:
        await asyncio.sleep(after)
        again = await self._accepted(told.order, body)
        if again is not None and (again["job_id"] != told.job_id or not again["deduplicated"]):
            self.lies.append(f"a repeat of job {told.job_id} became job {again['job_id']}")

    async def _cancel(self, told: Told, after: float) -> None:
        await asyncio.sleep(after)
        told.canceled = True
        answer = await self._asked(told.order.user, "POST", f"/tasks/{told.order.task_id}/cancel")
        if answer is not None and answer.status_code not in (200, 202, 204, 409):
            self.lies.append(f"a cancel was answered {answer.status_code}: {answer.text[:300]}")

    async def _watch(self, told: Told) -> None:
        while told.status.get("status") not in FINAL:
            answer = await self._asked(
                told.order.user, "GET", f"/tasks/{told.job_id}/status", params={"wait": "10"}, patience=None
            )
            if answer is None or answer.status_code != 200:
                self.lies.append(f"status of accepted job {told.job_id}: {answer and answer.status_code}")
                return
            told.status = answer.json()
        if told.status["status"] == "complete" and told.order.operation in ("text-to-model", "image-to-model"):
            self.models.setdefault(told.order.user, []).append(told.status["asset_url"])

    async def _asked(
        self,
        user: int,
        method: str,
        path: str,
        *,
        patience: float | None = _PATIENCE,
        **request: Any,  # noqa: ANN401 - httpx's own
    ) -> httpx.Response | None:
        """The first answer that is one; None when nobody gave one for so many seconds."""
        headers = self.headers(user, **request.pop("headers", {}))
        give_up = None if patience is None else asyncio.get_running_loop().time() + patience
        while True:
            pause = 0.5
            try:
                answer = await self.http.request(method, path, headers=headers, timeout=30, **request)
                self.answers[answer.status_code] += 1
                if answer.status_code not in _SOON:
                    return answer
                if answer.status_code == 500:
                    self.lies.append(f"{method} {path} was answered 500: {answer.text[:300]}")
                pause = min(5.0, float(answer.headers.get("Retry-After", "1")))
            except httpx.TransportError:
                pass
            if give_up is not None and asyncio.get_running_loop().time() > give_up:
                return None
            await asyncio.sleep(pause)

    # --- the event stream -----------------------------------------------------------------------------------

    async def listen(self, user: int) -> None:
        """Keep the last status of every job as the user's event stream tells it, over every break of the line."""
        last = self.streams.setdefault(user, {})
        cursor = ""
        while True:
            headers = self.headers(user, **({"Last-Event-ID": cursor} if cursor else {}))
            try:
                async with self.http.stream("GET", "/events", headers=headers, timeout=30) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("id:"):
                            cursor = line.removeprefix("id:").strip()
                        elif line.startswith("data:"):
                            event = json.loads(line.removeprefix("data:"))
                            if "job_id" in event:
                                last[event["job_id"]] = event["status"]
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.3)
